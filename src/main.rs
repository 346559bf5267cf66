//! The binary: parses the command line, runs the command, prints an error chain once and sets the exit code.

use std::process::ExitCode;

/// A request makes some twenty short-lived allocations, two of them of 8 KiB, which glibc's allocator gets from its slow path.
#[cfg(target_os = "linux")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    signalr_gateway::cli::main()
}

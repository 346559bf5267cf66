//! The binary: parses the command line, runs the command, prints an error chain once and sets the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    signalr_gateway::cli::main()
}

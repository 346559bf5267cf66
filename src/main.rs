//! Parses the command line, runs the command, prints the error chain once and sets the exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    signalr_gateway::cli::main()
}

//! The command line: one file per subcommand. Data goes to stdout, everything else to stderr.
//!
//! Exit codes: 0 for success, 1 for a problem, 2 for wrong usage or configuration.

mod admin_options;
mod check;
mod completions;
mod convert;
mod doctor;
mod explain;
mod finding;
mod health;
mod logging;
mod man;
mod memory;
mod options;
mod output;
mod reload;
mod run;
mod runtime;
#[cfg(feature = "sandbox")]
mod sandbox;
#[cfg(feature = "sandbox")]
mod sandbox_ready;
mod service_manager;
mod service_user;
mod setup;
mod start_line;
mod tail;
mod token;
mod write_file;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::config::ConfigError;
use output::{Outcome, Usage, eprint, print};

/// A reverse proxy that lets internal services call Azure SignalR in any tenant without handling auth.
#[derive(Debug, Parser)]
#[command(name = "signalr-gateway", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT. SIGHUP or a changed file reloads the configuration; SIGUSR1 turns debug lines on for ten
    /// minutes, or off.
    Run(run::Options),
    /// Check a configuration: print all problems at once, or the effective settings and their origins.
    Check(check::Options),
    /// Show the endpoints of a call, or why it would be refused. Sends no request.
    Explain(explain::Options),
    /// Examine each endpoint's cross-tenant setup, and report the first broken step and its fix. Changes nothing.
    Doctor(doctor::Options),
    /// Write what the endpoints need in both tenants: az commands, Bicep, Terraform, or a page for an administrator.
    Setup(setup::Options),
    /// Obtain a token with an endpoint's credential, and show each step and claim.
    Token(token::Options),
    /// Start an emulated Entra, two emulated SignalR endpoints and a gateway in front of them, with no Azure account.
    #[cfg(feature = "sandbox")]
    Sandbox(sandbox::Options),
    /// Print live summaries of the requests that pass through a running gateway. Queries its admin listener.
    Tail(tail::Options),
    /// Check that a running gateway is alive, for container health checks. Queries its admin listener.
    Health(health::Options),
    /// Print the JSON Schema of the configuration file.
    Schema {
        /// The schema of a file that `include` names, instead of the main file's.
        #[arg(long)]
        included: bool,
        /// The schema of the ready file of `sandbox`, instead of the configuration file's.
        #[cfg(feature = "sandbox")]
        #[arg(long, conflicts_with = "included")]
        sandbox_ready_file: bool,
    },
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
    /// Write the manual pages of the program and its commands into a folder, for packages.
    #[command(hide = true)]
    Man(man::Options),
}

/// Parses the command line and runs the command.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(err) => return usage_error(&err),
    };
    memory::protect();
    let ended = cli.command.run();
    logging::finish();
    match ended {
        Ok(Outcome::Success) => ExitCode::SUCCESS,
        Ok(Outcome::ProblemFound) => ExitCode::from(1),
        Err(err) => {
            let code = if err.is::<Usage>() || err.is::<ConfigError>() { 2 } else { 1 };
            eprint(format_args!("error: {err:#}"));
            ExitCode::from(code)
        }
    }
}

impl Command {
    fn run(self) -> anyhow::Result<Outcome> {
        match self {
            Self::Run(options) => run::run(&options),
            Self::Check(options) => check::run(&options),
            Self::Explain(options) => explain::run(&options),
            Self::Doctor(options) => doctor::run(&options),
            Self::Setup(options) => setup::run(&options),
            Self::Token(options) => token::run(&options),
            #[cfg(feature = "sandbox")]
            Self::Sandbox(options) => sandbox::run(&options),
            Self::Tail(options) => tail::run(&options),
            Self::Health(options) => health::run(&options),
            #[cfg(feature = "sandbox")]
            Self::Schema { sandbox_ready_file: true, .. } => print(format_args!("{:#}", sandbox_ready::schema())),
            Self::Schema { included, .. } => {
                let schema = if included { crate::config::included_schema() } else { crate::config::schema() };
                print(format_args!("{schema:#}"))
            }
            Self::Completions { shell } => print(format_args!("{}", completions::script(shell, &Cli::command()))),
            Self::Man(options) => man::run(&options, &Cli::command()),
        }
    }
}

/// Prints clap's message: help in full, an error in one line with the help command to run.
fn usage_error(err: &clap::Error) -> ExitCode {
    if !err.use_stderr() {
        let _reader_gone = err.print();
        return ExitCode::SUCCESS;
    }
    if err.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        eprint(format_args!("{err}"));
    } else {
        eprint(format_args!("{}", in_one_line(&err.to_string())));
    }
    ExitCode::from(2)
}

/// Joins clap's paragraphs into one line, and appends the command that prints help.
fn in_one_line(text: &str) -> String {
    let (message, usage) = text.split_once("\n\nUsage: ").unwrap_or((text, ""));
    let lines =
        message.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let mut line = String::new();
    for part in lines {
        let ends_in_colon = line.ends_with(':');
        let separator = if ends_in_colon { " " } else { "; " };
        if !line.is_empty() {
            line.push_str(separator);
        }
        line.push_str(part);
    }
    let is_name = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let command: Vec<&str> =
        usage.split_whitespace().take(2).take_while(is_name).filter(|word| !word.starts_with('-')).collect();
    let command = if command.is_empty() { "signalr-gateway".to_owned() } else { command.join(" ") };
    format!("{line}; see `{command} --help`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_a_wrong_command_line_in_one_line_with_the_help_command() {
        for (arguments, expected) in [
            (
                vec!["run", "--confg", "x"],
                "error: unexpected argument '--confg' found; tip: a similar argument exists: '--config'; \
                 see `signalr-gateway run --help`",
            ),
            (vec!["frob"], "error: unrecognized subcommand 'frob'; see `signalr-gateway --help`"),
            (
                vec!["explain", "GET"],
                "error: the following required arguments were not provided: <URL>; see `signalr-gateway explain --help`",
            ),
            (
                vec!["check", "--set", "limits.max_body"],
                "error: invalid value 'limits.max_body' for '--set <KEY=VALUE>': write KEY=VALUE; \
                 see `signalr-gateway --help`",
            ),
        ] {
            let err = Cli::try_parse_from([&["signalr-gateway"], arguments.as_slice()].concat()).unwrap_err();
            assert_eq!(in_one_line(&err.to_string()), expected);
        }
    }

    #[test]
    fn the_command_line_definition_is_valid() {
        Cli::command().debug_assert();
    }
}

//! The command line: one file per subcommand. Data goes to stdout, everything else to stderr.
//!
//! Exit codes: 0 good, 1 a problem was found, 2 wrong usage or configuration.

mod check;
mod convert;
mod doctor;
mod explain;
mod health;
mod logging;
mod memory;
mod reload;
mod run;
#[cfg(feature = "sandbox")]
mod sandbox;
mod token;
mod written;

use std::fmt;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{ConfigError, Loaded, Sources};

/// A reverse proxy that lets internal services call Azure SignalR in any tenant without handling auth.
#[derive(Debug, Parser)]
#[command(name = "signalr-gateway", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve until SIGTERM or SIGINT. SIGHUP or a changed file reloads the configuration.
    Run(run::Options),
    /// Check a configuration: print every problem at once, or the settings in force and where each came from.
    Check(check::Options),
    /// Say where a call would go, or why it would be refused. Sends nothing.
    Explain(explain::Options),
    /// Examine each endpoint's cross-tenant set-up, name the first broken step and what mends it. Changes nothing.
    Doctor(doctor::Options),
    /// Obtain a token by an endpoint's credential and show each leg and claim.
    Token(token::Options),
    /// Start an emulated Entra, two emulated SignalR endpoints and a gateway in front of them, with no Azure account.
    #[cfg(feature = "sandbox")]
    Sandbox(sandbox::Options),
    /// Ask a running gateway's admin listener whether it is alive: for container health checks.
    Health(health::Options),
    /// Print the JSON Schema of the configuration file.
    Schema,
    /// Print a completion script for a shell.
    Completions {
        /// The shell.
        shell: clap_complete::Shell,
    },
}

/// Where the configuration comes from.
#[derive(Clone, Debug, Args)]
struct ConfigOptions {
    /// The configuration file (TOML).
    #[arg(long, short, value_name = "FILE", env = "SIGNALR_GATEWAY_CONFIG")]
    config: Option<PathBuf>,
    /// Set one key over file and environment, such as `limits.max_body=2MiB`. May be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    overrides: Vec<(String, String)>,
}

impl ConfigOptions {
    fn load(&self) -> Result<Loaded, ConfigError> {
        crate::config::load(&self.sources())
    }

    /// Loads it, and returns what the file said, too.
    fn load_with_text(&self) -> Result<(Option<String>, Loaded), ConfigError> {
        let sources = self.sources();
        let text = sources.read()?;
        Ok((text.clone(), crate::config::load_read(&sources, text)?))
    }

    fn sources(&self) -> Sources {
        Sources::of_process(self.config.clone(), self.overrides.clone())
    }
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Good,
    ProblemFound,
}

/// Marks an error as wrong usage or configuration: exit code 2.
#[derive(Debug)]
struct Usage(anyhow::Error);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for Usage {}

/// Turns an error into one of usage or configuration.
fn usage(err: impl Into<anyhow::Error>) -> anyhow::Error {
    Usage(err.into()).into()
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
        Ok(Outcome::Good) => ExitCode::SUCCESS,
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
            Self::Token(options) => token::run(&options),
            #[cfg(feature = "sandbox")]
            Self::Sandbox(options) => sandbox::run(&options),
            Self::Health(options) => health::run(&options),
            Self::Schema => print(format_args!("{:#}", crate::config::schema())),
            Self::Completions { shell } => {
                let mut script = Vec::new();
                clap_complete::generate(shell, &mut Cli::command(), "signalr-gateway", &mut script);
                print(format_args!("{}", String::from_utf8_lossy(&script)))
            }
        }
    }
}

/// Prints what clap says of the command line: help in full, an error in one line with what to do.
fn usage_error(err: &clap::Error) -> ExitCode {
    if !err.use_stderr() {
        let _nobody_reads = err.print();
        return ExitCode::SUCCESS;
    }
    if err.kind() == clap::error::ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        eprint(format_args!("{err}"));
    } else {
        eprint(format_args!("{}", in_one_line(&err.to_string())));
    }
    ExitCode::from(2)
}

/// Makes one line of clap's paragraphs, and names the help that is nearest to the mistake.
fn in_one_line(text: &str) -> String {
    let (said, usage) = text.split_once("\n\nUsage: ").unwrap_or((text, ""));
    let lines =
        said.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("For more information"));
    let mut line = String::new();
    for said in lines {
        let ends_in_colon = line.ends_with(':');
        let separator = if ends_in_colon { " " } else { "; " };
        if !line.is_empty() {
            line.push_str(separator);
        }
        line.push_str(said);
    }
    let is_name = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'-');
    let command: Vec<&str> =
        usage.split_whitespace().take(2).take_while(is_name).filter(|word| !word.starts_with('-')).collect();
    let command = if command.is_empty() { "signalr-gateway".to_owned() } else { command.join(" ") };
    format!("{line}; see `{command} --help`")
}

/// Writes data to stdout. A reader that went away (`| head`) is no error.
fn print(text: fmt::Arguments<'_>) -> anyhow::Result<Outcome> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(err) if err.kind() != std::io::ErrorKind::BrokenPipe => Err(err).context("cannot write to stdout"),
        Ok(()) | Err(_) => Ok(Outcome::Good),
    }
}

/// Writes a message to stderr, unless nobody reads it. There is nobody to tell if that fails.
fn eprint(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    logging::within(logging::LAST_LINES, move || {
        let _nowhere_to_say_so = writeln!(std::io::stderr().lock(), "{text}");
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_command_line_is_told_in_one_line_with_what_to_do() {
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
    fn the_command_line_holds_together() {
        Cli::command().debug_assert();
    }
}

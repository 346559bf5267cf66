//! What a command prints and how it ends. Data goes to stdout, everything else to stderr.

use std::fmt;
use std::io::Write;

use anyhow::Context;
use serde_json::json;

use super::logging;
use crate::config::{ConfigError, Problem};

/// What a command found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Good,
    ProblemFound,
}

/// Marks an error as wrong usage or configuration: exit code 2.
#[derive(Debug)]
pub(super) struct Usage(anyhow::Error);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for Usage {}

/// Turns an error into one of usage or configuration.
pub(super) fn usage(err: impl Into<anyhow::Error>) -> anyhow::Error {
    Usage(err.into()).into()
}

/// Prints data to stdout. A reader that is gone (`| head`) is not an error.
pub(super) fn print(text: fmt::Arguments<'_>) -> anyhow::Result<Outcome> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(err) if err.kind() != std::io::ErrorKind::BrokenPipe => Err(err).context("cannot write to stdout"),
        Ok(()) | Err(_) => Ok(Outcome::Good),
    }
}

/// Prints a message to stderr. Gives up after a second if nobody reads it.
pub(super) fn eprint(text: fmt::Arguments<'_>) {
    let text = text.to_string();
    logging::within(logging::LAST_LINES, move || {
        let _nowhere_to_report_it = writeln!(std::io::stderr().lock(), "{text}");
    });
}

/// Prints the problems of a configuration as JSON, and returns the error that ends the command.
pub(super) fn problems_to_json(err: &ConfigError) -> anyhow::Result<Outcome> {
    let problems: Vec<_> = err.problems.iter().map(problem_to_json).collect();
    print(format_args!("{:#}", json!({ "ok": false, "problems": problems })))?;
    Err(usage(anyhow::anyhow!("the configuration has {} problems", problems.len())))
}

/// Returns a problem of a configuration as JSON.
pub(super) fn problem_to_json(problem: &Problem) -> serde_json::Value {
    json!({
        "key": problem.key,
        "fact": problem.fact,
        "origin": problem.origin.as_ref().map(ToString::to_string),
        "hint": problem.fix,
    })
}

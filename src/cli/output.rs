//! The output and the outcome of a command. Data goes to stdout, everything else to stderr.

use std::fmt;
use std::io::Write;

use anyhow::Context;
use serde_json::json;

use super::logging;
use crate::config::{ConfigError, Problem};

/// The outcome of a command that ran without an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Success,
    ProblemFound,
}

/// An error of usage or configuration, which ends the process with exit code 2.
#[derive(Debug)]
pub(super) struct Usage(anyhow::Error);

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#}", self.0)
    }
}

impl std::error::Error for Usage {}

/// Marks an error as one of usage or configuration.
pub(super) fn usage(err: impl Into<anyhow::Error>) -> anyhow::Error {
    Usage(err.into()).into()
}

/// Prints data to stdout. A closed pipe (`| head`) is not an error.
pub(super) fn print(text: fmt::Arguments<'_>) -> anyhow::Result<Outcome> {
    match writeln!(std::io::stdout().lock(), "{}", with_visible_controls(&text.to_string())) {
        Err(err) if err.kind() != std::io::ErrorKind::BrokenPipe => Err(err).context("cannot write to stdout"),
        Ok(()) | Err(_) => Ok(Outcome::Success),
    }
}

/// Prints a message to stderr. Waits for the reader of a full pipe for at most a second.
pub(super) fn eprint(text: fmt::Arguments<'_>) {
    let text = with_visible_controls(&text.to_string());
    logging::run_with_timeout(logging::FLUSH_TIMEOUT, move || {
        let _cannot_be_reported = writeln!(std::io::stderr().lock(), "{text}");
    });
}

/// Escapes control characters other than line breaks and tabs, as in `\u{1b}`: text from configurations, files and answers must
/// not control a terminal.
fn with_visible_controls(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '\n' | '\t' => visible.push(one),
            _ if one.is_control() => visible.extend(one.escape_default()),
            _ => visible.push(one),
        }
    }
    visible
}

/// Prints the problems of a configuration as JSON, and returns the error that ends the command.
pub(super) fn problems_to_json(err: &ConfigError) -> anyhow::Result<Outcome> {
    let problems: Vec<_> = err.problems.iter().map(problem_to_json).collect();
    print(format_args!("{:#}", json!({ "ok": false, "problems": problems })))?;
    Err(usage(anyhow::anyhow!("the configuration has {} problems", problems.len())))
}

/// A report about a file: the key of the setting, or the file, and a text that includes what to do.
pub(super) struct FileReport {
    pub(super) key: String,
    pub(super) fact: String,
}

impl fmt::Display for FileReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.fact)
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_cannot_control_a_terminal() {
        assert_eq!(with_visible_controls("a\tb\u{1b}[31m\u{9b}1m\rc é\n"), "a\tb\\u{1b}[31m\\u{9b}1m\\rc é\n");
    }
}

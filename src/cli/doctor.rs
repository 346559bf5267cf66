//! `doctor`: finds the broken step of the cross-tenant setup and prints the remediation.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use anyhow::anyhow;
use clap::Args;
use serde_json::{Value, json};

use super::options::ConfigOptions;
use super::output::{Outcome, eprint, print, problems_to_json, usage};
use super::runtime::block_on;
use crate::diagnosis::{self, BrokenStep, Check, Finding, Progress, Verdict};
use crate::metrics::Metrics;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOptions,
    /// An endpoint to examine. May be repeated. Default: all of them.
    #[arg(long = "endpoint", value_name = "ENDPOINT")]
    endpoints: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut settings = match options.config.load() {
        Ok(loaded) => loaded.settings,
        Err(err) if options.json => return problems_to_json(&err),
        Err(err) => return Err(err.into()),
    };
    for wanted in &options.endpoints {
        if !settings.endpoints.iter().any(|endpoint| endpoint.name.as_str() == wanted) {
            return Err(usage(no_such_endpoint(wanted)));
        }
    }
    if !options.endpoints.is_empty() {
        settings.endpoints.retain(|endpoint| options.endpoints.iter().any(|name| name == endpoint.name.as_str()));
    }
    settings
        .credentials
        .retain(|credential| settings.endpoints.iter().any(|endpoint| endpoint.credential == credential.id));
    let metrics = Metrics::new()?;
    let shows_progress = std::io::stderr().is_terminal();
    let progress = |progress: Progress<'_>| {
        if shows_progress {
            eprint(format_args!("{}", progress_line(progress)));
        }
    };
    let examination = diagnosis::examine(&settings.credentials, &settings.endpoints, &metrics, progress);
    let findings = block_on(Box::pin(examination))?;
    let all_passed = findings.iter().all(|finding| finding.broken.is_none());
    if options.json {
        let endpoints: Vec<Value> = findings.iter().map(to_json).collect();
        print(format_args!("{:#}", json!({ "ok": all_passed, "endpoints": endpoints })))?;
    } else {
        let text: Vec<String> = findings.iter().map(to_text).collect();
        print(format_args!("{}", text.join("\n").trim_end()))?;
    }
    Ok(if all_passed { Outcome::Success } else { Outcome::ProblemFound })
}

pub(super) fn no_such_endpoint(wanted: &str) -> anyhow::Error {
    anyhow!("there is no endpoint `{wanted}` in the configuration")
}

fn progress_line(progress: Progress<'_>) -> String {
    match progress {
        Progress::Trying { endpoint, what } => format!("{endpoint}: {what} ..."),
        Progress::Ended(finding) => format!("{}: {}", finding.endpoint, summary(finding)),
    }
}

fn summary(finding: &Finding) -> String {
    finding
        .broken
        .as_ref()
        .map_or_else(|| "all checks passed".to_owned(), |broken| format!("broken at {}", broken.step))
}

fn to_text(finding: &Finding) -> String {
    let head = format!(
        "endpoint {} ({}), credential {}: {}\n",
        finding.endpoint,
        finding.url,
        finding.credential,
        summary(finding)
    );
    head + &checks_to_text(finding)
}

/// Formats the checks in order, then the broken step with its remediation.
pub(super) fn checks_to_text(finding: &Finding) -> String {
    let mut text = String::new();
    let mut line = |label: &str, content: &str| {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "  {label:<9} {content}");
    };
    for check in &finding.checks {
        let expected = match (&check.expected, check.verdict) {
            (None, _) => String::new(),
            (Some(_), Verdict::Good) => ", as expected".to_owned(),
            (Some(expected), _) => format!(", expected {expected}"),
        };
        line(label(check.verdict), &format!("{}: {}{expected}", check.what, check.result));
    }
    let Some(broken) = &finding.broken else { return text };
    line("broken", &broken.step.to_string());
    line("tried", &broken.tried);
    line("result", &broken.result);
    if let Some(description) = &broken.description {
        line("Entra", description);
    }
    for remediation in &broken.remediation {
        if !remediation.note.is_empty() {
            line("fix", &remediation.note);
        }
        if let Some(command) = &remediation.command {
            line("", &format!("$ {command}"));
        }
    }
    if let Some(delay) = broken.delay {
        line("then", &format!("wait: {delay}"));
    }
    text
}

const fn label(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Good => "ok",
        Verdict::Shown => "-",
        Verdict::Warning => "warning",
        Verdict::Wrong => "wrong",
    }
}

fn to_json(finding: &Finding) -> Value {
    json!({
        "endpoint": finding.endpoint,
        "url": finding.url,
        "credential": finding.credential,
        "ok": finding.broken.is_none(),
        "checks": finding.checks.iter().map(check_to_json).collect::<Vec<_>>(),
        "broken": finding.broken.as_ref().map(broken_to_json),
    })
}

fn check_to_json(check: &Check) -> Value {
    let verdict = match check.verdict {
        Verdict::Good => "good",
        Verdict::Shown => "shown",
        Verdict::Warning => "odd",
        Verdict::Wrong => "wrong",
    };
    json!({ "what": check.what, "result": check.result, "expected": check.expected, "verdict": verdict })
}

fn broken_to_json(broken: &BrokenStep) -> Value {
    let steps = broken.remediation.iter();
    let remediation: Vec<Value> = steps.map(|step| json!({ "note": step.note, "command": step.command })).collect();
    json!({
        "step": { "number": broken.step.number(), "name": broken.step.name(), "title": broken.step.title() },
        "tried": broken.tried,
        "came_back": broken.result,
        "description": broken.description,
        "codes": broken.codes,
        "correlation_id": broken.correlation_id,
        "trace_id": broken.trace_id,
        "mend": remediation,
        "delay": broken.delay,
    })
}

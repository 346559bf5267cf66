//! The text and the JSON of what `doctor` and `token` find at one endpoint.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::diagnosis::{BrokenStep, Check, Detail, Finding, Verdict};

pub(super) fn summary(finding: &Finding) -> String {
    finding
        .broken
        .as_ref()
        .map_or_else(|| "all checks passed".to_owned(), |broken| format!("broken at {}", broken.step))
}

/// Formats the head line of a finding.
pub(super) fn head_line(finding: &Finding) -> String {
    format!(
        "endpoint {} ({}), credential {}: {}\n",
        finding.endpoint,
        finding.url,
        finding.credential,
        summary(finding)
    )
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
        line(names(check.verdict).0, &format!("{}: {}{expected}", check.what, check.result));
    }
    let Some(broken) = &finding.broken else { return text };
    line("broken", &broken.step.to_string());
    line("tried", &broken.tried);
    line("result", &broken.result);
    if let Some(description) = &broken.description {
        line("Entra", description);
    }
    for Detail { name, value } in &broken.details {
        line("known", &format!("{name}: {value}"));
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

/// Returns how text and JSON name a verdict.
const fn names(verdict: Verdict) -> (&'static str, &'static str) {
    match verdict {
        Verdict::Good => ("ok", "good"),
        Verdict::Shown => ("-", "shown"),
        Verdict::Warning => ("warning", "odd"),
        Verdict::Wrong => ("wrong", "wrong"),
    }
}

pub(super) fn to_json(finding: &Finding) -> Value {
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
    let (_, verdict) = names(check.verdict);
    json!({ "what": check.what, "result": check.result, "expected": check.expected, "verdict": verdict })
}

fn broken_to_json(broken: &BrokenStep) -> Value {
    let steps = broken.remediation.iter();
    let remediation: Vec<Value> = steps.map(|step| json!({ "note": step.note, "command": step.command })).collect();
    let details = broken.details.iter().map(|Detail { name, value }| json!({ "name": name, "value": value }));
    json!({
        "step": { "number": broken.step.number(), "name": broken.step.name(), "title": broken.step.title() },
        "tried": broken.tried,
        "came_back": broken.result,
        "description": broken.description,
        "codes": broken.codes,
        "correlation_id": broken.correlation_id,
        "trace_id": broken.trace_id,
        "details": details.collect::<Vec<_>>(),
        "mend": remediation,
        "delay": broken.delay,
    })
}

//! `doctor`: which step of the cross-tenant set-up is broken, and what mends it.

use std::fmt::Write as _;
use std::io::IsTerminal as _;

use anyhow::anyhow;
use clap::Args;
use serde_json::{Value, json};

use super::{ConfigOptions, Outcome, eprint, print, usage};
use crate::diagnosis::{self, Broken, Finding};
use crate::metrics::Metrics;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOptions,
    /// The endpoints to examine. Default: all of them.
    endpoints: Vec<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let mut settings = options.config.load()?.settings;
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
        .retain(|credential| settings.endpoints.iter().any(|endpoint| endpoint.credential == credential.name));
    let metrics = Metrics::new()?;
    let shows_progress = std::io::stderr().is_terminal();
    if shows_progress {
        eprint(format_args!("examining {} endpoints, at most 15 seconds ...", settings.endpoints.len()));
    }
    let progress = |finding: &Finding| {
        if shows_progress {
            eprint(format_args!("{}: {}", finding.endpoint, summary(finding)));
        }
    };
    let examination = diagnosis::examine(&settings.credentials, &settings.endpoints, &metrics, progress);
    let findings = super::run::control_runtime()?.block_on(Box::pin(examination));
    if options.json {
        let findings: Vec<Value> = findings.iter().map(to_json).collect();
        print(format_args!("{:#}", json!({ "endpoints": findings })))?;
    } else {
        let text: Vec<String> = findings.iter().map(to_text).collect();
        print(format_args!("{}", text.join("\n")))?;
    }
    let good = findings.iter().all(|finding| finding.broken.is_none());
    Ok(if good { Outcome::Good } else { Outcome::ProblemFound })
}

pub(super) fn no_such_endpoint(wanted: &str) -> anyhow::Error {
    anyhow!("there is no endpoint `{wanted}` in the configuration")
}

fn summary(finding: &Finding) -> String {
    finding.broken.as_ref().map_or_else(|| "everything holds".to_owned(), |broken| format!("broken at {}", broken.step))
}

fn to_text(finding: &Finding) -> String {
    let mut text = format!(
        "endpoint {} ({}), credential {}: {}\n",
        finding.endpoint,
        finding.url,
        finding.credential,
        summary(finding)
    );
    let mut line = |label: &str, content: &str| {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "  {label:<9} {content}");
    };
    for check in &finding.checks {
        line(if check.warning { "odd" } else { "ok" }, &format!("{}: {}", check.what, check.result));
    }
    let Some(broken) = &finding.broken else { return text };
    line("broken", &broken.step.to_string());
    line("tried", &broken.tried);
    line("answer", &broken.came_back);
    for mend in &broken.mend {
        line("mend", &mend.note);
        if let Some(command) = &mend.command {
            line("", &format!("$ {command}"));
        }
    }
    if let Some(delay) = broken.delay {
        line("then", &format!("wait: {delay}"));
    }
    text
}

fn to_json(finding: &Finding) -> Value {
    let checks: Vec<Value> = finding
        .checks
        .iter()
        .map(|check| json!({ "what": check.what, "result": check.result, "odd": check.warning }))
        .collect();
    json!({
        "endpoint": finding.endpoint,
        "url": finding.url,
        "credential": finding.credential,
        "ok": finding.broken.is_none(),
        "checks": checks,
        "broken": finding.broken.as_ref().map(broken_to_json),
    })
}

fn broken_to_json(broken: &Broken) -> Value {
    let mend: Vec<Value> =
        broken.mend.iter().map(|mend| json!({ "note": mend.note, "command": mend.command })).collect();
    json!({
        "step": { "number": broken.step.number(), "name": broken.step.name(), "title": broken.step.title() },
        "tried": broken.tried,
        "came_back": broken.came_back,
        "codes": broken.codes,
        "correlation_id": broken.correlation_id,
        "mend": mend,
        "delay": broken.delay,
    })
}

//! `doctor`: finds the broken step of the cross-tenant setup and prints the remediation.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;

use anyhow::anyhow;
use clap::Args;
use futures_util::future::OptionFuture;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};

use super::finding::{checks_to_text, head_line, summary, to_json};
use super::options::ConfigOptions;
use super::output::{FileReport, Outcome, eprint, print, problems_to_json, usage};
use super::runtime::block_on;
use super::service_user::UserOption;
use crate::diagnosis::{self, DELIVERY_HUB, Deliver, Examination, Progress, SharedCause, shared_causes};
use crate::endpoint::{DisabledEndpoint, EndpointSettings};
use crate::idempotency::{SharedStore, StoreCheck};
use crate::metrics::Metrics;
use crate::redact::in_one_line;
use crate::route::{Case, Pattern};
use crate::serve::{CertificateReport, check_certificate};

/// The number of endpoints up to which each has its own report. Beyond it, there is one report for each cause.
const REPORTED_ONE_BY_ONE: usize = 10;
/// The number of names that a list shows before it counts the rest.
const NAMES: usize = 3;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOptions,
    #[command(flatten)]
    user: UserOption,
    /// An endpoint to examine, or a pattern with `*` for several. May be repeated. Default: all of them.
    #[arg(long = "endpoint", value_name = "ENDPOINT")]
    endpoints: Vec<String>,
    /// As the last step, connect to a hub of each endpoint as a client, send a message to that connection by REST, and print how
    /// long it took to arrive. It is billed as one message and, for a moment, one connection.
    #[arg(long, value_name = "HUB", num_args = 0..=1, require_equals = true, default_missing_value = DELIVERY_HUB)]
    deliver: Option<String>,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    let (mut settings, unreadable) = match options.config.load() {
        Ok(loaded) => {
            let unreadable = options.user.unreadable_files(&loaded)?;
            (loaded.settings, unreadable)
        }
        Err(err) if options.json => return problems_to_json(&err),
        Err(err) => return Err(err.into()),
    };
    retain(&mut settings.endpoints, &options.endpoints, &settings.disabled)?;
    let metrics = Metrics::new()?;
    let bar = progress_bar(settings.endpoints.len());
    let progress = |progress: Progress<'_>| match progress {
        Progress::Trying { endpoint, what } => bar.set_message(format!("{endpoint}: {what}")),
        Progress::Ended(finding) => {
            bar.set_message(format!("{}: {}", finding.endpoint, summary(finding)));
            bar.inc(1);
        }
    };
    let deliver = options.deliver.as_deref().map_or(Ok(Deliver::No), Deliver::to).map_err(usage)?;
    let examination = diagnosis::examine(&settings.credentials, &settings.endpoints, deliver, &metrics, progress);
    let store = settings.store.as_ref();
    let check_store = async { OptionFuture::from(store.map(SharedStore::check)).await };
    let (mut examination, store) = block_on(Box::pin(async { tokio::join!(examination, check_store) }))?;
    bar.finish_and_clear();
    if let Some(file) = &settings.file {
        let broken = examination.findings.iter_mut().filter_map(|finding| finding.broken.as_mut());
        broken.for_each(|broken| broken.name_config(file));
    }
    let certificates = settings.tls_listeners().map(|(name, tls)| check_certificate(name, tls));
    let certificates: Vec<_> = certificates.map(ListenerFinding::new).collect();
    let has_passed = examination.not_reached.is_empty()
        && examination.findings.iter().all(|finding| finding.broken.is_none())
        && certificates.iter().all(|listener| listener.problem.is_none())
        && store.as_ref().is_none_or(|store| store.result.is_ok());
    if options.json {
        let mut report = examination_to_json(&examination, has_passed);
        if let Some(report) = report.as_object_mut() {
            if !certificates.is_empty() {
                report.insert("listeners".to_owned(), certificates.iter().map(ListenerFinding::to_json).collect());
            }
            if let Some(store) = &store {
                report.insert("idempotency_store".to_owned(), store_to_json(store));
            }
            if !unreadable.is_empty() {
                let to_json = |FileReport { key, fact }: &FileReport| json!({ "key": key, "fact": fact });
                report.insert("warnings".to_owned(), unreadable.iter().map(to_json).collect());
            }
        }
        print(format_args!("{report:#}"))?;
    } else {
        for report in &unreadable {
            eprint(format_args!("warning: {report}"));
        }
        let listeners: String = certificates.iter().map(ListenerFinding::to_text).collect();
        let store = store.as_ref().map(store_to_text).unwrap_or_default();
        print(format_args!("{}", (listeners + &examination_to_text(&examination) + &store).trim_end()))?;
    }
    Ok(if has_passed { Outcome::Success } else { Outcome::ProblemFound })
}

/// What is wrong with the TLS files of a listener.
struct ListenerFinding {
    name: String,
    problem: Option<String>,
    warnings: Vec<String>,
}

impl ListenerFinding {
    fn new(report: CertificateReport) -> Self {
        let CertificateReport { listener, error, problem, warnings } = report;
        Self { name: listener, problem: error.map(|err| in_one_line(&err)).or(problem), warnings }
    }

    fn to_text(&self) -> String {
        let lines = self.problem.iter().map(|problem| format!("  broken    {problem}\n"));
        let lines = lines.chain(self.warnings.iter().map(|warning| format!("  warning   {warning}\n")));
        let lines: String = lines.collect();
        if lines.is_empty() { String::new() } else { format!("listener {}, TLS files:\n{lines}\n", self.name) }
    }

    fn to_json(&self) -> Value {
        json!({ "name": self.name, "ok": self.problem.is_none(), "problem": self.problem, "warnings": self.warnings })
    }
}

/// Formats the check of the idempotency store that replicas share.
fn store_to_text(store: &StoreCheck) -> String {
    let mut text = format!("\nidempotency store {}: ", store.address);
    let _infallible = match &store.result {
        Ok(warnings) if warnings.is_empty() => writeln!(text, "usable"),
        Ok(warnings) => {
            text.push_str("usable\n");
            warnings.iter().try_for_each(|warning| writeln!(text, "  warning   {warning}"))
        }
        Err(err) => writeln!(text, "{}\n  result    {}\n  fix       {}", err.what, err.cause, err.remedy()),
    };
    text
}

fn store_to_json(store: &StoreCheck) -> Value {
    match &store.result {
        Ok(warnings) => json!({ "address": store.address, "ok": true, "warnings": warnings }),
        Err(err) => json!({
            "address": store.address,
            "ok": false,
            "problem": err.what.to_string(),
            "result": err.cause,
            // As in the steps of endpoints.
            "mend": [{ "note": err.remedy(), "command": null }],
        }),
    }
}

/// Removes the endpoints that none of the names and patterns matches, unless there are none.
fn retain(
    endpoints: &mut Vec<Arc<EndpointSettings>>,
    wanted: &[String],
    disabled: &[DisabledEndpoint],
) -> anyhow::Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let mut patterns: Vec<_> = wanted.iter().map(|text| (Pattern::new(text, Case::Sensitive), false)).collect();
    endpoints.retain(|endpoint| {
        let mut is_wanted = false;
        for (pattern, has_matched) in &mut patterns {
            if pattern.matches(endpoint.name.as_str()) {
                (is_wanted, *has_matched) = (true, true);
            }
        }
        is_wanted
    });
    match patterns.iter().zip(wanted).find(|((_, has_matched), _)| !has_matched) {
        Some((_, wanted)) => Err(usage(no_such_endpoint(wanted, disabled))),
        None => Ok(()),
    }
}

pub(super) fn no_such_endpoint(wanted: &str, disabled: &[DisabledEndpoint]) -> anyhow::Error {
    if disabled.iter().any(|endpoint| endpoint.name.as_str() == wanted) {
        anyhow!("the endpoint `{wanted}` is disabled in the configuration (`enabled = false`)")
    } else if wanted.contains('*') {
        anyhow!("no endpoint in the configuration matches `{wanted}`")
    } else {
        anyhow!("there is no endpoint `{wanted}` in the configuration")
    }
}

/// Returns the progress bar, which draws nothing unless stderr is a terminal.
fn progress_bar(endpoints: usize) -> ProgressBar {
    let style = ProgressStyle::with_template("{pos} of {len} endpoints, {elapsed}  {wide_msg}");
    let bar = ProgressBar::with_draw_target(Some(endpoints as u64), ProgressDrawTarget::stderr());
    bar.with_style(style.unwrap_or_else(|_invalid| ProgressStyle::default_bar()))
}

/// Formats the causes that several endpoints have, then the reports.
fn examination_to_text(examination: &Examination) -> String {
    let Examination { findings, not_reached } = examination;
    let (mut text, causes) = (String::new(), shared_causes(findings));
    for cause in causes.iter().filter(|cause| cause.findings.len() > 1) {
        let _infallible = writeln!(text, "{}", cause_to_text(cause));
    }
    if !not_reached.is_empty() {
        let names = list(not_reached.iter().map(ToString::to_string));
        let fix = "examine them with --endpoint, which takes patterns such as 'a*'";
        let _infallible =
            writeln!(text, "{} not reached in time: {names}; {fix}", count(not_reached.len(), "endpoint"));
    }
    if !text.is_empty() {
        text.push('\n');
    }
    let first: HashMap<&str, &str> = causes.iter().flat_map(|cause| first_of(cause)).collect();
    let is_one_by_one = findings.len() <= REPORTED_ONE_BY_ONE;
    let mut reports = Vec::new();
    for finding in findings {
        match first.get(finding.endpoint.as_str()) {
            Some(first) if *first != finding.endpoint => {
                if is_one_by_one {
                    reports.push(format!("{}  same      as at endpoint {first}\n", head_line(finding)));
                }
            }
            None if !is_one_by_one => {}
            Some(_) | None => reports.push(head_line(finding) + &checks_to_text(finding)),
        }
    }
    let passed: Vec<String> =
        findings.iter().filter(|finding| finding.broken.is_none()).map(|finding| finding.endpoint.clone()).collect();
    if !is_one_by_one && !passed.is_empty() {
        let number = count(passed.len(), "endpoint");
        reports.push(format!("all checks passed at {number}: {}\n", list(passed.into_iter())));
    }
    text + &reports.join("\n")
}

/// Returns for each endpoint with a cause the first endpoint that has it.
fn first_of<'a>(cause: &SharedCause<'a>) -> Vec<(&'a str, &'a str)> {
    let first = cause.findings.first().map_or("", |first| first.endpoint.as_str());
    cause.findings.iter().map(|finding| (finding.endpoint.as_str(), first)).collect()
}

fn cause_to_text(cause: &SharedCause<'_>) -> String {
    let tenants = match cause.tenants() {
        0 => String::new(),
        tenants => format!(" in {}", count(tenants, "tenant")),
    };
    let endpoints = count(cause.findings.len(), "endpoint");
    format!(
        "{} at {endpoints}{tenants}: {}",
        cause.cause,
        list(cause.findings.iter().map(|finding| finding.endpoint.clone()))
    )
}

fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// Lists names, the first few if there are many.
fn list(names: impl ExactSizeIterator<Item = String>) -> String {
    let number = names.len();
    let shown = if number > NAMES + 1 { NAMES } else { number };
    let text = names.take(shown).collect::<Vec<_>>().join(", ");
    if shown < number { format!("{text} and {} more", number - shown) } else { text }
}

fn examination_to_json(examination: &Examination, has_passed: bool) -> Value {
    let Examination { findings, not_reached } = examination;
    let endpoints: Vec<Value> = findings.iter().map(to_json).collect();
    let causes: Vec<Value> = shared_causes(findings).iter().map(cause_to_json).collect();
    let not_reached: Vec<&str> = not_reached.iter().map(crate::endpoint::EndpointName::as_str).collect();
    json!({ "ok": has_passed, "endpoints": endpoints, "causes": causes, "not_reached": not_reached })
}

fn cause_to_json(cause: &SharedCause<'_>) -> Value {
    let endpoints: Vec<&str> = cause.findings.iter().map(|finding| finding.endpoint.as_str()).collect();
    json!({
        "cause": cause.cause,
        "step": cause.step.name(),
        "codes": cause.codes,
        "tenants": cause.tenants(),
        "endpoints": endpoints,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_of_names_end_with_a_count() {
        let names = |number: usize| list((0..number).map(|number| format!("t{number}")));
        assert_eq!(names(4), "t0, t1, t2, t3");
        assert_eq!(names(37), "t0, t1, t2 and 34 more");
    }
}

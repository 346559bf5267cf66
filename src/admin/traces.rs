//! The export of traces on `/status`.

use serde::Serialize;

use super::time::seconds;
use crate::otlp::{ExportMonitor, ExportStatus};

/// The export of traces on `/status`. Times are in seconds since the Unix epoch.
#[derive(Debug, Serialize)]
pub struct TracesView {
    /// The collector's URL.
    pub collector: String,
    /// The share of the calls without a parent that is traced.
    pub sample: f64,
    /// `ok`, `failing`, or `starting` before the first export.
    pub state: &'static str,
    /// Since when it has this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The number of spans that the collector accepted since the gateway started.
    pub exported: u64,
    /// The number of spans that were lost since then.
    pub dropped: u64,
    /// The number of exports that failed since then. Each is repeated.
    pub failures: u64,
    /// When an export last succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<u64>,
    /// When an export last failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<u64>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What to do about it, while exports fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<&'static str>,
}

impl TracesView {
    pub(super) fn of(monitor: &ExportMonitor) -> Self {
        let ExportStatus { is_ok, since, last_success, last_failure } = monitor.status();
        let metrics = monitor.metrics();
        let (exported, dropped) = metrics.counts();
        let is_failing = is_ok == Some(false);
        Self {
            collector: monitor.collector().to_owned(),
            sample: monitor.sample(),
            state: match is_ok {
                None => "starting",
                Some(true) => "ok",
                Some(false) => "failing",
            },
            since: since.map(seconds),
            exported,
            dropped,
            failures: metrics.failures(),
            last_success: last_success.map(seconds),
            last_failure: last_failure.as_ref().map(|failure| seconds(failure.at)),
            fix: last_failure.as_ref().filter(|_| is_failing).map(|failure| failure.remedy),
            problem: last_failure.map(|failure| failure.problem),
        }
    }
}

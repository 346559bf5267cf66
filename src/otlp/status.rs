//! The status of the export, for the admin page.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::settings::OtlpSettings;
use crate::metrics::TraceMetrics;

/// The status of the export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportStatus {
    /// Whether the last export succeeded; `None` before the first one has ended.
    pub is_ok: Option<bool>,
    /// Since when exports have this outcome.
    pub since: Option<SystemTime>,
    /// When an export last succeeded.
    pub last_success: Option<SystemTime>,
    /// The last failure.
    pub last_failure: Option<ExportFailure>,
}

/// Why an export failed, or why the collector rejected spans.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportFailure {
    /// When.
    pub at: SystemTime,
    /// What happened, in one line.
    pub problem: String,
    /// What to do.
    pub remedy: &'static str,
}

/// What an export changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing: it has the outcome of the one before, or is the first and succeeded.
    None,
    /// It failed, and the one before did not.
    Failed,
    /// It succeeded, and the one before did not.
    Recovered,
}

/// Where traces are exported to, and with what result. The exporter writes it.
#[derive(Debug)]
pub struct ExportMonitor {
    collector: String,
    sample: f64,
    metrics: TraceMetrics,
    status: Mutex<ExportStatus>,
}

impl ExportMonitor {
    pub(super) fn new(settings: &OtlpSettings, metrics: &TraceMetrics) -> Arc<Self> {
        let status = ExportStatus { is_ok: None, since: None, last_success: None, last_failure: None };
        let OtlpSettings { url, sample, .. } = settings;
        Arc::new(Self {
            collector: url.to_string(),
            sample: *sample,
            metrics: metrics.clone(),
            status: Mutex::new(status),
        })
    }

    /// Returns the collector's URL.
    pub fn collector(&self) -> &str {
        &self.collector
    }

    /// Returns the share of the calls without a parent that is recorded.
    pub fn sample(&self) -> f64 {
        self.sample
    }

    /// Returns the metrics of the export.
    pub fn metrics(&self) -> &TraceMetrics {
        &self.metrics
    }

    /// Returns the status.
    pub fn status(&self) -> ExportStatus {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records an export: its success, or what failed and what to do.
    pub(super) fn record(&self, outcome: Result<(), (String, &'static str)>, at: SystemTime) -> Change {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let (before, is_ok) = (status.is_ok, outcome.is_ok());
        if before != Some(is_ok) {
            status.since = Some(at);
        }
        status.is_ok = Some(is_ok);
        match outcome {
            Ok(()) => status.last_success = Some(at),
            Err((problem, remedy)) => status.last_failure = Some(ExportFailure { at, problem, remedy }),
        }
        match (before, is_ok) {
            (Some(false), true) => Change::Recovered,
            (None | Some(true), false) => Change::Failed,
            (Some(false), false) | (None | Some(true), true) => Change::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::MetricRegistry;

    #[test]
    fn the_status_has_since_when_exports_fail_and_keeps_the_last_failure_after_a_success() {
        let settings = OtlpSettings {
            url: "http://collector:4318/v1/traces".parse().unwrap(),
            ca_file: None,
            egress: Arc::default(),
            headers: Vec::new(),
            service_name: "gw".to_owned(),
            sample: 0.5,
        };
        let metrics = TraceMetrics::register(&mut MetricRegistry::default()).unwrap();
        let monitor = ExportMonitor::new(&settings, &metrics);
        assert_eq!((monitor.collector(), monitor.status().is_ok), ("http://collector:4318/v1/traces", None));
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let failed = |problem: &str| Err((problem.to_owned(), "start it"));
        assert_eq!(monitor.record(Ok(()), at(1)), Change::None);
        assert_eq!(monitor.record(failed("a"), at(2)), Change::Failed);
        assert_eq!(monitor.record(failed("b"), at(3)), Change::None);
        let ExportStatus { is_ok, since, last_success, last_failure } = monitor.status();
        assert_eq!((is_ok, since, last_success), (Some(false), Some(at(2)), Some(at(1))));
        let expected = ExportFailure { at: at(3), problem: "b".to_owned(), remedy: "start it" };
        assert_eq!(last_failure.as_ref(), Some(&expected));
        assert_eq!(monitor.record(Ok(()), at(4)), Change::Recovered);
        let ExportStatus { is_ok, since, last_failure, .. } = monitor.status();
        assert_eq!((is_ok, since, last_failure), (Some(true), Some(at(4)), Some(expected)));
    }
}

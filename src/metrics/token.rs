//! Metrics of token acquisition, by the configured names of credentials.

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, HistogramVec, IntCounterVec};

use super::labels::{TokenErrorReason, TokenOutcome, TokenStage};
use super::registry::{LabelsInForce, MetricRegistry};
use super::states::StateSource;

const TOKEN_REQUEST_BUCKETS: [f64; 9] = [0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Metrics of the credentials. Cloning shares them.
#[derive(Clone, Debug)]
pub struct TokenMetrics {
    requests: IntCounterVec,
    errors: IntCounterVec,
    duration: HistogramVec,
    expiry: GaugeVec,
    last_success: GaugeVec,
    certificate: GaugeVec,
    assertion_file: GaugeVec,
    labels: LabelsInForce,
}

impl TokenMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// If one of them is registered already.
    pub fn register(registry: &mut MetricRegistry) -> prometheus::Result<Self> {
        Ok(Self {
            requests: registry.counters(
                "token_requests_total",
                "Token requests to identity endpoints, when they end.",
                &["credential", "stage", "result"],
            )?,
            errors: registry.counters(
                "token_errors_total",
                "Failed token requests by cause.",
                &["credential", "reason"],
            )?,
            duration: registry.histograms(
                "token_request_duration_seconds",
                "How long token requests to identity endpoints took.",
                "stage",
                &TOKEN_REQUEST_BUCKETS,
            )?,
            expiry: registry.float_gauges(
                "token_expiry_timestamp_seconds",
                "When the token in use expires; 0 before the first one, +Inf for what does not expire.",
                &["credential"],
            )?,
            last_success: registry.float_gauges(
                "token_last_success_timestamp_seconds",
                "When a token was last obtained; 0 if never.",
                &["credential"],
            )?,
            certificate: registry.float_gauges(
                "credential_not_after_timestamp_seconds",
                "When the credential's client certificate expires.",
                &["credential"],
            )?,
            assertion_file: registry.float_gauges(
                "assertion_file_expiry_timestamp_seconds",
                "When the assertion that was last read from the credential's file expires.",
                &["credential"],
            )?,
            labels: registry.labels(),
        })
    }

    /// Counts a token request that ended.
    pub fn request_ended(&self, credential: &str, stage: TokenStage, outcome: TokenOutcome, took: Duration) {
        self.with_label(credential, |label| {
            self.requests.with_label_values(&[label, stage.label(), outcome.label()]).inc();
        });
        self.duration.with_label_values(&[stage.label()]).observe(took.as_secs_f64());
    }

    /// Counts the cause of a failed token request.
    pub fn request_failed(&self, credential: &str, reason: TokenErrorReason) {
        self.with_label(credential, |label| self.errors.with_label_values(&[label, reason.label()]).inc());
    }

    /// Sets the gauges of the tokens in use: the earliest times of those that share a label.
    pub(super) fn refresh(&self, parts: &dyn StateSource) {
        let mut earliest: HashMap<String, (f64, f64)> = HashMap::new();
        parts.tokens(&mut |credential, times| {
            let (obtained, expires) =
                times.map_or((0.0, 0.0), |(obtained, expires)| (unix(obtained), expires.map_or(f64::INFINITY, unix)));
            self.with_label(credential, |label| {
                if let Some(least) = earliest.get_mut(label) {
                    *least = (least.0.min(obtained), least.1.min(expires));
                } else {
                    earliest.insert(label.to_owned(), (obtained, expires));
                }
            });
        });
        self.last_success.reset();
        self.expiry.reset();
        for (label, (obtained, expires)) in &earliest {
            self.last_success.with_label_values(&[label]).set(*obtained);
            self.expiry.with_label_values(&[label]).set(*expires);
        }
    }

    /// Sets when the credential's client certificate expires.
    pub fn certificate_expires(&self, credential: &str, at: SystemTime) {
        self.with_label(credential, |label| self.certificate.with_label_values(&[label]).set(unix(at)));
    }

    /// Sets when the assertion that was read from the credential's file expires.
    pub fn assertion_file_expires(&self, credential: &str, at: SystemTime) {
        self.with_label(credential, |label| self.assertion_file.with_label_values(&[label]).set(unix(at)));
    }

    /// Passes the label of a credential to `record`.
    fn with_label(&self, credential: &str, record: impl FnOnce(&str)) {
        match &*self.labels.load() {
            Some(labels) => record(labels.credentials.label_name(credential)),
            None => record(credential),
        }
    }
}

fn unix(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

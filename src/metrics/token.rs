//! Metrics of token acquisition, by the configured names of credentials.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, HistogramVec, IntCounterVec};

use super::labels::{TokenErrorReason, TokenOutcome, TokenStage};
use super::registry::MetricRegistry;

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
        })
    }

    /// Counts a token request that ended.
    pub fn request_ended(&self, credential: &str, stage: TokenStage, outcome: TokenOutcome, took: Duration) {
        self.requests.with_label_values(&[credential, stage.label(), outcome.label()]).inc();
        self.duration.with_label_values(&[stage.label()]).observe(took.as_secs_f64());
    }

    /// Counts the cause of a failed token request.
    pub fn request_failed(&self, credential: &str, reason: TokenErrorReason) {
        self.errors.with_label_values(&[credential, reason.label()]).inc();
    }

    /// Sets when the token in use was obtained and when it expires, if ever. `None` stands for no token yet and creates the
    /// series.
    pub fn in_service(&self, credential: &str, token: Option<(SystemTime, Option<SystemTime>)>) {
        let (obtained, expires) =
            token.map_or((0.0, 0.0), |(obtained, expires)| (unix(obtained), expires.map_or(f64::INFINITY, unix)));
        self.last_success.with_label_values(&[credential]).set(obtained);
        self.expiry.with_label_values(&[credential]).set(expires);
    }

    /// Sets when the credential's client certificate expires.
    pub fn certificate_expires(&self, credential: &str, at: SystemTime) {
        self.certificate.with_label_values(&[credential]).set(unix(at));
    }

    /// Sets when the assertion that was read from the credential's file expires.
    pub fn assertion_file_expires(&self, credential: &str, at: SystemTime) {
        self.assertion_file.with_label_values(&[credential]).set(unix(at));
    }
}

fn unix(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

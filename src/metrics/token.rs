//! What is counted of token acquisitions. Knows credentials by their configured names alone.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Registry};

use super::labels::{TokenErrorReason, TokenOutcome, TokenStage};
use super::opts;
use super::stale::Vector;

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
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let metrics = Self {
            requests: IntCounterVec::new(
                opts("token_requests_total", "Token requests to identity endpoints, when they end."),
                &["credential", "stage", "result"],
            )?,
            errors: IntCounterVec::new(
                opts("token_errors_total", "Failed token requests by cause."),
                &["credential", "reason"],
            )?,
            duration: HistogramVec::new(
                HistogramOpts::from(opts(
                    "token_request_duration_seconds",
                    "How long token requests to identity endpoints took.",
                ))
                .buckets(vec![0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
                &["stage"],
            )?,
            expiry: GaugeVec::new(
                opts(
                    "token_expiry_timestamp_seconds",
                    "When the token in service expires; 0 before the first one, +Inf for what does not expire.",
                ),
                &["credential"],
            )?,
            last_success: GaugeVec::new(
                opts("token_last_success_timestamp_seconds", "When a token was last obtained; 0 if never."),
                &["credential"],
            )?,
            certificate: GaugeVec::new(
                opts("credential_not_after_timestamp_seconds", "When the credential's client certificate ends."),
                &["credential"],
            )?,
            assertion_file: GaugeVec::new(
                opts(
                    "assertion_file_expiry_timestamp_seconds",
                    "When the assertion that was last read from the credential's file expires.",
                ),
                &["credential"],
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.expiry.clone()))?;
        registry.register(Box::new(metrics.last_success.clone()))?;
        registry.register(Box::new(metrics.certificate.clone()))?;
        registry.register(Box::new(metrics.assertion_file.clone()))?;
        Ok(metrics)
    }

    /// Returns the metrics that have series for configured names.
    pub(super) fn vectors(&self) -> [Box<dyn Vector>; 6] {
        [
            Box::new(self.requests.clone()),
            Box::new(self.errors.clone()),
            Box::new(self.expiry.clone()),
            Box::new(self.last_success.clone()),
            Box::new(self.certificate.clone()),
            Box::new(self.assertion_file.clone()),
        ]
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

    /// Says which token is in service: when it was obtained and when it expires, if it does. Before the first one, call
    /// it with `None`, so that the series are there from the start.
    pub fn in_service(&self, credential: &str, token: Option<(SystemTime, Option<SystemTime>)>) {
        let (obtained, expires) =
            token.map_or((0.0, 0.0), |(obtained, expires)| (unix(obtained), expires.map_or(f64::INFINITY, unix)));
        self.last_success.with_label_values(&[credential]).set(obtained);
        self.expiry.with_label_values(&[credential]).set(expires);
    }

    /// Says when the credential's client certificate ends.
    pub fn certificate_ends(&self, credential: &str, at: SystemTime) {
        self.certificate.with_label_values(&[credential]).set(unix(at));
    }

    /// Says when the assertion that was read from the credential's file expires.
    pub fn assertion_file_ends(&self, credential: &str, at: SystemTime) {
        self.assertion_file.with_label_values(&[credential]).set(unix(at));
    }
}

fn unix(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

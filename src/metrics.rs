//! Every metric of the gateway, its labels and its buckets, in a registry of its own.
//!
//! Label values come from closed enums and configured names alone, so the number of series is bounded by the
//! configuration whatever callers send.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, Opts, Registry};

/// The leg of an acquisition that a token request belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenStage {
    /// Getting the client assertion (managed identity, file, external identity provider).
    Assertion,
    /// Getting the endpoint's token.
    Exchange,
}

impl TokenStage {
    const fn label(self) -> &'static str {
        match self {
            Self::Assertion => "assertion",
            Self::Exchange => "exchange",
        }
    }
}

/// How a token request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenOutcome {
    /// A usable token came back.
    Ok,
    /// It failed in a way that may pass by itself.
    Transient,
    /// It was refused in a way that somebody must mend.
    Permanent,
}

impl TokenOutcome {
    const fn label(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Transient => "transient",
            Self::Permanent => "permanent",
        }
    }
}

/// Why a token request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenErrorReason {
    /// The secret, certificate or assertion was refused.
    InvalidClient,
    /// The assertion was outside its time window.
    AssertionExpired,
    /// The app is unknown to the tenant, or the tenant to the cloud.
    UnknownApp,
    /// The federated credential, resource or policy does not allow it.
    Refused,
    /// Too many requests.
    Throttled,
    /// No answer: name resolution, connection, TLS, timeout, or a 5xx.
    Network,
    /// An answer that is not a usable token answer.
    Malformed,
    /// A secret, certificate or assertion on this host could not be read or used.
    Local,
    /// Anything else.
    Other,
}

impl TokenErrorReason {
    const fn label(self) -> &'static str {
        match self {
            Self::InvalidClient => "invalid_client",
            Self::AssertionExpired => "assertion_expired",
            Self::UnknownApp => "unknown_app",
            Self::Refused => "refused",
            Self::Throttled => "throttled",
            Self::Network => "network",
            Self::Malformed => "malformed",
            Self::Local => "local",
            Self::Other => "other",
        }
    }
}

/// Metrics of the credentials. Cloning shares them.
#[derive(Clone, Debug)]
pub struct TokenMetrics {
    requests: IntCounterVec,
    errors: IntCounterVec,
    duration: HistogramVec,
    expiry: GaugeVec,
    last_success: GaugeVec,
    not_after: GaugeVec,
}

impl TokenMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// If one of them is registered already.
    pub fn register(registry: &Registry) -> prometheus::Result<Self> {
        let opts = |name: &str, help: &str| Opts::new(name, help).namespace(NAMESPACE);
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
            not_after: GaugeVec::new(
                opts(
                    "credential_not_after_timestamp_seconds",
                    "When the credential's own certificate or assertion ends.",
                ),
                &["credential"],
            )?,
        };
        registry.register(Box::new(metrics.requests.clone()))?;
        registry.register(Box::new(metrics.errors.clone()))?;
        registry.register(Box::new(metrics.duration.clone()))?;
        registry.register(Box::new(metrics.expiry.clone()))?;
        registry.register(Box::new(metrics.last_success.clone()))?;
        registry.register(Box::new(metrics.not_after.clone()))?;
        Ok(metrics)
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

    /// Says when the credential's own certificate or assertion ends.
    pub fn not_after(&self, credential: &str, at: SystemTime) {
        self.not_after.with_label_values(&[credential]).set(unix(at));
    }
}

const NAMESPACE: &str = "signalr_gateway";

fn unix(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

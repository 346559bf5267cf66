//! Metrics of token acquisition, by the configured names of credentials.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, HistogramVec, IntCounter, IntCounterVec, IntGauge};

use super::acquisition::{Acquisition, AcquisitionObserver};
use super::label_table::Labels;
use super::labels::{TokenErrorReason, TokenOutcome, TokenStage};
use super::registry::{LabelsInForce, MetricRegistry};
use super::states::{ProofExpiries, StateSource};
use super::zeros;

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
    running: IntGauge,
    queued: IntGauge,
    slow: IntCounter,
    throttled: IntCounterVec,
    observer: Arc<OnceLock<Arc<dyn AcquisitionObserver>>>,
}

/// A token request that is counted in a gauge until this is dropped.
#[derive(Debug)]
pub struct CountedTokenRequest(IntGauge);

impl CountedTokenRequest {
    fn new(gauge: &IntGauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for CountedTokenRequest {
    fn drop(&mut self) {
        self.0.dec();
    }
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
            running: registry.gauge(
                "token_requests_running",
                "Token requests that run now. Those that run for longer than 2 s do not count towards tokens.max_requests.",
            )?,
            queued: registry
                .gauge("token_requests_queued", "Token requests that wait for others, because of tokens.max_requests.")?,
            slow: registry.counter("token_requests_slow_total", "Token requests that ran for longer than 2 s.")?,
            throttled: {
                let throttled = registry.counters(
                    "token_throttled_total",
                    "Pauses of the token requests of a tenant or an app, because Entra throttles it.",
                    &["party"],
                )?;
                zeros::create(&throttled, &[&["tenant", "app"]]);
                throttled
            },
            observer: Arc::default(),
        })
    }

    /// Creates the series of the configured credentials.
    pub(super) fn create_series(&self, labels: &Labels) {
        zeros::create_token(&self.requests, &self.errors, labels);
    }

    /// Reports acquisitions to an observer from now on. The first one stays.
    pub fn observe(&self, observer: Arc<dyn AcquisitionObserver>) {
        let _there_is_one_already = self.observer.set(observer);
    }

    /// Reports an acquisition that ended to the observer, if there is one.
    pub fn acquisition_ended(&self, acquisition: &Acquisition<'_>) {
        if let Some(observer) = self.observer.get() {
            observer.acquisition_ended(acquisition);
        }
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

    /// Counts a token request as running until the result is dropped.
    pub fn request_runs(&self) -> CountedTokenRequest {
        CountedTokenRequest::new(&self.running)
    }

    /// Counts a token request as queued until the result is dropped.
    pub fn request_queues(&self) -> CountedTokenRequest {
        CountedTokenRequest::new(&self.queued)
    }

    /// Counts a token request that runs for long.
    pub fn request_is_slow(&self) {
        self.slow.inc();
    }

    /// Counts a pause because Entra throttles a party: `tenant` or `app`.
    pub fn throttled(&self, party: &'static str) {
        self.throttled.with_label_values(&[party]).inc();
    }

    /// Sets the gauges of the tokens in use and of what they are obtained with: the earliest times of those that share a label.
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
        self.refresh_proofs(parts);
    }

    /// Sets the gauges of certificates and assertion files: the earliest expiry of those that share a label.
    fn refresh_proofs(&self, parts: &dyn StateSource) {
        let mut earliest: HashMap<String, ProofExpiries> = HashMap::new();
        parts.proofs(&mut |credential, expiries| {
            self.with_label(credential, |label| {
                if let Some(least) = earliest.get_mut(label) {
                    least.certificate = earlier(least.certificate, expiries.certificate);
                    least.assertion_file = earlier(least.assertion_file, expiries.assertion_file);
                } else {
                    earliest.insert(label.to_owned(), expiries);
                }
            });
        });
        self.certificate.reset();
        self.assertion_file.reset();
        for (label, expiries) in &earliest {
            for (gauge, at) in
                [(&self.certificate, expiries.certificate), (&self.assertion_file, expiries.assertion_file)]
            {
                if let Some(at) = at {
                    gauge.with_label_values(&[label]).set(unix(at));
                }
            }
        }
    }

    /// Passes the label of a credential to `record`.
    fn with_label(&self, credential: &str, record: impl FnOnce(&str)) {
        match &*self.labels.load() {
            Some(labels) => record(labels.credentials.label_name(credential)),
            None => record(credential),
        }
    }
}

/// Returns the earlier of two times. What has no such time does not count.
fn earlier(one: Option<SystemTime>, other: Option<SystemTime>) -> Option<SystemTime> {
    one.into_iter().chain(other).min()
}

fn unix(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::label_table::Label;
    use crate::metrics::states::{EndpointState, TokenTimes};

    /// Proofs by the names of their credentials.
    #[derive(Debug)]
    struct Proofs(Vec<(&'static str, ProofExpiries)>);

    impl StateSource for Proofs {
        fn endpoints(&self, _visit: &mut dyn FnMut(&Label, EndpointState)) {}

        fn certificates(&self, _visit: &mut dyn FnMut(&str, SystemTime, bool)) {}

        fn tokens(&self, _visit: &mut dyn FnMut(&str, Option<TokenTimes>)) {}

        fn proofs(&self, visit: &mut dyn FnMut(&str, ProofExpiries)) {
            self.0.iter().for_each(|(name, expiries)| visit(name, *expiries));
        }

        fn fan_outs(&self, _visit: &mut dyn FnMut(&str)) {}
    }

    #[test]
    fn proofs_that_share_a_label_show_the_earliest_expiry() {
        let at = |seconds| Some(UNIX_EPOCH + Duration::from_secs(seconds));
        let metrics = TokenMetrics::register(&mut MetricRegistry::default()).unwrap();
        let proof = |certificate, assertion_file| ProofExpiries { certificate, assertion_file };
        let mut proofs =
            vec![("saas", proof(at(9), None)), ("saas", proof(at(5), at(8))), ("saas", proof(at(7), None))];
        let shown = |gauge: &GaugeVec| gauge.with_label_values(&["saas"]).get();
        for _ in 0..2 {
            metrics.refresh(&Proofs(proofs.clone()));
            assert!((shown(&metrics.certificate) - 5.0).abs() < 0.1);
            assert!((shown(&metrics.assertion_file) - 8.0).abs() < 0.1);
            proofs.reverse();
        }
        metrics.refresh(&Proofs(vec![("saas", proof(at(9), None))]));
        assert!((shown(&metrics.certificate) - 9.0).abs() < 0.1, "a renewed certificate moves the gauge");
    }
}

//! Metrics of requests, attempts and connections. Every worker adds to them.

use std::sync::Arc;

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::exemplars::Exemplars;
use super::registry::{DURATION_BUCKETS, LabelsInForce, MetricRegistry};
use super::retry_budgets::RetryBudgets;

const OVERHEAD_BUCKETS: [f64; 10] = [5e-5, 1e-4, 2.5e-4, 5e-4, 1e-3, 2.5e-3, 5e-3, 2.5e-2, 0.1, 0.25];
const BYTE_BUCKETS: [f64; 7] = [256.0, 1024.0, 4096.0, 16384.0, 65536.0, 262_144.0, 1_048_576.0];

/// Metrics that all workers share. Cloning shares them.
#[derive(Clone, Debug)]
pub(super) struct SharedMetrics {
    pub(super) requests: IntCounterVec,
    pub(super) request_duration: HistogramVec,
    pub(super) request_exemplars: Arc<Exemplars>,
    pub(super) overhead: Histogram,
    pub(super) in_flight: IntGauge,
    pub(super) request_body: Histogram,
    pub(super) response_body: Histogram,
    pub(super) rejected: IntCounterVec,
    pub(super) upstream_requests: IntCounterVec,
    pub(super) upstream_duration: HistogramVec,
    pub(super) upstream_exemplars: Arc<Exemplars>,
    pub(super) upstream_errors: IntCounterVec,
    pub(super) message_units: IntCounterVec,
    pub(super) upstream_connections: IntGaugeVec,
    pub(super) upstream_connects: IntCounterVec,
    pub(super) upstream_closed: IntCounterVec,
    pub(super) retries: IntCounterVec,
    pub(super) token_wait: Histogram,
    pub(super) unauthorized: IntCounterVec,
    pub(super) fan_out_legs: IntCounterVec,
    pub(super) fan_out_partial: IntCounterVec,
    pub(super) fan_out_repeated: IntCounterVec,
    pub(super) address_unclear: IntCounterVec,
    pub(super) proxy_protocol_refused: IntCounterVec,
    pub(super) replays: IntCounter,
    pub(super) listener_queue: IntCounterVec,
    pub(super) endpoint_queue: IntCounterVec,
    pub(super) rate_limited: IntCounterVec,
    pub(super) client_rate_limited: IntCounterVec,
    pub(super) endpoint_rate_limited: IntCounterVec,
    pub(super) caller_requests: IntCounterVec,
    pub(super) caller_rate_limited: IntCounterVec,
    pub(super) retry_budgets: Arc<RetryBudgets>,
    labels: LabelsInForce,
}

impl SharedMetrics {
    /// Returns the exemplars of all histograms that have some.
    pub(super) fn exemplars(&self) -> [&Exemplars; 2] {
        [&self.request_exemplars, &self.upstream_exemplars]
    }

    /// Registers the metrics.
    ///
    /// # Errors
    /// If one of them is registered already.
    pub(super) fn register(registry: &mut MetricRegistry) -> prometheus::Result<Self> {
        Ok(Self {
            requests: registry.counters(
                "requests_total",
                "Requests, counted when the response ends or the caller disconnects.",
                &["route", "operation", "code"],
            )?,
            request_duration: registry.histograms(
                "request_duration_seconds",
                "Time from the head of a request to the end of its response.",
                "operation",
                &DURATION_BUCKETS,
            )?,
            request_exemplars: Arc::new(Exemplars::new("request_duration_seconds", "operation")),
            overhead: registry.histogram(
                "overhead_seconds",
                "Request duration minus waits for response heads, tokens, permits and retry pauses; includes streaming the response body.",
                &OVERHEAD_BUCKETS,
            )?,
            in_flight: registry.gauge("requests_in_flight", "Requests whose response has not ended.")?,
            request_body: registry.histogram(
                "request_body_bytes",
                "Request bodies, as far as they were read.",
                &BYTE_BUCKETS,
            )?,
            response_body: registry.histogram(
                "response_body_bytes",
                "Response bodies, as far as they were sent.",
                &BYTE_BUCKETS,
            )?,
            rejected: registry.counters(
                "rejected_total",
                "Requests to which the gateway itself responded with an error.",
                &["reason"],
            )?,
            upstream_requests: registry.counters(
                "upstream_requests_total",
                "Responses of endpoints, including each 401 after which the request is sent again.",
                &["endpoint", "operation", "code"],
            )?,
            upstream_duration: registry.histograms(
                "upstream_duration_seconds",
                "Time from sending a request to an endpoint to the head of the response.",
                "endpoint",
                &DURATION_BUCKETS,
            )?,
            upstream_exemplars: Arc::new(Exemplars::new("upstream_duration_seconds", "endpoint")),
            upstream_errors: registry.counters(
                "upstream_errors_total",
                "Attempts that failed before or during the response.",
                &["endpoint", "reason"],
            )?,
            message_units: registry.counters(
                "message_units_total",
                "Message units of the calls that deliver something to clients and that the endpoint accepted: steps of 2 KiB of \
                 what was sent, at least one for each call. Azure counts them once for each recipient.",
                &["endpoint"],
            )?,
            upstream_connections: registry.gauges(
                "upstream_connections",
                "Open connections to endpoints.",
                &["endpoint", "state"],
            )?,
            upstream_connects: registry.counters(
                "upstream_connects_total",
                "Connection attempts to endpoints.",
                &["endpoint", "result"],
            )?,
            upstream_closed: registry.counters(
                "upstream_connections_closed_total",
                "Usable connections to endpoints that the gateway has closed.",
                &["endpoint", "reason"],
            )?,
            retries: registry.counters(
                "retries_total",
                "Decisions about sending a failed attempt again.",
                &["endpoint", "outcome"],
            )?,
            token_wait: registry.histogram(
                "token_wait_seconds",
                "Time that requests waited for a token; only those that had to wait are observed.",
                &DURATION_BUCKETS,
            )?,
            unauthorized: registry.counters(
                "upstream_unauthorized_total",
                "401 and 403 responses from endpoints, by what was done with the token.",
                &["endpoint", "code", "action"],
            )?,
            fan_out_legs: registry.counters(
                "fanout_legs_total",
                "Outcomes of calls to several endpoints, one for each endpoint.",
                &["route", "outcome"],
            )?,
            fan_out_partial: registry.counters(
                "fanout_partial_total",
                "Calls to several endpoints that some accepted and others did not.",
                &["route"],
            )?,
            fan_out_repeated: registry.counters(
                "fanout_repeats_total",
                "Calls to several endpoints that were retried with their Idempotency-Key after some endpoints had accepted them.",
                &["route"],
            )?,
            replays: registry.counter(
                "idempotency_replays_total",
                "Calls that were answered with the outcome of an earlier call with the same Idempotency-Key.",
            )?,
            listener_queue: registry.counters(
                "listener_queue_total",
                "Calls that found max_requests of their listener reached, by outcome.",
                &["listener", "outcome"],
            )?,
            endpoint_queue: registry.counters(
                "endpoint_queue_total",
                "Attempts that found max_requests of their endpoint reached, by outcome.",
                &["endpoint", "outcome"],
            )?,
            rate_limited: registry.counters("rate_limited_total", "Calls beyond the rate of their route.", &["route"])?,
            client_rate_limited: registry.counters(
                "client_rate_limited_total",
                "Calls beyond the rate of their caller's network.",
                &["listener"],
            )?,
            address_unclear: registry.counters(
                "caller_address_unclear_total",
                "Calls of trusted proxies whose headers do not show the caller's address.",
                &["listener", "reason"],
            )?,
            proxy_protocol_refused: registry.counters(
                "proxy_protocol_refused_total",
                "Connections to listeners with the PROXY protocol that were closed.",
                &["listener", "reason"],
            )?,
            endpoint_rate_limited: registry.counters(
                "endpoint_rate_limited_total",
                "Attempts beyond the rate of their endpoint, which sent nothing.",
                &["endpoint"],
            )?,
            caller_requests: registry.counters(
                "caller_requests_total",
                "Requests by the configured caller that the certificate identifies; counted if any caller is configured.",
                &["caller", "operation", "code"],
            )?,
            caller_rate_limited: registry.counters(
                "caller_rate_limited_total",
                "Calls beyond the rate of their caller.",
                &["caller"],
            )?,
            retry_budgets: Arc::default(),
            labels: registry.labels(),
        })
    }

    /// Passes the label of a route to `record`.
    pub(super) fn route(&self, name: &str, record: impl FnOnce(&str)) {
        match &*self.labels.load() {
            Some(labels) => record(labels.routes.label_name(name)),
            None => record(name),
        }
    }
}

//! The counts of one worker, in thread-local memory. They are flushed to the shared metrics on request.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use prometheus::local::{LocalHistogram, LocalIntCounter};
use prometheus::{Gauge, HistogramVec, IntCounterVec};

use super::connections::ConnectionGauge;
use super::labels::{
    CODE_COUNT, ConnectionState, ErrorKind, QueueOutcome, RetryOutcome, UnauthorizedAction, UpstreamErrorReason,
    code_index, code_label,
};
use super::local::{GaugeShare, Lazy};
use super::{Metrics, SharedMetrics};

/// The names that label a worker's series. What is recorded refers to them by index.
#[derive(Clone, Debug, Default)]
pub struct LabelNames {
    /// The routes.
    pub routes: Vec<String>,
    /// The endpoints.
    pub endpoints: Vec<String>,
    /// The operations.
    pub operations: Vec<&'static str>,
}

/// What is recorded of a request when its response has ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompletedRequest {
    /// The route's index in [`LabelNames::routes`]; `None` if no route was chosen.
    pub route: Option<usize>,
    /// The operation's index in [`LabelNames::operations`]; `None` if the request had none.
    pub operation: Option<usize>,
    /// The status sent to the caller.
    pub code: u16,
    /// The time from the head of the request to the end of the response.
    pub duration: Duration,
    /// The part of `duration` that was spent waiting for response heads, tokens, permits and retry pauses.
    pub waited: Duration,
    /// Bytes of the request body that were read.
    pub request_bytes: u64,
    /// Bytes of the response body that were sent.
    pub response_bytes: u64,
}

/// What is recorded of a response of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamResponse {
    /// The endpoint's index in [`LabelNames::endpoints`].
    pub endpoint: usize,
    /// The operation's index in [`LabelNames::operations`].
    pub operation: usize,
    /// The endpoint's status.
    pub code: u16,
    /// The time from sending the request to the head of the response.
    pub duration: Duration,
}

/// The counts of one worker under one configuration. Dropping it flushes them.
pub struct WorkerMetrics {
    shared: SharedMetrics,
    names: LabelNames,
    in_flight: GaugeShare,
    overhead: LocalHistogram,
    request_body: LocalHistogram,
    response_body: LocalHistogram,
    token_wait: LocalHistogram,
    /// By route and operation, then by status.
    requests: Lazy<CodeCounters>,
    request_duration: Lazy<LocalHistogram>,
    /// By endpoint and operation, then by status.
    upstream_requests: Lazy<CodeCounters>,
    upstream_duration: Lazy<LocalHistogram>,
}

type CodeCounters = Box<[Option<LocalIntCounter>; CODE_COUNT]>;

impl WorkerMetrics {
    /// Makes a worker's counts for a configuration.
    pub fn new(metrics: &Metrics, names: LabelNames) -> Self {
        let shared = metrics.shared.clone();
        // The last index of each dimension stands for "no route" or "no operation".
        let operations = names.operations.len() + 1;
        Self {
            in_flight: GaugeShare::default(),
            overhead: shared.overhead.local(),
            request_body: shared.request_body.local(),
            response_body: shared.response_body.local(),
            token_wait: shared.token_wait.local(),
            requests: Lazy::new((names.routes.len() + 1) * operations),
            request_duration: Lazy::new(operations),
            upstream_requests: Lazy::new(names.endpoints.len() * operations),
            upstream_duration: Lazy::new(names.endpoints.len()),
            names,
            shared,
        }
    }

    /// Counts a request in flight until the guard is dropped.
    pub fn request_started(self: &Rc<Self>) -> InFlight {
        self.in_flight.add(1);
        InFlight(Rc::clone(self))
    }

    /// Records a request whose response has ended.
    pub fn request_ended(&self, request: &CompletedRequest) {
        let operation = request.operation.unwrap_or(self.names.operations.len());
        let route = request.route.unwrap_or(self.names.routes.len());
        let index = route * (self.names.operations.len() + 1) + operation;
        let route = self.names.routes.get(route).map_or("_none", String::as_str);
        count(&self.requests, index, &self.shared.requests, [route, self.operation(operation)], request.code);
        let duration = request.duration.as_secs_f64();
        self.observe(&self.request_duration, operation, &self.shared.request_duration, duration, |metrics| {
            metrics.operation(operation)
        });
        self.overhead.observe(request.duration.saturating_sub(request.waited).as_secs_f64());
        self.request_body.observe(bytes(request.request_bytes));
        self.response_body.observe(bytes(request.response_bytes));
    }

    /// Counts a request to which the gateway itself responded with an error.
    pub fn rejected(&self, kind: ErrorKind) {
        self.shared.rejected.with_label_values(&[kind.label()]).inc();
    }

    /// Records a response of an endpoint.
    pub fn upstream_responded(&self, attempt: UpstreamResponse) {
        let index = attempt.endpoint * (self.names.operations.len() + 1) + attempt.operation;
        let labels = [self.endpoint(attempt.endpoint), self.operation(attempt.operation)];
        count(&self.upstream_requests, index, &self.shared.upstream_requests, labels, attempt.code);
        let duration = attempt.duration.as_secs_f64();
        self.observe(&self.upstream_duration, attempt.endpoint, &self.shared.upstream_duration, duration, |metrics| {
            metrics.endpoint(attempt.endpoint)
        });
    }

    /// Counts an attempt that failed before or during the response.
    pub fn upstream_failed(&self, endpoint: usize, reason: UpstreamErrorReason) {
        self.shared.upstream_errors.with_label_values(&[self.endpoint(endpoint), reason.label()]).inc();
    }

    /// Counts an attempt to connect.
    pub fn upstream_connected(&self, endpoint: usize, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        self.shared.upstream_connects.with_label_values(&[self.endpoint(endpoint), result]).inc();
    }

    /// Returns this worker's share in the gauge of an endpoint's retry budget.
    pub fn retry_budget(&self, endpoint: usize) -> RetryBudgetShare {
        RetryBudgetShare {
            sum: self.shared.retry_budget_sum.with_label_values(&[self.endpoint(endpoint)]),
            added: Cell::new(0.0),
        }
    }

    /// Counts a decision about sending a failed attempt again.
    pub fn retry(&self, endpoint: usize, outcome: RetryOutcome) {
        self.shared.retries.with_label_values(&[self.endpoint(endpoint), outcome.label()]).inc();
    }

    /// Counts a 401 or 403 of an endpoint and what was done with the token.
    pub fn unauthorized(&self, endpoint: usize, code: u16, action: UnauthorizedAction) {
        let labels = [self.endpoint(endpoint), code_label(code), action.label()];
        self.shared.unauthorized.with_label_values(&labels).inc();
    }

    /// Counts the outcome of one endpoint's part of a call to several. `outcome` is one of a fixed set of labels.
    pub fn fan_out_leg(&self, route: &str, outcome: &'static str) {
        self.shared.fan_out_legs.with_label_values(&[route, outcome]).inc();
    }

    /// Counts a call to several endpoints that some accepted and others did not.
    pub fn fan_out_partial(&self, route: &str) {
        self.shared.fan_out_partial.with_label_values(&[route]).inc();
    }

    /// Counts a retry of a call to several endpoints that some had accepted before.
    pub fn fan_out_repeated(&self, route: &str) {
        self.shared.fan_out_repeated.with_label_values(&[route]).inc();
    }

    /// Counts a call that found `max_requests` of its listener reached.
    pub fn queued_at_listener(&self, listener: &str, outcome: QueueOutcome) {
        self.shared.listener_queue.with_label_values(&[listener, outcome.label()]).inc();
    }

    /// Counts an attempt that found `max_requests` of its endpoint reached.
    pub fn queued_at_endpoint(&self, endpoint: usize, outcome: QueueOutcome) {
        self.shared.endpoint_queue.with_label_values(&[self.endpoint(endpoint), outcome.label()]).inc();
    }

    /// Counts a call beyond the rate of its route.
    pub fn rate_limited(&self, route: &str) {
        self.shared.rate_limited.with_label_values(&[route]).inc();
    }

    /// Counts a call beyond the rate of its caller's network.
    pub fn client_rate_limited(&self, listener: &str) {
        self.shared.client_rate_limited.with_label_values(&[listener]).inc();
    }

    /// Records how long a request waited for a token.
    pub fn token_waited(&self, waited: Duration) {
        self.token_wait.observe(waited.as_secs_f64());
    }

    /// Returns this worker's share in the gauge of an endpoint's connections.
    pub fn connections(&self, endpoint: usize) -> ConnectionGauge {
        let gauge = |state: ConnectionState| {
            self.shared.upstream_connections.with_label_values(&[self.endpoint(endpoint), state.label()])
        };
        ConnectionGauge::new(gauge(ConnectionState::Active), gauge(ConnectionState::Idle))
    }

    /// Flushes the counts to the shared metrics.
    pub fn flush(&self) {
        self.in_flight.flush(&self.shared.in_flight);
        for histogram in [&self.overhead, &self.request_body, &self.response_body, &self.token_wait] {
            histogram.flush();
        }
        let flush_codes = |counters: &CodeCounters| counters.iter().flatten().for_each(LocalIntCounter::flush);
        self.requests.for_each(flush_codes);
        self.upstream_requests.for_each(flush_codes);
        self.request_duration.for_each(LocalHistogram::flush);
        self.upstream_duration.for_each(LocalHistogram::flush);
    }

    fn observe<'a>(
        &'a self,
        histograms: &Lazy<LocalHistogram>,
        index: usize,
        shared: &HistogramVec,
        value: f64,
        label: impl FnOnce(&'a Self) -> &'a str,
    ) {
        let resolve = || shared.with_label_values(&[label(self)]).local();
        histograms.with(index, resolve, |histogram| histogram.observe(value));
    }

    fn operation(&self, index: usize) -> &'static str {
        self.names.operations.get(index).copied().unwrap_or("_other")
    }

    fn endpoint(&self, index: usize) -> &str {
        self.names.endpoints.get(index).map_or("_other", String::as_str)
    }
}

fn count(counters: &Lazy<CodeCounters>, index: usize, shared: &IntCounterVec, labels: [&str; 2], code: u16) {
    counters.with(
        index,
        || Box::new([const { None }; CODE_COUNT]),
        |codes| {
            let Some(slot) = codes.get_mut(code_index(code)) else { return };
            let [first, second] = labels;
            slot.get_or_insert_with(|| shared.with_label_values(&[first, second, code_label(code)]).local()).inc();
        },
    );
}

#[expect(clippy::cast_precision_loss, reason = "bodies are far below 2^52 bytes")]
fn bytes(count: u64) -> f64 {
    count as f64
}

impl Drop for WorkerMetrics {
    fn drop(&mut self) {
        // Each request in flight holds a reference to this, so none is counted by now.
        self.flush();
    }
}

impl fmt::Debug for WorkerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerMetrics").field("names", &self.names).finish_non_exhaustive()
    }
}

/// A worker's share in the gauge of an endpoint's retry budget. Dropping it removes the share.
#[derive(Debug)]
pub struct RetryBudgetShare {
    sum: Gauge,
    added: Cell<f64>,
}

impl RetryBudgetShare {
    /// Sets what is left of the worker's own budget, from 0 to 1.
    pub fn set(&self, left: f64) {
        self.sum.add(left - self.added.replace(left));
    }
}

impl Drop for RetryBudgetShare {
    fn drop(&mut self) {
        self.set(0.0);
    }
}

/// Counts a request as in flight until it is dropped, also when the request is cancelled or panics.
#[derive(Debug)]
pub struct InFlight(Rc<WorkerMetrics>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.add(-1);
    }
}

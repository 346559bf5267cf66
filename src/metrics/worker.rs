//! One worker's counts. Not shared: plain cells that are handed over to the shared metrics on demand.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use prometheus::local::{LocalHistogram, LocalIntCounter};
use prometheus::{Gauge, HistogramVec, IntCounterVec, IntGauge};

use super::labels::{
    CODE_COUNT, ConnectionState, ErrorKind, QueueOutcome, RetryOutcome, UnauthorizedAction, UpstreamErrorReason,
};
use super::labels::{code_index, code_label};
use super::{Metrics, SharedMetrics};

/// The configured names that label a worker's series. Records name them by place.
#[derive(Clone, Debug, Default)]
pub struct Names {
    /// The routes.
    pub routes: Vec<String>,
    /// The endpoints.
    pub endpoints: Vec<String>,
    /// The operations.
    pub operations: Vec<&'static str>,
}

/// What is recorded of a request when its answer has ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct RequestRecord {
    /// The route's place in [`Names::routes`]; `None` if no route was chosen.
    pub route: Option<usize>,
    /// The operation's place in [`Names::operations`]; `None` if the request was none.
    pub operation: Option<usize>,
    /// The status sent to the caller.
    pub code: u16,
    /// From the head of the request to the end of the answer.
    pub duration: Duration,
    /// The part of it that was spent waiting for endpoints and tokens.
    pub waited: Duration,
    /// Bytes of the request body that were read.
    pub request_bytes: u64,
    /// Bytes of the response body that were sent.
    pub response_bytes: u64,
}

/// What is recorded of an attempt that an endpoint answered.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamRecord {
    /// The endpoint's place in [`Names::endpoints`].
    pub endpoint: usize,
    /// The operation's place in [`Names::operations`].
    pub operation: usize,
    /// The endpoint's status.
    pub code: u16,
    /// From sending to the head of the answer.
    pub duration: Duration,
}

/// One worker's counts under one configuration. Dropping it hands over what is left.
pub struct WorkerMetrics {
    shared: SharedMetrics,
    names: Names,
    in_flight: Delta,
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

/// Handles that are resolved when first needed, since most combinations never occur.
struct Lazy<T>(RefCell<Vec<Option<T>>>);

impl<T> Lazy<T> {
    fn new(places: usize) -> Self {
        Self(RefCell::new((0..places).map(|_| None).collect()))
    }

    fn with(&self, place: usize, resolve: impl FnOnce() -> T, use_it: impl FnOnce(&mut T)) {
        if let Some(slot) = self.0.borrow_mut().get_mut(place) {
            use_it(slot.get_or_insert_with(resolve));
        }
    }

    fn for_each(&self, mut act: impl FnMut(&T)) {
        self.0.borrow().iter().flatten().for_each(&mut act);
    }
}

/// A worker's share of a gauge, and how much of it the shared gauge knows.
#[derive(Default)]
struct Delta {
    value: Cell<i64>,
    handed_over: Cell<i64>,
}

impl Delta {
    fn flush(&self, gauge: &IntGauge) {
        gauge.add(self.value.get() - self.handed_over.replace(self.value.get()));
    }
}

impl WorkerMetrics {
    /// Makes a worker's counts for a configuration.
    pub fn new(metrics: &Metrics, names: Names) -> Self {
        let shared = metrics.shared.clone();
        // The last place of each is for "no route" and "no operation".
        let operations = names.operations.len() + 1;
        Self {
            in_flight: Delta::default(),
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
        self.in_flight.value.set(self.in_flight.value.get() + 1);
        InFlight(Rc::clone(self))
    }

    /// Records a request whose answer has ended.
    pub fn request_ended(&self, record: &RequestRecord) {
        let operation = record.operation.unwrap_or(self.names.operations.len());
        let route = record.route.unwrap_or(self.names.routes.len());
        let place = route * (self.names.operations.len() + 1) + operation;
        let route = self.names.routes.get(route).map_or("_none", String::as_str);
        count(&self.requests, place, &self.shared.requests, [route, self.operation(operation)], record.code);
        let duration = record.duration.as_secs_f64();
        self.observe(&self.request_duration, operation, &self.shared.request_duration, duration, |metrics| {
            metrics.operation(operation)
        });
        self.overhead.observe(record.duration.saturating_sub(record.waited).as_secs_f64());
        self.request_body.observe(bytes(record.request_bytes));
        self.response_body.observe(bytes(record.response_bytes));
    }

    /// Records a request that the gateway answered itself with an error.
    pub fn rejected(&self, kind: ErrorKind) {
        self.shared.rejected.with_label_values(&[kind.label()]).inc();
    }

    /// Records an attempt that an endpoint answered.
    pub fn upstream_answered(&self, record: UpstreamRecord) {
        let place = record.endpoint * (self.names.operations.len() + 1) + record.operation;
        let labels = [self.endpoint(record.endpoint), self.operation(record.operation)];
        count(&self.upstream_requests, place, &self.shared.upstream_requests, labels, record.code);
        let duration = record.duration.as_secs_f64();
        self.observe(&self.upstream_duration, record.endpoint, &self.shared.upstream_duration, duration, |metrics| {
            metrics.endpoint(record.endpoint)
        });
    }

    /// Records an attempt that ended without an answer.
    pub fn upstream_failed(&self, endpoint: usize, reason: UpstreamErrorReason) {
        self.shared.upstream_errors.with_label_values(&[self.endpoint(endpoint), reason.label()]).inc();
    }

    /// Records a connection that was tried.
    pub fn upstream_connected(&self, endpoint: usize, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        self.shared.upstream_connects.with_label_values(&[self.endpoint(endpoint), result]).inc();
    }

    /// Returns the share of an endpoint's retry budget that one worker has.
    pub fn retry_budget(&self, endpoint: usize) -> RetryBudgetShare {
        RetryBudgetShare {
            all: self.shared.retry_saved.with_label_values(&[self.endpoint(endpoint)]),
            told: Cell::new(0.0),
        }
    }

    /// Records a decision about sending a failed attempt again.
    pub fn retry(&self, endpoint: usize, outcome: RetryOutcome) {
        self.shared.retries.with_label_values(&[self.endpoint(endpoint), outcome.label()]).inc();
    }

    /// Records what a 401 or 403 of an endpoint did to the token.
    pub fn unauthorized(&self, endpoint: usize, code: u16, action: UnauthorizedAction) {
        let labels = [self.endpoint(endpoint), code_label(code), action.label()];
        self.shared.unauthorized.with_label_values(&labels).inc();
    }

    /// Records what a call to several endpoints came to at one of them. `outcome` is one of a few words.
    pub fn fan_out_leg(&self, route: &str, outcome: &'static str) {
        self.shared.fan_out_legs.with_label_values(&[route, outcome]).inc();
    }

    /// Records a call to several endpoints that some accepted and others did not.
    pub fn fan_out_partial(&self, route: &str) {
        self.shared.fan_out_partial.with_label_values(&[route]).inc();
    }

    /// Records a repeat of a call to several endpoints that some had accepted already.
    pub fn fan_out_repeated(&self, route: &str) {
        self.shared.fan_out_repeated.with_label_values(&[route]).inc();
    }

    /// Records what became of a call that found no place at its listener at once.
    pub fn queued_at_listener(&self, listener: &str, outcome: QueueOutcome) {
        self.shared.listener_queue.with_label_values(&[listener, outcome.label()]).inc();
    }

    /// Records what became of an attempt that found no place at its endpoint at once.
    pub fn queued_at_endpoint(&self, endpoint: usize, outcome: QueueOutcome) {
        self.shared.endpoint_queue.with_label_values(&[self.endpoint(endpoint), outcome.label()]).inc();
    }

    /// Records a call beyond the rate of its route.
    pub fn rate_limited(&self, route: &str) {
        self.shared.rate_limited.with_label_values(&[route]).inc();
    }

    /// Records a call beyond the rate of its caller's network.
    pub fn client_rate_limited(&self, listener: &str) {
        self.shared.client_rate_limited.with_label_values(&[listener]).inc();
    }

    /// Records how long a request waited for a token.
    pub fn token_waited(&self, waited: Duration) {
        self.token_wait.observe(waited.as_secs_f64());
    }

    /// Returns the gauge of one endpoint's connections. It counts when they open, move and close.
    pub fn connections(&self, endpoint: usize) -> ConnectionGauge {
        let gauge = |state: ConnectionState| {
            self.shared.upstream_connections.with_label_values(&[self.endpoint(endpoint), state.label()])
        };
        let inner = Connections {
            active: Delta::default(),
            idle: Delta::default(),
            shared_active: gauge(ConnectionState::Active),
            shared_idle: gauge(ConnectionState::Idle),
        };
        ConnectionGauge(Rc::new(inner))
    }

    /// Hands the counts over to the shared metrics.
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
        place: usize,
        shared: &HistogramVec,
        value: f64,
        label: impl FnOnce(&'a Self) -> &'a str,
    ) {
        let resolve = || shared.with_label_values(&[label(self)]).local();
        histograms.with(place, resolve, |histogram| histogram.observe(value));
    }

    fn operation(&self, place: usize) -> &'static str {
        self.names.operations.get(place).copied().unwrap_or("_other")
    }

    fn endpoint(&self, place: usize) -> &str {
        self.names.endpoints.get(place).map_or("_other", String::as_str)
    }
}

fn count(counters: &Lazy<CodeCounters>, place: usize, shared: &IntCounterVec, labels: [&str; 2], code: u16) {
    counters.with(
        place,
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
        // Requests in flight hold a reference, so none is counted here.
        self.flush();
    }
}

impl fmt::Debug for WorkerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerMetrics").field("names", &self.names).finish_non_exhaustive()
    }
}

/// A worker's part in the gauge of an endpoint's retry budget, taken back when it is dropped.
#[derive(Debug)]
pub struct RetryBudgetShare {
    all: Gauge,
    told: Cell<f64>,
}

impl RetryBudgetShare {
    /// Says what is left of the worker's own budget, from 0 to 1.
    pub fn set(&self, left: f64) {
        self.all.add(left - self.told.replace(left));
    }
}

impl Drop for RetryBudgetShare {
    fn drop(&mut self) {
        self.set(0.0);
    }
}

/// Counts a request as in flight until it is dropped, however that comes about.
#[derive(Debug)]
pub struct InFlight(Rc<WorkerMetrics>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.value.set(self.0.in_flight.value.get() - 1);
    }
}

/// One worker's connections to one endpoint. Cloning shares it.
#[derive(Clone)]
pub struct ConnectionGauge(Rc<Connections>);

struct Connections {
    active: Delta,
    idle: Delta,
    shared_active: IntGauge,
    shared_idle: IntGauge,
}

impl ConnectionGauge {
    /// Counts a connection in `state` until the guard is dropped.
    pub fn count(&self, state: ConnectionState) -> ConnectionCount {
        self.add(state, 1);
        ConnectionCount { gauge: self.clone(), state }
    }

    /// Hands the counts over to the shared gauges.
    pub fn flush(&self) {
        self.0.active.flush(&self.0.shared_active);
        self.0.idle.flush(&self.0.shared_idle);
    }

    fn add(&self, state: ConnectionState, change: i64) {
        let delta = match state {
            ConnectionState::Active => &self.0.active,
            ConnectionState::Idle => &self.0.idle,
        };
        delta.value.set(delta.value.get() + change);
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.active.flush(&self.shared_active);
        self.idle.flush(&self.shared_idle);
    }
}

impl fmt::Debug for ConnectionGauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionGauge(active {}, idle {})", self.0.active.value.get(), self.0.idle.value.get())
    }
}

/// A connection, counted in its state until it is dropped.
#[derive(Debug)]
pub struct ConnectionCount {
    gauge: ConnectionGauge,
    state: ConnectionState,
}

impl ConnectionCount {
    /// Counts the connection in another state.
    pub fn set(&mut self, state: ConnectionState) {
        self.gauge.add(self.state, -1);
        self.gauge.add(state, 1);
        self.state = state;
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.gauge.add(self.state, -1);
    }
}

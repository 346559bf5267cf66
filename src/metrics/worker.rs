//! The counts of one worker, in thread-local memory. They are flushed to the shared metrics on request.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use prometheus::local::{LocalHistogram, LocalIntCounter};

use super::connections::ConnectionGauge;
use super::exemplars::{TraceId, TracedHistogram};
use super::label_table::Label;
use super::labels::{
    AddressProblem, ConnectionState, ErrorKind, FanOutOutcome, ProxyProtocolError, QueueOutcome, RetryOutcome,
    UnauthorizedAction, UpstreamCloseReason, UpstreamErrorReason, code_label,
};
use super::local::{ByLabel, CodeCounters, GaugeShare};
use super::{Metrics, SharedMetrics};

/// The step in which Azure counts the size of a message, in bytes.
///
/// Source: "Messages and connections in Azure SignalR Service", message count.
const MESSAGE_UNIT: u64 = 2048;

/// What is recorded of a request when its response has ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct CompletedRequest<'a> {
    /// The label of the route; `None` if no route was chosen.
    pub route: Option<&'a Label>,
    /// The caller; `None` if no caller is configured, so that there is nothing to count by caller.
    pub caller: Option<CountedCaller<'a>>,
    /// The index of the operation among the worker's; `None` if the request had none.
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
    /// The trace of the request, if it is recorded.
    pub trace: Option<TraceId>,
}

/// The caller of a request, if callers are configured.
#[derive(Clone, Copy, Debug)]
pub enum CountedCaller<'a> {
    /// A configured one, by its label.
    Configured(&'a Label),
    /// One with a certificate whose identity no configured caller has.
    Other,
    /// One without a certificate.
    Anonymous,
}

/// What is recorded of a response of an endpoint.
#[derive(Clone, Copy, Debug)]
pub struct UpstreamResponse<'a> {
    /// The label of the endpoint.
    pub endpoint: &'a Label,
    /// The index of the operation among the worker's.
    pub operation: usize,
    /// The endpoint's status.
    pub code: u16,
    /// The time from sending the request to the head of the response.
    pub duration: Duration,
    /// The bytes that were sent, if the call delivers something to clients and the endpoint accepted it.
    pub delivered: Option<u64>,
    /// The trace of the call, if it is recorded.
    pub trace: Option<TraceId>,
}

/// The counts of one worker, under all configurations. Dropping it flushes them.
///
/// What has a label is kept by label and made when the label is first used: a worker needs memory for the labels that it
/// uses, not for the endpoints and routes that are configured.
pub struct WorkerMetrics {
    shared: SharedMetrics,
    operations: Vec<&'static str>,
    in_flight: GaugeShare,
    overhead: LocalHistogram,
    request_body: LocalHistogram,
    response_body: LocalHistogram,
    token_wait: LocalHistogram,
    /// By operation. The last one stands for no operation.
    request_duration: RefCell<Vec<Option<TracedHistogram>>>,
    /// Requests without a route.
    unrouted: RefCell<CodeCounters>,
    routes: ByLabel<CodeCounters>,
    callers: ByLabel<CodeCounters>,
    /// Requests of callers that are not configured.
    other_callers: RefCell<CodeCounters>,
    /// Requests of callers without a certificate.
    anonymous: RefCell<CodeCounters>,
    endpoints: ByLabel<EndpointCounts>,
}

/// What a worker counts for one endpoint label.
struct EndpointCounts {
    responses: CodeCounters,
    duration: Option<TracedHistogram>,
    message_units: LocalIntCounter,
    connections: ConnectionGauge,
    /// The least of the retry budgets since the last flush.
    retry_budget: f64,
}

impl WorkerMetrics {
    /// Makes a worker's counts. What is recorded refers to `operations` by index.
    pub fn new(metrics: &Metrics, operations: impl IntoIterator<Item = &'static str>) -> Self {
        let shared = metrics.shared.clone();
        let operations: Vec<_> = operations.into_iter().collect();
        Self {
            in_flight: GaugeShare::default(),
            overhead: shared.overhead.local(),
            request_body: shared.request_body.local(),
            response_body: shared.response_body.local(),
            token_wait: shared.token_wait.local(),
            request_duration: RefCell::new((0..=operations.len()).map(|_| None).collect()),
            unrouted: RefCell::default(),
            routes: ByLabel::default(),
            callers: ByLabel::default(),
            other_callers: RefCell::default(),
            anonymous: RefCell::default(),
            endpoints: ByLabel::default(),
            operations,
            shared,
        }
    }

    /// Counts a request in flight until the guard is dropped.
    pub fn request_started(self: &Rc<Self>) -> InFlight {
        self.in_flight.add(1);
        InFlight(Rc::clone(self))
    }

    /// Records a request whose response has ended.
    pub fn request_ended(&self, request: &CompletedRequest<'_>) {
        let operation = request.operation.unwrap_or(self.operations.len());
        let name = self.operation(operation);
        let count = |counters: &mut CodeCounters, route: &str| {
            counters.count(operation, request.code, &self.shared.requests, [route, name]);
        };
        match request.route {
            Some(route) => {
                self.routes.with(route, |_| CodeCounters::default(), |counters| count(counters, route.name()));
            }
            None => count(&mut self.unrouted.borrow_mut(), "_none"),
        }
        if let Some(caller) = request.caller {
            let count = |counters: &mut CodeCounters, caller: &str| {
                counters.count(operation, request.code, &self.shared.caller_requests, [caller, name]);
            };
            match caller {
                CountedCaller::Configured(label) => {
                    self.callers.with(label, |_| CodeCounters::default(), |counters| count(counters, label.name()));
                }
                CountedCaller::Other => count(&mut self.other_callers.borrow_mut(), "_other"),
                CountedCaller::Anonymous => count(&mut self.anonymous.borrow_mut(), "_none"),
            }
        }
        let duration = request.duration.as_secs_f64();
        if let Some(histogram) = self.request_duration.borrow_mut().get_mut(operation) {
            let shared = &self.shared.request_duration;
            let make = || TracedHistogram::new(shared.with_label_values(&[name]).local());
            histogram.get_or_insert_with(make).observe(duration, request.trace);
        }
        self.overhead.observe(request.duration.saturating_sub(request.waited).as_secs_f64());
        self.request_body.observe(bytes(request.request_bytes));
        self.response_body.observe(bytes(request.response_bytes));
    }

    /// Counts a request to which the gateway itself responded with an error.
    pub fn rejected(&self, kind: ErrorKind) {
        self.shared.rejected.with_label_values(&[kind.label()]).inc();
    }

    /// Records a response of an endpoint.
    pub fn upstream_responded(&self, response: &UpstreamResponse<'_>) {
        let UpstreamResponse { endpoint, operation, code, duration, delivered, trace } = *response;
        let names = [endpoint.name(), self.operation(operation)];
        self.with_endpoint(endpoint, |counts| {
            counts.responses.count(operation, code, &self.shared.upstream_requests, names);
            let shared = &self.shared.upstream_duration;
            let make = || TracedHistogram::new(shared.with_label_values(&[endpoint.name()]).local());
            counts.duration.get_or_insert_with(make).observe(duration.as_secs_f64(), trace);
            if let Some(bytes) = delivered {
                counts.message_units.inc_by(bytes.div_ceil(MESSAGE_UNIT).max(1));
            }
        });
    }

    /// Counts an attempt that failed before or during the response.
    pub fn upstream_failed(&self, endpoint: &Label, reason: UpstreamErrorReason) {
        self.shared.upstream_errors.with_label_values(&[endpoint.name(), reason.label()]).inc();
    }

    /// Counts an attempt to connect.
    pub fn upstream_connected(&self, endpoint: &Label, ok: bool) {
        let result = if ok { "ok" } else { "error" };
        self.shared.upstream_connects.with_label_values(&[endpoint.name(), result]).inc();
    }

    /// Counts a usable connection that the gateway closed.
    pub fn upstream_closed(&self, endpoint: &Label, reason: UpstreamCloseReason) {
        self.shared.upstream_closed.with_label_values(&[endpoint.name(), reason.label()]).inc();
    }

    /// Records what is left of this worker's retry budget for an endpoint, from 0 to 1. Before each flush, for every budget.
    pub fn retry_budget(&self, endpoint: &Label, left: f64) {
        self.with_endpoint(endpoint, |counts| counts.retry_budget = counts.retry_budget.min(left));
    }

    /// Counts a decision about sending a failed attempt again.
    pub fn retry(&self, endpoint: &Label, outcome: RetryOutcome) {
        self.shared.retries.with_label_values(&[endpoint.name(), outcome.label()]).inc();
    }

    /// Counts a 401 or 403 of an endpoint and what was done with the token.
    pub fn unauthorized(&self, endpoint: &Label, code: u16, action: UnauthorizedAction) {
        let labels = [endpoint.name(), code_label(code), action.label()];
        self.shared.unauthorized.with_label_values(&labels).inc();
    }

    /// Counts the outcome of one endpoint's part of a call to several.
    pub fn fan_out_leg(&self, route: &str, outcome: FanOutOutcome) {
        self.shared.route(route, |route| self.shared.fan_out_legs.with_label_values(&[route, outcome.label()]).inc());
    }

    /// Counts a call to several endpoints that some accepted and others did not.
    pub fn fan_out_partial(&self, route: &str) {
        self.shared.route(route, |route| self.shared.fan_out_partial.with_label_values(&[route]).inc());
    }

    /// Counts a retry of a call to several endpoints that some had accepted before.
    pub fn fan_out_repeated(&self, route: &str) {
        self.shared.route(route, |route| self.shared.fan_out_repeated.with_label_values(&[route]).inc());
    }

    /// Counts a call that was answered with the outcome of an earlier one.
    pub fn replayed(&self) {
        self.shared.replays.inc();
    }

    /// Counts a call that found `max_requests` of its listener reached.
    pub fn queued_at_listener(&self, listener: &str, outcome: QueueOutcome) {
        self.shared.listener_queue.with_label_values(&[listener, outcome.label()]).inc();
    }

    /// Counts an attempt that found `max_requests` of its endpoint reached.
    pub fn queued_at_endpoint(&self, endpoint: &Label, outcome: QueueOutcome) {
        self.shared.endpoint_queue.with_label_values(&[endpoint.name(), outcome.label()]).inc();
    }

    /// Counts a call beyond the rate of its route.
    pub fn rate_limited(&self, route: &str) {
        self.shared.route(route, |route| self.shared.rate_limited.with_label_values(&[route]).inc());
    }

    /// Counts an attempt beyond the rate of its endpoint.
    pub fn rate_limited_at_endpoint(&self, endpoint: &Label) {
        self.shared.endpoint_rate_limited.with_label_values(&[endpoint.name()]).inc();
    }

    /// Counts a call beyond the rate of its caller's network.
    pub fn client_rate_limited(&self, listener: &str) {
        self.shared.client_rate_limited.with_label_values(&[listener]).inc();
    }

    /// Counts a call beyond the rate of its caller.
    pub fn caller_rate_limited(&self, caller: &Label) {
        self.shared.caller_rate_limited.with_label_values(&[caller.name()]).inc();
    }

    /// Counts a call of a trusted proxy whose headers do not show the caller's address.
    pub fn address_unclear(&self, listener: &str, problem: AddressProblem) {
        self.shared.address_unclear.with_label_values(&[listener, problem.label()]).inc();
    }

    /// Counts a connection to a listener with the PROXY protocol that was closed.
    pub fn proxy_protocol_refused(&self, listener: &str, error: ProxyProtocolError) {
        self.shared.proxy_protocol_refused.with_label_values(&[listener, error.label()]).inc();
    }

    /// Records how long a request waited for a token.
    pub fn token_waited(&self, waited: Duration) {
        self.token_wait.observe(waited.as_secs_f64());
    }

    /// Returns this worker's share in the gauge of the connections to endpoints with a label.
    pub fn connections(&self, endpoint: &Label) -> ConnectionGauge {
        self.with_endpoint(endpoint, |counts| counts.connections.clone())
    }

    /// Flushes the counts to the shared metrics.
    pub fn flush(&self) {
        self.in_flight.flush(&self.shared.in_flight);
        for histogram in [&self.overhead, &self.request_body, &self.response_body, &self.token_wait] {
            histogram.flush();
        }
        for (operation, histogram) in self.request_duration.borrow_mut().iter_mut().enumerate() {
            if let Some(histogram) = histogram {
                histogram.flush(&self.shared.request_exemplars, self.operation(operation));
            }
        }
        self.unrouted.borrow().flush();
        self.routes.for_each(|_, counters| counters.flush());
        self.callers.for_each(|_, counters| counters.flush());
        self.other_callers.borrow().flush();
        self.anonymous.borrow().flush();
        let mut budgets = self.shared.retry_budgets.lock();
        self.endpoints.for_each(|label, counts| {
            counts.responses.flush();
            counts.message_units.flush();
            if let Some(duration) = &mut counts.duration {
                duration.flush(&self.shared.upstream_exemplars, label.name());
            }
            counts.connections.flush();
            budgets.add(label, std::mem::replace(&mut counts.retry_budget, 1.0));
        });
    }

    fn with_endpoint<R>(&self, label: &Label, use_it: impl FnOnce(&mut EndpointCounts) -> R) -> R {
        let make = |label: &Label| {
            let gauge = |state: ConnectionState| {
                self.shared.upstream_connections.with_label_values(&[label.name(), state.label()])
            };
            EndpointCounts {
                responses: CodeCounters::default(),
                duration: None,
                message_units: self.shared.message_units.with_label_values(&[label.name()]).local(),
                connections: ConnectionGauge::new(gauge(ConnectionState::Active), gauge(ConnectionState::Idle)),
                retry_budget: 1.0,
            }
        };
        self.endpoints.with(label, make, use_it)
    }

    fn operation(&self, index: usize) -> &'static str {
        self.operations.get(index).copied().unwrap_or("_other")
    }
}

#[expect(clippy::cast_precision_loss, reason = "bodies are far below 2^52 bytes")]
fn bytes(count: u64) -> f64 {
    count as f64
}

impl Drop for WorkerMetrics {
    fn drop(&mut self) {
        // Each request in flight holds a reference to this, so none is counted when this is dropped.
        self.flush();
    }
}

impl fmt::Debug for WorkerMetrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerMetrics").finish_non_exhaustive()
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

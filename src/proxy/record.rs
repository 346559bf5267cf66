//! The record of one request: its metrics and its log line, both written when the response's body ends or is dropped.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::access_log::AccessLine;
use super::error::ProxyError;
use super::failure::Failure;
use super::settings::AccessLog;
use super::snapshot::Snapshot;
use crate::delivery::{CallHead, CallState, Side, step};
use crate::limits::{ConcurrencyPermit, RequestDeadline};
use crate::metrics::{CompletedRequest, CountedCaller, InFlight, UpstreamErrorReason, WorkerMetrics};
use crate::serve::{CallerAddress, HeadError, Peer};
use crate::signalr::{Call, Operation};
use crate::tail::Tail;
use crate::trace::{EndedCall, SpanStatus, TraceParent, Value};

/// The status recorded for a request whose caller disconnected before the response. From nginx.
const CLIENT_CLOSED_REQUEST: u16 = 499;
/// Its cause.
const DISCONNECTED: &str = "the caller disconnected before the response";

/// What the records of one worker under one configuration share.
#[derive(Debug)]
pub(super) struct RecordContext {
    pub(super) metrics: Rc<WorkerMetrics>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) tail: Arc<Tail>,
}

impl RecordContext {
    /// Returns whether requests may get a log line or a summary.
    fn is_reported(&self) -> bool {
        self.snapshot.settings.access_log != AccessLog::Off || self.tail.is_read()
    }
}

/// The record of one request. It holds the head too, so that a request needs one allocation for both.
pub(super) struct RequestRecord {
    context: Rc<RecordContext>,
    _in_flight: InFlight,
    started: Instant,
    /// The connection's caller.
    peer: Rc<Peer>,
    /// The index of the configured caller.
    caller: Cell<Option<usize>>,
    /// Why the server rejected the caller's head; the head in `call` is a placeholder then.
    head_error: Option<HeadError>,
    call: CallState,
    address: CallerAddress,
    hub: Cell<Option<Box<str>>>,
    operation: Cell<Option<Operation>>,
    /// The index of the route.
    route: Cell<Option<usize>>,
    /// The index of the endpoint that responded.
    endpoint: Cell<Option<usize>>,
    /// `None` until there is a response.
    status: Option<StatusCode>,
    failure: Option<Box<Failure>>,
    /// The caller's `traceparent` for the log line, once the other headers are gone.
    trace_parent: Option<HeaderValue>,
    is_incomplete: bool,
    request_bytes: u64,
    response_bytes: u64,
    is_closed: bool,
    /// Whether the request is handled in a task of its own.
    is_detached: bool,
    /// The permit of the listener's concurrency limit, if it has one.
    permit: Cell<Option<ConcurrencyPermit>>,
}

impl RequestRecord {
    /// Opens the record of a request.
    pub(super) fn open(
        context: &Rc<RecordContext>,
        peer: &Rc<Peer>,
        address: CallerAddress,
        head: CallHead,
        head_error: Option<HeadError>,
    ) -> Box<Self> {
        let started = Instant::now();
        let timeout = context.snapshot.settings.request_timeout;
        let trace = context.snapshot.tracer.as_ref();
        let trace = trace.and_then(|tracer| tracer.begin(head.trace_parent(), || head.trace_state()));
        let is_reported = context.is_reported();
        // Written where it stays: `Box::new` would copy the whole record.
        Box::write(
            Box::new_uninit(),
            Self {
                _in_flight: context.metrics.request_started(),
                context: Rc::clone(context),
                started,
                peer: Rc::clone(peer),
                caller: Cell::default(),
                head_error,
                call: CallState::new(head, RequestDeadline::new(started, timeout), trace, is_reported),
                address,
                hub: Cell::default(),
                operation: Cell::default(),
                route: Cell::default(),
                endpoint: Cell::default(),
                status: None,
                failure: None,
                trace_parent: None,
                is_incomplete: false,
                request_bytes: 0,
                response_bytes: 0,
                is_closed: false,
                is_detached: false,
                permit: Cell::default(),
            },
        )
    }

    /// Returns the part of the record that delivery reads and writes.
    pub(super) fn call(&self) -> &CallState {
        &self.call
    }

    /// Returns the connection's caller.
    pub(super) fn peer(&self) -> &Peer {
        &self.peer
    }

    /// Returns the caller's address.
    pub(super) fn address(&self) -> &CallerAddress {
        &self.address
    }

    /// Returns why the server rejected the caller's head, if it did.
    pub(super) fn head_error(&self) -> Option<HeadError> {
        self.head_error
    }

    /// Takes the caller's headers, which are not needed once there is a response.
    pub(super) fn take_headers(&mut self) -> HeaderMap {
        if self.context.snapshot.settings.access_log != AccessLog::Off {
            self.trace_parent = self.call.take_trace_parent();
        }
        self.call.take_headers()
    }

    pub(super) fn request_id(&self) -> &HeaderValue {
        self.call.head().request_id()
    }

    /// Returns whether the request is to be handled in a task of its own.
    pub(super) fn is_to_be_detached(&self) -> bool {
        self.call.head().summary().idempotency_keys > 0 && !self.is_detached
    }

    /// Records that the request is handled in a task of its own.
    pub(super) fn set_detached(&mut self) {
        self.is_detached = true;
    }

    pub(super) fn set_call(&self, call: &Call<'_>) {
        self.operation.set(Some(call.operation));
        if self.context.is_reported() || self.call.trace().is_some() {
            self.hub.set(call.hub.map(|hub| hub.decoded().into()));
        }
    }

    pub(super) fn set_caller(&self, index: usize) {
        self.caller.set(Some(index));
    }

    pub(super) fn set_route(&self, index: usize) {
        self.route.set(Some(index));
    }

    pub(super) fn set_endpoint(&self, index: usize) {
        self.endpoint.set(Some(index));
    }

    /// Holds the listener's permit until the response has ended.
    pub(super) fn hold(&self, permit: ConcurrencyPermit) {
        self.permit.set(Some(permit));
    }

    pub(super) fn set_request_bytes(&mut self, bytes: u64) {
        self.request_bytes = bytes;
    }

    pub(super) fn add_response_bytes(&mut self, bytes: usize) {
        self.response_bytes += bytes as u64;
    }

    /// Records the head of the response that an endpoint or a health probe got.
    pub(super) fn set_response<B>(&mut self, response: &Response<B>) {
        let status = response.status();
        step!(self.call, "answered", status = status.as_u16());
        self.status = Some(status);
        if status.is_client_error() || status.is_server_error() {
            self.failure = Failure::of_response(self.operation.get(), response).map(Box::new);
        }
    }

    /// Records the error to which the gateway itself responds.
    pub(super) fn set_error(&mut self, err: &ProxyError) {
        step!(self.call, "answered by the gateway", status = err.status().as_u16(), error.kind = err.kind().label());
        self.status = Some(err.status());
        self.failure = Some(Failure::of_error(err).into());
        self.context.metrics.rejected(err.kind());
    }

    /// Records that the response ended early, and why. The first reason counts.
    #[cold]
    pub(super) fn set_incomplete(&mut self, side: Side, cause: impl FnOnce() -> String) {
        if !std::mem::replace(&mut self.is_incomplete, true) {
            self.failure = Some(Failure::of_body(side, cause()).into());
        }
    }

    /// Counts a response whose body the endpoint ended early.
    #[cold]
    pub(super) fn count_incomplete_response(&self) {
        let endpoint = self.endpoint.get().and_then(|index| self.context.snapshot.endpoints.get(index));
        if let Some(endpoint) = endpoint {
            self.context.metrics.upstream_failed(endpoint.label(), UpstreamErrorReason::Body);
        }
    }

    /// Closes the record.
    pub(super) fn finish(mut self: Box<Self>) {
        self.close();
    }

    fn close(&mut self) {
        if std::mem::replace(&mut self.is_closed, true) {
            return;
        }
        // A request whose future was dropped has no response: the caller disconnected.
        if self.status.is_none() {
            self.failure = Some(Failure::of_body(Side::Caller, DISCONNECTED.to_owned()).into());
        }
        let code = self.status.map_or(CLIENT_CLOSED_REQUEST, |status| status.as_u16());
        let duration = self.started.elapsed();
        let RecordContext { metrics, snapshot, tail } = &*self.context;
        metrics.request_ended(&CompletedRequest {
            route: self.route.get().and_then(|index| snapshot.route_labels.get(index)),
            caller: self.counted_caller(),
            operation: self.operation.get().map(Operation::index),
            code,
            duration,
            waited: self.call.waited(),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            trace: self.call.recorded_trace(),
        });
        let is_logged = match snapshot.settings.access_log {
            AccessLog::Off => false,
            _ if self.failure.is_some() => true,
            AccessLog::Failures => false,
            // Skips the RNG at 100 %.
            AccessLog::Sampled { percent } => percent >= 100 || fastrand::u8(..100) < percent,
        };
        if is_logged || tail.is_read() {
            self.report(code, duration, is_logged);
        }
        if self.call.trace().is_some() {
            self.end_trace(code);
        }
    }

    /// Ends the trace of a recorded call.
    #[cold]
    fn end_trace(&mut self, code: u16) {
        let Some(trace) = self.call.take_trace() else { return };
        let snapshot = &self.context.snapshot;
        let text = |text: &str| Value::from(text.to_owned());
        let (operation, kind) = (self.operation.get(), self.failure.as_ref().and_then(|failure| failure.kind));
        let listener = snapshot.listener_name(self.peer.listener);
        let route = self.route.get().and_then(|index| snapshot.routes.routes().get(index));
        let endpoint = self.endpoint.get().and_then(|index| snapshot.endpoints.get(index));
        let is_failure = code >= 500 || self.is_incomplete || code == CLIENT_CLOSED_REQUEST;
        let error = match kind {
            Some(kind) => Some(kind.label().into()),
            None if self.is_incomplete => Some("incomplete".into()),
            None if is_failure => Some(Value::from(code.to_string())),
            None => None,
        };
        let attributes = [
            ("url.scheme", Some(if self.peer.is_tls { "https" } else { "http" }.into())),
            ("http.response.status_code", Some(code.into())),
            ("error.type", error),
            ("signalr_gateway.operation", operation.map(|operation| operation.name().into())),
            ("signalr_gateway.hub", self.hub.take().map(|hub| text(&hub))),
            ("signalr_gateway.listener", listener.map(text)),
            ("signalr_gateway.route", route.map(|route| text(route.name().as_str()))),
            ("signalr_gateway.endpoint", endpoint.map(|endpoint| text(endpoint.name().as_str()))),
            ("signalr_gateway.request_id", self.request_id().to_str().ok().map(text)),
        ];
        let method = self.call.head().method().as_str();
        let cause = self.failure.as_ref().map(|failure| failure.cause.clone()).unwrap_or_default();
        trace.end(EndedCall {
            name: operation.map_or_else(|| method.to_owned().into(), |operation| operation.name().into()),
            method: method.to_owned(),
            began: self.started,
            attributes: attributes.into_iter().filter_map(|(name, value)| Some((name, value?))).collect(),
            status: if is_failure { SpanStatus::Error(cause.into()) } else { SpanStatus::Unset },
        });
    }

    /// Returns the caller to count the request for, if callers are configured.
    fn counted_caller(&self) -> Option<CountedCaller<'_>> {
        let snapshot = &self.context.snapshot;
        if snapshot.callers.is_empty() {
            return None;
        }
        let label = self.caller.get().and_then(|index| snapshot.caller_labels.get(index));
        Some(match (label, &self.peer.identity) {
            (Some(label), _) => CountedCaller::Configured(label),
            (None, Some(_)) => CountedCaller::Other,
            (None, None) => CountedCaller::Anonymous,
        })
    }

    /// Writes the log line, if it is to be logged, and offers its summary to the readers of the tail.
    fn report(&mut self, code: u16, duration: Duration, is_logged: bool) {
        let (hub, endpoint, trail) = (self.hub.take(), self.call.take_endpoint(), self.call.take_trail());
        let trace_parent = self.trace_parent.take().or_else(|| self.call.take_trace_parent());
        let recorded = self.call.trace().map(|trace| trace.id().to_string());
        let Snapshot { routes, callers, endpoints, .. } = &*self.context.snapshot;
        let route = self.route.get().and_then(|index| routes.routes().get(index));
        let caller = self.caller.get().and_then(|index| callers.get(index));
        let responded = self.endpoint.get().and_then(|index| endpoints.get(index));
        let endpoint = endpoint.as_deref().or_else(|| responded.map(|endpoint| endpoint.name().as_str()));
        if let Some(failure) = &mut self.failure {
            failure.add_endpoints(endpoint, trail.as_ref().map(|trail| trail.legs.as_slice()).unwrap_or_default());
        }
        let line = AccessLine {
            request_id: self.request_id(),
            trace_id: recorded.as_deref().or_else(|| trace_parent.as_ref().and_then(TraceParent::id_in)),
            address: self.address,
            identity: self.peer.identity.as_ref(),
            caller: caller.map(|caller| caller.settings().name.as_str()),
            listener: self.context.snapshot.listener_name(self.peer.listener),
            method: self.call.head().method().as_str(),
            operation: self.operation.get(),
            hub: hub.as_deref(),
            route: route.map(|route| route.name().as_str()),
            endpoint,
            attempts: self.call.attempts(),
            trail: trail.as_deref(),
            status: code,
            duration,
            waited: self.call.waited(),
            upstream: self.call.upstream(),
            request_bytes: self.request_bytes,
            response_bytes: self.response_bytes,
            is_incomplete: self.is_incomplete,
            failure: self.failure.as_deref(),
        };
        if is_logged {
            line.write();
        }
        if self.context.tail.is_read() {
            self.context.tail.publish(&line.summary());
        }
        self.hub.set(hub);
    }
}

impl Drop for RequestRecord {
    fn drop(&mut self) {
        self.close();
    }
}

impl fmt::Debug for RequestRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestRecord").field("request_id", self.request_id()).finish_non_exhaustive()
    }
}

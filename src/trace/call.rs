//! The trace of one recorded call.

use std::borrow::Cow;
use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::{HeaderName, HeaderValue};

use super::context::{SpanId, TRACE_PARENT, TRACE_STATE, TraceParent};
use super::queue::SpanQueue;
use super::span::{Attribute, Span, SpanKind, SpanStatus};
use crate::metrics::TraceId;

/// The maximum number of attempts that have spans. Chosen: a fan-out may have thousands of legs, and the queue 2,048 spans.
const MAX_ATTEMPTS: usize = 64;
/// The longest `tracestate` that is exported. Source: W3C Trace Context, section 3.3.1.5.
const MAX_STATE: usize = 512;

/// The trace of a recorded call: the ids of its spans, and the times of its attempts.
#[derive(Debug)]
pub struct CallTrace {
    queue: Arc<SpanQueue>,
    /// The position of the call's own span.
    position: TraceParent,
    parent: Option<SpanId>,
    state: Option<Box<str>>,
    attempts: RefCell<Vec<Attempt>>,
}

#[derive(Debug)]
struct Attempt {
    id: SpanId,
    endpoint: Rc<str>,
    host: HeaderValue,
    /// Whether the endpoint is called over TLS.
    is_tls: bool,
    /// The number of earlier attempts at the same endpoint.
    resends: u64,
    began: Instant,
    ended: Option<(Instant, EndedAttempt)>,
    reason: Option<&'static str>,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, Default)]
pub struct EndedAttempt {
    /// The endpoint's status, if it responded.
    pub status: Option<u16>,
    /// The kind of the error, if it did not.
    pub error: Option<&'static str>,
}

/// What the record of a call adds to its trace.
#[derive(Debug)]
pub struct EndedCall {
    /// The name of the operation, or the method.
    pub name: Cow<'static, str>,
    /// The method.
    pub method: String,
    /// When it began.
    pub began: Instant,
    /// The attributes of its span besides the method.
    pub attributes: Vec<Attribute>,
    /// Whether it failed.
    pub status: SpanStatus,
}

impl CallTrace {
    /// Begins a trace.
    #[cold]
    pub(super) fn root(queue: &Arc<SpanQueue>, trace: TraceId) -> Self {
        Self::new(queue, TraceParent::first(trace, SpanId::random()), None, None)
    }

    /// Continues the trace of the caller.
    #[cold]
    pub(super) fn child(queue: &Arc<SpanQueue>, parent: TraceParent, state: Option<&HeaderValue>) -> Self {
        let state = state.and_then(|state| state.to_str().ok()).filter(|state| state.len() <= MAX_STATE);
        Self::new(queue, parent.with_span(SpanId::random()), Some(parent.span), state.map(Into::into))
    }

    fn new(queue: &Arc<SpanQueue>, position: TraceParent, parent: Option<SpanId>, state: Option<Box<str>>) -> Self {
        Self { queue: Arc::clone(queue), position, parent, state, attempts: RefCell::default() }
    }

    /// Returns the id of the trace.
    pub fn id(&self) -> TraceId {
        self.position.trace
    }

    /// Begins an attempt at an endpoint with this `Host`, over TLS or not.
    pub fn begin_attempt(&self, endpoint: &Rc<str>, host: &HeaderValue, is_tls: bool) {
        let mut attempts = self.attempts.borrow_mut();
        if attempts.len() >= MAX_ATTEMPTS {
            return;
        }
        let earlier = attempts.iter().filter(|attempt| attempt.endpoint == *endpoint).count();
        attempts.push(Attempt {
            id: SpanId::random(),
            endpoint: Rc::clone(endpoint),
            host: host.clone(),
            is_tls,
            resends: earlier as u64,
            began: Instant::now(),
            ended: None,
            reason: None,
        });
    }

    /// Sets why the current attempt at an endpoint got no response.
    pub fn set_reason(&self, endpoint: &str, reason: &'static str) {
        if let Some(attempt) = current(&mut self.attempts.borrow_mut(), endpoint) {
            attempt.reason = Some(reason);
        }
    }

    /// Ends the current attempt at an endpoint.
    pub fn end_attempt(&self, endpoint: &str, at: Instant, ended: EndedAttempt) {
        if let Some(attempt) = current(&mut self.attempts.borrow_mut(), endpoint) {
            attempt.ended = Some((at, ended));
        }
    }

    /// Returns the `traceparent` for a request of the current attempt at an endpoint.
    pub fn header(&self, endpoint: &str) -> Option<HeaderValue> {
        let mut attempts = self.attempts.borrow_mut();
        let span = current(&mut attempts, endpoint).map_or(self.position.span, |attempt| attempt.id);
        self.position.with_span(span).header()
    }

    /// Returns whether a header of the caller is not passed on: the `traceparent`, which the call's own replaces, and a `tracestate`
    /// that belongs to no valid `traceparent`.
    pub fn replaces(&self, name: &HeaderName) -> bool {
        *name == TRACE_PARENT || (self.parent.is_none() && *name == TRACE_STATE)
    }

    /// Ends the call, and queues its spans.
    pub fn end(self, call: EndedCall) {
        let Self { queue, position, parent, state, attempts } = self;
        let clock = Clock::now();
        let mut spans = Vec::new();
        for attempt in attempts.into_inner() {
            spans.push(attempt.into_span(position, state.clone(), &call.method, clock));
        }
        let mut attributes = vec![("http.request.method", call.method.into())];
        attributes.extend(call.attributes);
        spans.push(Span {
            trace: position.trace,
            id: position.span,
            flags: position.flags(),
            parent,
            has_remote_parent: parent.is_some(),
            state,
            kind: SpanKind::Server,
            name: call.name,
            began: clock.time(call.began),
            ended: clock.time(clock.monotonic),
            attributes,
            status: call.status,
        });
        queue.add(spans);
    }
}

/// Returns the latest attempt at an endpoint. The legs of a fan-out run at the same time, at different endpoints.
fn current<'a>(attempts: &'a mut [Attempt], endpoint: &str) -> Option<&'a mut Attempt> {
    attempts.iter_mut().rev().find(|attempt| *attempt.endpoint == *endpoint)
}

impl Attempt {
    fn into_span(self, call: TraceParent, state: Option<Box<str>>, method: &str, clock: Clock) -> Span {
        // One without an end was cancelled: another leg responded, or the caller disconnected.
        let (at, ended) =
            self.ended.unwrap_or((clock.monotonic, EndedAttempt { status: None, error: Some("cancelled") }));
        let mut attributes = vec![
            ("http.request.method", method.to_owned().into()),
            ("signalr_gateway.endpoint", self.endpoint.to_string().into()),
        ];
        if let Ok(host) = self.host.to_str() {
            let port = host.rsplit_once(':').and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?)));
            let (name, port) = port.unwrap_or((host, if self.is_tls { 443 } else { 80 }));
            let name = name.trim_start_matches('[').trim_end_matches(']');
            attributes.push(("server.address", name.to_owned().into()));
            attributes.push(("server.port", port.into()));
        }
        if self.resends > 0 {
            attributes.push(("http.request.resend_count", self.resends.into()));
        }
        attributes.extend(ended.status.map(|status| ("http.response.status_code", status.into())));
        let reason = match ended.status {
            Some(status) if status >= 400 => Some(Cow::Owned(status.to_string())),
            Some(_) => None,
            None => self.reason.or(ended.error).map(Cow::Borrowed),
        };
        if let Some(reason) = &reason {
            attributes.push(("error.type", super::span::Value::Text(reason.clone())));
        }
        // A status says it all.
        let failed = |reason| SpanStatus::Error(if ended.status.is_some() { Cow::Borrowed("") } else { reason });
        Span {
            trace: call.trace,
            id: self.id,
            flags: call.flags(),
            parent: Some(call.span),
            has_remote_parent: false,
            state,
            kind: SpanKind::Client,
            name: format!("{method} {}", self.endpoint).into(),
            began: clock.time(self.began),
            ended: clock.time(at),
            attributes,
            status: reason.map_or(SpanStatus::Unset, failed),
        }
    }
}

/// Both clocks, read at the same time.
#[derive(Clone, Copy)]
struct Clock {
    monotonic: Instant,
    system: SystemTime,
}

impl Clock {
    fn now() -> Self {
        Self { monotonic: Instant::now(), system: SystemTime::now() }
    }

    /// Returns the time at an instant in the past.
    fn time(self, at: Instant) -> SystemTime {
        self.system.checked_sub(self.monotonic.saturating_duration_since(at)).unwrap_or(self.system)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::metrics::{MetricRegistry, TraceMetrics};
    use crate::trace::Value;

    fn queue() -> Arc<SpanQueue> {
        let metrics = TraceMetrics::register(&mut MetricRegistry::default()).unwrap();
        let queue = SpanQueue::new(&metrics);
        queue.set_exported(true);
        queue
    }

    fn ended(method: &str) -> EndedCall {
        EndedCall {
            name: "hub_send".into(),
            method: method.to_owned(),
            began: Instant::now().checked_sub(Duration::from_secs(2)).unwrap(),
            attributes: Vec::new(),
            status: SpanStatus::Unset,
        }
    }

    #[test]
    fn each_attempt_has_a_span_and_the_endpoint_its_id() {
        let queue = queue();
        let caller = TraceParent::first(TraceId::with_low(7), SpanId::random());
        let trace = CallTrace::child(&queue, caller, Some(&HeaderValue::from_static("vendor=1")));
        let (east, west): (Rc<str>, Rc<str>) = ("east".into(), "west".into());
        let host = HeaderValue::from_static("east.example:8443");
        let header = |endpoint| TraceParent::parse(&trace.header(endpoint).unwrap()).unwrap();
        trace.begin_attempt(&east, &host, true);
        let first = header("east");
        trace.begin_attempt(&west, &HeaderValue::from_static("west.example"), true);
        assert_eq!((header("east"), first.trace), (first, caller.trace));
        assert_ne!(header("west").span, first.span);
        trace.set_reason("east", "connect_timeout");
        trace.end_attempt("east", Instant::now(), EndedAttempt { status: None, error: Some("endpoint_unavailable") });
        trace.begin_attempt(&east, &host, true);
        trace.end_attempt("east", Instant::now(), EndedAttempt { status: Some(503), error: None });
        assert!(trace.replaces(&TRACE_PARENT) && !trace.replaces(&TRACE_STATE));
        trace.end(ended("POST"));
        let batch = queue.take().unwrap();
        let [first_east, west, second_east, server] = batch.spans() else { panic!("{batch:?}") };
        assert_eq!((server.kind, server.parent), (SpanKind::Server, Some(caller.span)));
        assert_eq!((&*server.name, server.state.as_deref()), ("hub_send", Some("vendor=1")));
        assert!(server.ended.duration_since(server.began).unwrap() >= Duration::from_secs(2));
        for client in [first_east, west, second_east] {
            assert_eq!((client.kind, client.parent, client.trace), (SpanKind::Client, Some(server.id), caller.trace));
        }
        let value = |span: &Span, name| {
            span.attributes.iter().find(|(found, _)| *found == name).map(|(_, value)| value.clone())
        };
        assert_eq!((first_east.id, &*first_east.name), (first.span, "POST east"));
        assert_eq!(value(first_east, "error.type"), Some("connect_timeout".into()));
        assert_eq!(value(first_east, "server.address"), Some("east.example".into()));
        assert_eq!(value(first_east, "server.port"), Some(Value::Number(8443)));
        assert_eq!(value(west, "error.type"), Some("cancelled".into()));
        assert_eq!(value(west, "server.port"), Some(Value::Number(443)));
        assert_eq!(value(second_east, "http.request.resend_count"), Some(Value::Number(1)));
        assert_eq!(value(second_east, "http.response.status_code"), Some(Value::Number(503)));
        assert_eq!(second_east.status, SpanStatus::Error("".into()));
    }

    #[test]
    fn attempts_beyond_the_bound_have_no_span_and_send_the_id_of_the_call() {
        let queue = queue();
        let trace = CallTrace::root(&queue, TraceId::with_low(7));
        for number in 0..=MAX_ATTEMPTS {
            trace.begin_attempt(&format!("e{number}").into(), &HeaderValue::from_static("h"), false);
        }
        let header = trace.header(&format!("e{MAX_ATTEMPTS}")).unwrap();
        assert!(trace.replaces(&TRACE_STATE), "it belongs to no valid parent");
        trace.end(ended("GET"));
        let batch = queue.take().unwrap();
        assert_eq!(batch.spans().len(), MAX_ATTEMPTS + 1);
        let server = batch.spans().last().unwrap();
        assert_eq!(TraceParent::parse(&header).map(|header| header.span), Some(server.id));
    }
}

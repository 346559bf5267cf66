//! A planned call: what is sent, and what delivery records about it.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue, Uri};

use super::body::RequestBody;
use super::head::CallHead;
use super::outcome::AttemptOutcome;
use super::steps;
use super::trail::{Leg, Trail};
use super::upstream::Upstream;
use crate::idempotency::Claim;
use crate::limits::RequestDeadline;
use crate::metrics::TraceId;
use crate::signalr::Operation;
use crate::trace::{CallTrace, EndedAttempt};

/// The head and the deadline of a call, and what delivery records about it.
pub struct CallState {
    head: CallHead,
    deadline: RequestDeadline,
    endpoint: Cell<Option<Rc<str>>>,
    waited: Cell<Duration>,
    /// The part of `waited` that endpoints took.
    upstream: Cell<Duration>,
    attempts: Cell<u32>,
    trail: Cell<Option<Box<Trail>>>,
    /// Whether the trail is kept.
    keeps_trail: bool,
    logs_steps: bool,
    /// `None` if the call is not recorded.
    trace: Option<Box<CallTrace>>,
}

impl CallState {
    /// Returns the state of a call that was not sent anywhere, and the trace that records it. `keeps_trail` says whether anybody
    /// reads what happens to it at its endpoints.
    pub fn new(head: CallHead, deadline: RequestDeadline, trace: Option<Box<CallTrace>>, keeps_trail: bool) -> Self {
        Self {
            head,
            deadline,
            endpoint: Cell::default(),
            waited: Cell::default(),
            upstream: Cell::default(),
            attempts: Cell::default(),
            trail: Cell::default(),
            keeps_trail,
            logs_steps: steps::are_logged(),
            trace,
        }
    }

    /// Returns the trace, if the call is recorded.
    pub fn trace(&self) -> Option<&CallTrace> {
        self.trace.as_deref()
    }

    /// Takes the trace, if the call is recorded.
    pub fn take_trace(&mut self) -> Option<Box<CallTrace>> {
        self.trace.take()
    }

    /// Returns the head that the caller sent.
    pub fn head(&self) -> &CallHead {
        &self.head
    }

    /// Takes the caller's `traceparent`, which is not needed once there is a response.
    pub fn take_trace_parent(&mut self) -> Option<HeaderValue> {
        self.head.take_trace_parent()
    }

    /// Returns the trace of the call, if it is recorded.
    pub fn recorded_trace(&self) -> Option<TraceId> {
        self.trace().map(CallTrace::id).or_else(|| self.head.summary().recorded_trace())
    }

    /// Takes the caller's headers, which are not needed once there is a response.
    pub fn take_headers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.head.headers)
    }

    /// Returns whether the steps of the call are logged.
    pub fn logs_steps(&self) -> bool {
        self.logs_steps
    }

    /// Returns the deadline.
    pub fn deadline(&self) -> RequestDeadline {
        self.deadline
    }

    /// Returns the time that is left until the deadline.
    pub fn remaining(&self) -> Duration {
        self.deadline.remaining(Instant::now())
    }

    /// Sets the endpoint that the log names.
    pub(super) fn set_endpoint(&self, name: &Rc<str>) {
        self.endpoint.set(Some(Rc::clone(name)));
    }

    /// Takes the name of the endpoint that a call to a single endpoint was last sent to. Fan-outs and resumed lists
    /// have none.
    pub fn take_endpoint(&self) -> Option<Rc<str>> {
        self.endpoint.take()
    }

    /// Adds time spent waiting for endpoints, tokens, permits and retry pauses.
    pub fn add_wait(&self, time: Duration) {
        self.waited.set(self.waited.get() + time);
    }

    /// Adds time spent waiting for an endpoint.
    pub(super) fn add_upstream(&self, time: Duration) {
        self.add_wait(time);
        self.upstream.set(self.upstream.get() + time);
    }

    /// Returns the time spent waiting for endpoints.
    pub fn upstream(&self) -> Duration {
        self.upstream.get()
    }

    /// Counts an attempt, and begins its span.
    pub(super) fn begin_attempt(&self, upstream: &Upstream) {
        self.attempts.set(self.attempts.get() + 1);
        if let Some(trace) = &self.trace {
            let endpoint = upstream.endpoint();
            trace.begin_attempt(upstream.name(), endpoint.host(), endpoint.origin().starts_with("https:"));
        }
    }

    /// Ends the span of an attempt.
    pub(super) fn end_attempt(&self, upstream: &Upstream, outcome: &AttemptOutcome) {
        if let Some(trace) = &self.trace {
            let status = outcome.ending.status.map(|status| status.as_u16());
            let error = outcome.result.as_ref().err().map(|err| err.kind().label());
            trace.end_attempt(upstream.name(), outcome.ended, EndedAttempt { status, error });
        }
    }

    /// Returns the number of attempts.
    pub fn attempts(&self) -> u32 {
        self.attempts.get()
    }

    /// Keeps how an attempt ended that is followed by another one.
    #[cold]
    pub(super) fn add_failed_attempt(&self, endpoint: &Rc<str>, outcome: &AttemptOutcome) {
        self.change_trail(|trail| trail.failed_attempts.push(Leg::of(endpoint, Some(outcome))));
    }

    /// Keeps how the legs of a fan-out ended.
    pub(super) fn set_legs<'a>(&self, legs: impl Iterator<Item = (&'a Rc<str>, Option<&'a AttemptOutcome>)>) {
        self.change_trail(|trail| trail.legs = legs.map(|(endpoint, outcome)| Leg::of(endpoint, outcome)).collect());
    }

    fn change_trail(&self, change: impl FnOnce(&mut Trail)) {
        if self.keeps_trail {
            let mut trail = self.trail.take().unwrap_or_default();
            change(&mut trail);
            self.trail.set(Some(trail));
        }
    }

    /// Takes what happened to the call at its endpoints; `None` if its only attempt says it all, or the trail is not kept.
    pub fn take_trail(&self) -> Option<Box<Trail>> {
        self.trail.take()
    }

    /// Returns the time spent waiting for endpoints, tokens, permits and retry pauses.
    pub fn waited(&self) -> Duration {
        self.waited.get()
    }

    /// Sets the times spent waiting, after waits that overlapped: each of them was added in full.
    pub(super) fn set_waited(&self, waited: Duration, upstream: Duration) {
        self.waited.set(waited);
        self.upstream.set(upstream);
    }
}

impl fmt::Debug for CallState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallState").field("head", &self.head).field("deadline", &self.deadline).finish_non_exhaustive()
    }
}

/// A call that can be sent to any endpoint, any number of times.
#[derive(Clone, Copy)]
pub struct PlannedCall<'a> {
    pub(super) operation: Operation,
    pub(super) body: &'a RequestBody,
    pub(super) state: &'a CallState,
    /// What few calls have.
    pub(super) special: Option<&'a Special>,
}

/// What distinguishes a call from most others.
pub(super) enum Special {
    /// It is a page of a list.
    Page(PageRequest),
    /// It has an idempotency key, and a claim of it.
    Claimed(Claim),
}

/// A request for a page of a list. The gateway edits the response's body, which must have no content coding.
pub(super) struct PageRequest {
    /// Replaces the caller's target.
    pub(super) uri: Option<Uri>,
}

impl<'a> PlannedCall<'a> {
    /// Returns a call with the caller's own target.
    pub fn new(operation: Operation, body: &'a RequestBody, state: &'a CallState) -> Self {
        Self { operation, body, state, special: None }
    }

    /// Returns the target.
    pub(super) fn uri(&self) -> &'a Uri {
        match self.special {
            Some(Special::Page(page)) => page.uri.as_ref().unwrap_or(&self.state.head.uri),
            Some(Special::Claimed(_)) | None => &self.state.head.uri,
        }
    }

    /// Returns whether the gateway edits the response's body.
    pub(super) fn edits_response(&self) -> bool {
        matches!(self.special, Some(Special::Page(_)))
    }

    /// Returns the claim of the call's idempotency key, if it has one.
    pub(super) fn claim(&self) -> Option<&'a Claim> {
        match self.special {
            Some(Special::Claimed(claim)) => Some(claim),
            Some(Special::Page(_)) | None => None,
        }
    }

    pub(super) fn head(&self) -> &'a CallHead {
        &self.state.head
    }
}

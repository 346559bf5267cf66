//! A planned call: what is sent, and what delivery records about it.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Uri};

use super::body::RequestBody;
use super::head::CallHead;
use crate::limits::RequestDeadline;
use crate::signalr::Operation;

/// The head and the deadline of a call, and what delivery records about it.
pub struct CallState {
    head: CallHead,
    deadline: RequestDeadline,
    endpoint: Cell<Option<Rc<str>>>,
    waited: Cell<Duration>,
}

impl CallState {
    /// Returns the state of a call that was not sent anywhere.
    pub fn new(head: CallHead, deadline: RequestDeadline) -> Self {
        Self { head, deadline, endpoint: Cell::default(), waited: Cell::default() }
    }

    /// Returns the head that the caller sent.
    pub fn head(&self) -> &CallHead {
        &self.head
    }

    /// Takes the caller's headers, which are not needed once there is a response.
    pub fn take_headers(&mut self) -> HeaderMap {
        std::mem::take(&mut self.head.headers)
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

    /// Returns the time spent waiting for endpoints, tokens, permits and retry pauses.
    pub fn waited(&self) -> Duration {
        self.waited.get()
    }

    /// Sets the time spent waiting, after waits that overlapped: each of them was added in full.
    pub(super) fn set_waited(&self, time: Duration) {
        self.waited.set(time);
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
    /// The caller's target, or one that replaces it.
    pub(super) uri: &'a Uri,
    pub(super) body: &'a RequestBody,
    /// Whether the gateway edits the response's body, which must have no content coding then.
    pub(super) edits_response: bool,
    pub(super) state: &'a CallState,
}

impl<'a> PlannedCall<'a> {
    /// Returns a call with the caller's own target.
    pub fn new(operation: Operation, body: &'a RequestBody, state: &'a CallState) -> Self {
        Self { operation, uri: &state.head.uri, body, edits_response: false, state }
    }

    pub(super) fn head(&self) -> &'a CallHead {
        &self.state.head
    }
}

//! One worker's open connections. Closes connections that are idle for too long, too old or whose callers do not read their
//! responses, and all of them at shutdown.
//!
//! One periodic sweep replaces a timer for each connection: a request costs a few stores instead of setting and clearing a
//! timer. Single-threaded, so it needs no locks.
//!
//! Saves 2,200 of 35,300 instructions per request against hyper's `header_read_timeout` (callgrind, `bench.sh --instructions`,
//! plain, 64 connections, median of three runs, 2026-11-26), which also does not detect callers that do not read.

use std::cell::{Cell, OnceCell, RefCell};
use std::future::poll_fn;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::certificate::ListenerTls;
use super::conn_waker::ConnWaker;
use super::drain::{DRAIN_POLL_INTERVAL, FIRST_REQUEST_GRACE};
use super::graceful::Graceful;
use super::guarded_body::GuardedBody;
use super::http1::HeadError;
use super::listeners::ListenerId;
use super::live_tls::LiveTls;
use super::timeouts::ConnectionTimeouts;
use crate::metrics::{CallerCloseReason, CallerMetrics};

/// The time that a connection without requests has to finish. Chosen: many round trips, and less than any drain timeout.
const FINISH_TIME: Duration = Duration::from_secs(5);
/// The bytes that a caller must read within the write timeout, unless fewer are pending: 0.8 KiB/s at the default of 20 s.
/// Kestrel's minimum is 240 bytes/s.
pub(super) const MIN_PROGRESS: usize = 16 * 1024;
/// The idle time after which a connection that has reached its age is closed. One that is used more often is asked to close in
/// its next response, so that no request is on its way to it. Chosen: a few round trips.
const UNUSED_TIME: Duration = Duration::from_secs(1);

/// One worker's open connections.
pub(super) struct OpenConnections {
    connections: RefCell<Vec<Weak<Connection>>>,
    timeouts: ConnectionTimeouts,
    metrics: CallerMetrics,
    /// The time of the last sweep, which is precise enough for timeouts.
    now: Cell<Instant>,
    count: Cell<usize>,
    /// Notified when a connection has closed.
    closed: Notify,
}

/// The state of one connection.
pub(super) struct Connection {
    /// The number of requests whose responses have not ended. HTTP/2 can have several.
    requests: Cell<usize>,
    idle_since: Cell<Instant>,
    /// When the caller last read [`MIN_PROGRESS`] of the pending bytes; `None` while nothing is pending.
    blocked_since: Cell<Option<Instant>>,
    /// The bytes that the caller has read since then.
    progress: Cell<usize>,
    /// The listener that accepted it.
    listener: ListenerId,
    /// The TLS of that listener, and what was in force at the handshake; empty without TLS.
    tls: OnceCell<(Arc<LiveTls>, Arc<ListenerTls>)>,
    /// When it reaches its age; `None` without a limit.
    expires: Option<Instant>,
    /// Whether its responses ask the caller to close it: it has reached its age, or its listener is closing.
    asks_to_close: Cell<bool>,
    is_http2: Cell<bool>,
    close_state: Cell<CloseState>,
    /// Wakes the task that drives it.
    waker: RefCell<Option<Arc<ConnWaker>>>,
    /// Why the head of the next request was rejected.
    head_error: Cell<Option<HeadError>>,
    open: Rc<OpenConnections>,
}

/// Whether, and how far, a connection is being closed.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CloseState {
    Open,
    /// It must finish its requests and accept no others; its task has not started that yet.
    Requested,
    /// It is finishing its requests.
    Finishing,
    /// It must be dropped at once.
    Aborted,
}

impl OpenConnections {
    /// Makes an empty set and starts its sweep. Call it within the runtime that serves the connections.
    pub(super) fn new(timeouts: ConnectionTimeouts, metrics: CallerMetrics) -> Rc<Self> {
        let interval = timeouts.sweep_interval();
        let open = Rc::new(Self {
            connections: RefCell::default(),
            timeouts,
            metrics,
            now: Cell::new(Instant::now()),
            count: Cell::new(0),
            closed: Notify::new(),
        });
        let swept = Rc::downgrade(&open);
        // Ends with the connections, or with the runtime.
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(interval).await;
                let Some(open) = swept.upgrade() else { return };
                open.sweep(interval);
            }
        });
        open
    }

    /// Makes an empty set whose idle and write timeouts are `timeout`.
    #[cfg(any(test, fuzzing))]
    pub(super) fn for_tests(timeout: Duration) -> Rc<Self> {
        Self::new(ConnectionTimeouts { idle: timeout, write: timeout, age: None }, CallerMetrics::unregistered())
    }

    /// Counts a connection as open until the returned value is dropped.
    pub(super) fn add(self: &Rc<Self>, listener: ListenerId) -> Rc<Connection> {
        self.count.set(self.count.get() + 1);
        let connection = Rc::new(Connection {
            requests: Cell::new(0),
            idle_since: Cell::new(self.now.get()),
            blocked_since: Cell::new(None),
            progress: Cell::new(0),
            listener,
            tls: OnceCell::new(),
            expires: self.timeouts.expiry(self.now.get()),
            asks_to_close: Cell::new(false),
            is_http2: Cell::new(false),
            close_state: Cell::new(CloseState::Open),
            waker: RefCell::default(),
            head_error: Cell::default(),
            open: Rc::clone(self),
        });
        self.connections.borrow_mut().push(Rc::downgrade(&connection));
        connection
    }

    /// Returns how many connections are open.
    pub(super) fn count(&self) -> usize {
        self.count.get()
    }

    /// Makes all connections finish their requests, and waits until they are closed.
    ///
    /// # Cancel safety
    /// Safe: the connections continue to finish.
    pub(super) async fn close_all(&self) {
        while self.count() > 0 {
            self.each(Connection::close);
            self.closed.notified().await;
        }
    }

    /// Closes the connections of one listener. Responses first ask callers to close, then each connection finishes its requests.
    /// Aborts the connections that are open after `within`, and returns their number.
    ///
    /// # Cancel safety
    /// Safe: the connections continue to finish.
    pub(super) async fn close_listener(&self, listener: ListenerId, within: Duration) -> usize {
        let each = |act: &dyn Fn(&Connection)| {
            let left = Cell::new(0);
            self.each(|connection| {
                if connection.listener == listener {
                    left.set(left.get() + 1);
                    act(connection);
                }
            });
            left.get()
        };
        each(&|connection| connection.asks_to_close.set(true));
        // Another worker may be about to hand over a connection that it has just accepted.
        tokio::time::sleep(FIRST_REQUEST_GRACE).await;
        let end = Instant::now() + within;
        while each(&Connection::close) > 0 {
            if Instant::now() >= end {
                return each(&|connection| connection.set_close_state(CloseState::Aborted));
            }
            tokio::time::sleep(DRAIN_POLL_INTERVAL).await;
        }
        0
    }

    /// Closes connections that were idle or blocked for too long. Timestamps have sweep resolution; allows one extra interval.
    fn sweep(&self, interval: Duration) {
        let now = Instant::now();
        self.now.set(now);
        self.each(|connection| {
            let has_passed = |since: Instant, limit| now.saturating_duration_since(since) >= limit + interval;
            if connection.blocked_since.get().is_some_and(|since| has_passed(since, self.timeouts.write)) {
                tracing::debug!("a caller does not read its responses; closing its connection");
                self.metrics.closed(CallerCloseReason::Unread);
                return connection.set_close_state(CloseState::Aborted);
            }
            if connection.is_open() && connection.has_outdated_trust() {
                self.metrics.closed(CallerCloseReason::Trust);
                connection.close();
            }
            if connection.expires.is_some_and(|expires| now >= expires) && connection.is_open() {
                if !connection.asks_to_close.replace(true) {
                    self.metrics.closed(CallerCloseReason::Age);
                }
                // HTTP/2 finishes all requests that the caller sends before it receives GOAWAY.
                let is_unused = !connection.has_requests() && has_passed(connection.idle_since.get(), UNUSED_TIME);
                if connection.is_http2.get() || is_unused {
                    return connection.close();
                }
            }
            if connection.requests.get() > 0 {
                return;
            }
            let is_finishing = connection.close_state.get() == CloseState::Finishing;
            // To finish, HTTP/1.1 waits for the rest of a partial head, HTTP/2 for a PING acknowledgement. Either may never arrive.
            let finish_time = FINISH_TIME.min(self.timeouts.write).min(self.timeouts.idle);
            if is_finishing && has_passed(connection.idle_since.get(), finish_time) {
                connection.set_close_state(CloseState::Aborted);
            } else if connection.is_open() && has_passed(connection.idle_since.get(), self.timeouts.idle) {
                self.metrics.closed(CallerCloseReason::Idle);
                connection.close();
            }
        });
    }

    fn each(&self, act: impl Fn(&Connection)) {
        self.connections.borrow_mut().retain(|connection| {
            let connection = connection.upgrade();
            if let Some(connection) = &connection {
                act(connection);
            }
            connection.is_some()
        });
    }
}

impl Connection {
    /// Waits for a future that sets the connection up. Returns `None` if the connection must close before that.
    pub(super) async fn unless_closing<F: Future>(&self, setup: F) -> Option<F::Output> {
        let mut setup = std::pin::pin!(setup);
        poll_fn(|cx| {
            if self.close_state.get() != CloseState::Open {
                return Poll::Ready(None);
            }
            self.conn_waker_for(cx);
            setup.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Drives the connection until it ends or is aborted.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) async fn drive<G: Graceful>(&self, connection: G) -> Result<(), G::Error> {
        let mut connection = std::pin::pin!(connection);
        let mut waker: Option<Waker> = None;
        poll_fn(|cx| {
            match self.close_state.get() {
                CloseState::Open | CloseState::Finishing => {}
                CloseState::Requested => {
                    self.close_state.set(CloseState::Finishing);
                    self.idle_since.set(self.open.now.get());
                    connection.as_mut().graceful_shutdown();
                }
                CloseState::Aborted => return Poll::Ready(Ok(())),
            }
            let known =
                waker.take_if(|_| self.waker.borrow().as_ref().is_some_and(|waker| waker.wakes_same(cx.waker())));
            let waker = waker.insert(known.unwrap_or_else(|| self.conn_waker_for(cx).into()));
            connection.as_mut().poll(&mut Context::from_waker(waker))
        })
        .await
    }

    /// Returns a waker of the current task, and stores it as the connection's.
    fn conn_waker_for(&self, cx: &Context<'_>) -> Arc<ConnWaker> {
        let mut waker = self.waker.borrow_mut();
        let known = waker.take_if(|known| known.wakes_same(cx.waker()));
        Arc::clone(waker.insert(known.unwrap_or_else(|| ConnWaker::new(cx.waker()))))
    }

    /// Records the TLS of its listener, and what was in force at its handshake.
    pub(super) fn set_tls(&self, live: &Arc<LiveTls>, at_handshake: Arc<ListenerTls>) {
        // Set once.
        let _is_first = self.tls.set((Arc::clone(live), at_handshake));
    }

    /// Returns whether its caller was verified by other CAs or revocation lists than those in force.
    fn has_outdated_trust(&self) -> bool {
        self.tls.get().is_some_and(|(live, at_handshake)| live.has_other_trust(at_handshake))
    }

    /// Counts a request until the returned value is dropped.
    pub(super) fn count_request(self: &Rc<Self>) -> OpenRequest {
        self.requests.set(self.requests.get() + 1);
        OpenRequest(Rc::clone(self))
    }

    /// Returns whether there are requests whose responses have not ended.
    pub(super) fn has_requests(&self) -> bool {
        self.requests.get() > 0
    }

    /// Records that it is an HTTP/2 connection.
    pub(super) fn record_http2(&self) {
        self.is_http2.set(true);
    }

    /// Marks the next request as one whose head was rejected.
    pub(super) fn reject_next(&self, error: HeadError) {
        self.head_error.set(Some(error));
    }

    /// Returns why the head of the current request was rejected, if it was.
    pub(super) fn take_head_error(&self) -> Option<HeadError> {
        self.head_error.take()
    }

    /// Returns the waker of the task that drives the connection; `None` before its first poll.
    pub(super) fn waker(&self) -> Option<Arc<ConnWaker>> {
        self.waker.borrow().clone()
    }

    /// Returns whether bytes are pending that the caller does not read.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked_since.get().is_some()
    }

    /// Records that bytes are pending and the socket accepts none.
    pub(super) fn record_blocked(&self) {
        if !self.is_blocked() {
            self.blocked_since.set(Some(self.open.now.get()));
            self.progress.set(0);
        }
    }

    /// Records that the socket accepted some of the pending bytes.
    pub(super) fn record_progress(&self, bytes: usize) {
        let progress = self.progress.get() + bytes;
        if progress < MIN_PROGRESS {
            self.progress.set(progress);
        } else {
            self.progress.set(0);
            self.blocked_since.set(Some(self.open.now.get()));
        }
    }

    /// Records that no bytes are pending.
    pub(super) fn record_unblocked(&self) {
        self.blocked_since.set(None);
    }

    fn is_open(&self) -> bool {
        self.close_state.get() == CloseState::Open
    }

    fn close(&self) {
        if self.is_open() {
            self.set_close_state(CloseState::Requested);
        }
    }

    fn set_close_state(&self, state: CloseState) {
        self.close_state.set(state);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_now();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.count.set(self.open.count.get() - 1);
        self.open.closed.notify_one();
    }
}

/// A guard that counts a request of a connection until it is dropped.
pub(super) struct OpenRequest(Rc<Connection>);

impl OpenRequest {
    /// Returns whether the response asks the caller to close the connection.
    pub(super) fn asks_to_close(&self) -> bool {
        self.0.asks_to_close.get()
    }

    /// Counts the request until the body of its response is dropped.
    pub(super) fn until_end_of<B>(self, body: B) -> GuardedBody<B, Self> {
        GuardedBody::new(body, self)
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get() - 1);
        self.0.idle_since.set(self.0.open.now.get());
    }
}

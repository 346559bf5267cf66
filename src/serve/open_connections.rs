//! The connections that one worker has open. Those that are idle, or do not read their answers, for too long are closed, and
//! at the end all of them are.
//!
//! A periodic sweep over all of them replaces a timer on each: a request costs a few stores, not a timer that is set and
//! cleared. Lives on one thread; nothing here is locked.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper::rt::{Read, Write};
use hyper::server::conn::http1;
use hyper::service::HttpService;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::bell::Bell;
use super::inbound::Refusal;
use super::listeners::ListenerId;
use super::worker::{LAST_CALL, LAST_CALL_LOOK};

/// The longest interval between two sweeps, and so the most by which a connection outlives its time. Chosen: a second does
/// not matter when the time is a minute and a half.
const LONGEST_SWEEP: Duration = Duration::from_secs(1);
/// The shortest.
const SHORTEST_SWEEP: Duration = Duration::from_millis(10);
/// How long a connection without requests may take to finish. Chosen: many round trips; less than anybody waits for a stop.
const FINISH_TIME: Duration = Duration::from_secs(5);
/// How much a caller must take within the write timeout, unless less is pending. At the default of 20 s that is 0.8 KiB/s
/// (Kestrel's minimum: 240 bytes/s). A caller that takes a byte now and then makes no progress by this measure.
pub(super) const MIN_PROGRESS: usize = 16 * 1024;

/// What hyper wants errors of handlers and bodies to be.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// One worker's open connections.
pub(super) struct OpenConnections {
    connections: RefCell<Vec<Weak<Connection>>>,
    idle_timeout: Duration,
    write_timeout: Duration,
    /// The time of the last sweep: precise enough for timeouts.
    now: Cell<Instant>,
    count: Cell<usize>,
    closed: Notify,
}

/// One connection, as its worker sees it.
pub(super) struct Connection {
    /// Requests whose answers have not ended. HTTP/2 has several.
    requests: Cell<usize>,
    idle_since: Cell<Instant>,
    /// Since when the caller has not taken [`MIN_PROGRESS`] of what is pending; `None` while nothing is pending.
    blocked_since: Cell<Option<Instant>>,
    /// How much it has taken since then.
    taken: Cell<usize>,
    /// The listener it came in by.
    listener: ListenerId,
    /// Whether that listener is being closed, so that callers are asked to close.
    is_ending: Cell<bool>,
    close_state: Cell<CloseState>,
    /// Wakes the task that drives it.
    bell: RefCell<Option<Arc<Bell>>>,
    /// Why the request that comes next is refused.
    refusal: Cell<Option<Refusal>>,
    open: Rc<OpenConnections>,
}

/// Whether a connection is to be closed, and how far that is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CloseState {
    Open,
    /// It is to finish its requests and accept no others; the task that drives it has not seen this yet.
    Requested,
    /// It is finishing its requests.
    Finishing,
    /// It is to be dropped at once.
    Aborted,
}

impl OpenConnections {
    /// Starts the sweep, within the runtime that serves the connections.
    pub(super) fn new(idle_timeout: Duration, write_timeout: Duration) -> Rc<Self> {
        let open = Rc::new(Self {
            connections: RefCell::default(),
            idle_timeout,
            write_timeout,
            now: Cell::new(Instant::now()),
            count: Cell::new(0),
            closed: Notify::new(),
        });
        let interval = (idle_timeout.min(write_timeout) / 8).clamp(SHORTEST_SWEEP, LONGEST_SWEEP);
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

    /// Counts a connection as open until the returned value is dropped.
    pub(super) fn open(self: &Rc<Self>, listener: ListenerId) -> Rc<Connection> {
        self.count.set(self.count.get() + 1);
        let connection = Rc::new(Connection {
            requests: Cell::new(0),
            idle_since: Cell::new(self.now.get()),
            blocked_since: Cell::new(None),
            taken: Cell::new(0),
            listener,
            is_ending: Cell::new(false),
            close_state: Cell::new(CloseState::Open),
            bell: RefCell::default(),
            refusal: Cell::default(),
            open: Rc::clone(self),
        });
        self.connections.borrow_mut().push(Rc::downgrade(&connection));
        connection
    }

    /// Returns how many are open.
    pub(super) fn count(&self) -> usize {
        self.count.get()
    }

    /// Asks all of them to finish their requests, and waits until they are closed.
    ///
    /// # Cancel safety
    /// Safe: those that were asked go on finishing.
    pub(super) async fn end(&self) {
        while self.count() > 0 {
            self.each(Connection::close);
            self.closed.notified().await;
        }
    }

    /// Ends the connections of one listener in order: answers ask callers to close, then each connection finishes its
    /// requests and closes. What is left after `within` is cut off; returns how many that were.
    ///
    /// # Cancel safety
    /// Safe: those that were asked go on finishing.
    pub(super) async fn end_listener(&self, listener: ListenerId, within: Duration) -> usize {
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
        each(&|connection| connection.is_ending.set(true));
        // Whole, since another worker may be handing a connection over that it has just accepted.
        tokio::time::sleep(LAST_CALL).await;
        let end = Instant::now() + within;
        while each(&Connection::close) > 0 {
            if Instant::now() >= end {
                return each(&|connection| connection.set_close_state(CloseState::Aborted));
            }
            tokio::time::sleep(LAST_CALL_LOOK).await;
        }
        0
    }

    /// Closes connections that have been idle or blocked for too long. Times have the resolution of the sweep; allow one
    /// extra interval.
    fn sweep(&self, interval: Duration) {
        let now = Instant::now();
        self.now.set(now);
        self.each(|connection| {
            let has_passed = |since: Instant, limit| now.saturating_duration_since(since) >= limit + interval;
            if connection.blocked_since.get().is_some_and(|since| has_passed(since, self.write_timeout)) {
                tracing::debug!("a caller does not read its answers; closing its connection");
                return connection.set_close_state(CloseState::Aborted);
            }
            if connection.requests.get() > 0 {
                return;
            }
            let is_finishing = connection.close_state.get() == CloseState::Finishing;
            // HTTP/1.1 finishes after the head that has begun, HTTP/2 after a PING was answered. Neither may ever come.
            let finish_time = FINISH_TIME.min(self.write_timeout).min(self.idle_timeout);
            if is_finishing && has_passed(connection.idle_since.get(), finish_time) {
                connection.set_close_state(CloseState::Aborted);
            } else if has_passed(connection.idle_since.get(), self.idle_timeout) {
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
    /// Waits for what begins a connection; `None` if it is to be closed first.
    pub(super) async fn unless_closing<F: Future>(&self, begin: F) -> Option<F::Output> {
        let mut begin = std::pin::pin!(begin);
        poll_fn(|cx| {
            if self.close_state.get() != CloseState::Open {
                return Poll::Ready(None);
            }
            self.hang_bell(cx);
            begin.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Drives a connection to its end, or until it is aborted.
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
            let known = waker.take_if(|_| self.bell.borrow().as_ref().is_some_and(|bell| bell.is_of(cx.waker())));
            let waker = waker.insert(known.unwrap_or_else(|| self.hang_bell(cx).into()));
            connection.as_mut().poll(&mut Context::from_waker(waker))
        })
        .await
    }

    /// Returns the bell that wakes the task in whose turn this is, and has it rung from now on.
    fn hang_bell(&self, cx: &Context<'_>) -> Arc<Bell> {
        let mut bell = self.bell.borrow_mut();
        let known = bell.take_if(|known| known.is_of(cx.waker()));
        Arc::clone(bell.insert(known.unwrap_or_else(|| Bell::new(cx.waker()))))
    }

    /// Counts a request until the returned value is dropped.
    pub(super) fn request(self: &Rc<Self>) -> OpenRequest {
        self.requests.set(self.requests.get() + 1);
        OpenRequest(Rc::clone(self))
    }

    /// Whether there are requests whose answers have not ended.
    pub(super) fn has_requests(&self) -> bool {
        self.requests.get() > 0
    }

    /// Has the request that comes next refused.
    pub(super) fn refuse(&self, refusal: Refusal) {
        self.refusal.set(Some(refusal));
    }

    /// Returns why the request that has come is refused, if it is.
    pub(super) fn take_refusal(&self) -> Option<Refusal> {
        self.refusal.take()
    }

    /// Returns what wakes the task that drives it; `None` before it was waited for or driven.
    pub(super) fn bell(&self) -> Option<Arc<Bell>> {
        self.bell.borrow().clone()
    }

    /// Whether bytes are pending that the caller does not take.
    pub(super) fn is_blocked(&self) -> bool {
        self.blocked_since.get().is_some()
    }

    /// Records that bytes are pending and the socket takes none.
    pub(super) fn blocks(&self) {
        if !self.is_blocked() {
            self.blocked_since.set(Some(self.open.now.get()));
            self.taken.set(0);
        }
    }

    /// Records that the socket took some of the pending bytes.
    pub(super) fn takes(&self, bytes: usize) {
        let taken = self.taken.get() + bytes;
        if taken < MIN_PROGRESS {
            self.taken.set(taken);
        } else {
            self.taken.set(0);
            self.blocked_since.set(Some(self.open.now.get()));
        }
    }

    /// Records that nothing is pending any more.
    pub(super) fn unblocks(&self) {
        self.blocked_since.set(None);
    }

    fn close(&self) {
        if self.close_state.get() == CloseState::Open {
            self.set_close_state(CloseState::Requested);
        }
    }

    fn set_close_state(&self, state: CloseState) {
        self.close_state.set(state);
        if let Some(bell) = &*self.bell.borrow() {
            bell.ring();
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.open.count.set(self.open.count.get() - 1);
        self.open.closed.notify_one();
    }
}

/// A connection that can finish its requests and then end.
pub(super) trait Graceful: Future<Output = Result<(), Self::Error>> {
    /// Why it ended badly.
    type Error;

    /// Lets it finish its requests, and accept no others.
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<I, S, B> Graceful for http1::Connection<I, S>
where
    I: Read + Write + Unpin + 'static,
    S: HttpService<Incoming, ResBody = B, Error: Into<Cause>>,
    B: Body<Error: Into<Cause>> + 'static,
{
    type Error = hyper::Error;

    fn graceful_shutdown(self: Pin<&mut Self>) {
        Self::graceful_shutdown(self);
    }
}

/// A request on a connection, until its answer has ended.
pub(super) struct OpenRequest(Rc<Connection>);

impl OpenRequest {
    /// Whether the listener that it came in by is being closed.
    pub(super) fn is_of_ending(&self) -> bool {
        self.0.is_ending.get()
    }

    /// Makes the request last as long as the body of its answer.
    pub(super) fn until_end_of<B>(self, body: B) -> OpenBody<B> {
        OpenBody { body, _request: self }
    }
}

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.requests.set(self.0.requests.get() - 1);
        self.0.idle_since.set(self.0.open.now.get());
    }
}

pin_project_lite::pin_project! {
    /// The body of an answer, which keeps its request counted.
    pub(super) struct OpenBody<B> {
        #[pin]
        body: B,
        _request: OpenRequest,
    }
}

impl<B: Body<Data = Bytes>> Body for OpenBody<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        self.project().body.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

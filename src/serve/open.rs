//! The connections that one worker has open. Those that ask for nothing for too long are closed, and in the end all of
//! them are.
//!
//! One look at all of them every so often stands in for a timer on each: what a request costs is a few stores, not a
//! timer that is set and cleared. Lives on one thread; nothing here is locked.

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
use hyper::rt::bounds::Http2ServerConnExec;
use hyper::rt::{Read, Write};
use hyper::server::conn::{http1, http2};
use hyper::service::HttpService;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::bell::Bell;

/// The longest between two looks, and so the most by which a connection outlives its time. Chosen: nobody notices a
/// second when the time is a minute and a half.
const LONGEST_LOOK: Duration = Duration::from_secs(1);
/// The shortest.
const SHORTEST_LOOK: Duration = Duration::from_millis(10);

/// What hyper wants errors of handlers and bodies to be.
type Cause = Box<dyn std::error::Error + Send + Sync>;

/// One worker's open connections.
pub(super) struct OpenConnections {
    connections: RefCell<Vec<Weak<Connection>>>,
    idle_timeout: Duration,
    /// The time of the last look: near enough to tell how long a connection has been idle.
    now: Cell<Instant>,
    count: Cell<usize>,
    closed: Notify,
}

/// One connection, as its worker sees it.
pub(super) struct Connection {
    /// Requests whose answers have not ended. HTTP/2 has several.
    requests: Cell<usize>,
    idle_since: Cell<Instant>,
    wish: Cell<Wish>,
    /// Wakes the task that drives it.
    bell: RefCell<Option<Arc<Bell>>>,
    open: Rc<OpenConnections>,
}

/// What its worker wants of a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wish {
    Stay,
    /// To end what it has begun, and no more.
    Leave,
    /// It was told to leave.
    Leaving,
    /// To go at once.
    Gone,
}

impl OpenConnections {
    /// Begins to look after connections, within the runtime that serves them.
    pub(super) fn new(idle_timeout: Duration) -> Rc<Self> {
        let open = Rc::new(Self {
            connections: RefCell::default(),
            idle_timeout,
            now: Cell::new(Instant::now()),
            count: Cell::new(0),
            closed: Notify::new(),
        });
        let look = (idle_timeout / 8).clamp(SHORTEST_LOOK, LONGEST_LOOK);
        let looked_at = Rc::downgrade(&open);
        // Ends with what it looks at, or with the runtime.
        tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(look).await;
                let Some(open) = looked_at.upgrade() else { return };
                open.look(look);
            }
        });
        open
    }

    /// Counts a connection as open until what this returns is dropped.
    pub(super) fn open(self: &Rc<Self>) -> Rc<Connection> {
        self.count.set(self.count.get() + 1);
        let connection = Rc::new(Connection {
            requests: Cell::new(0),
            idle_since: Cell::new(self.now.get()),
            wish: Cell::new(Wish::Stay),
            bell: RefCell::default(),
            open: Rc::clone(self),
        });
        self.connections.borrow_mut().push(Rc::downgrade(&connection));
        connection
    }

    /// Returns how many there are.
    pub(super) fn count(&self) -> usize {
        self.count.get()
    }

    /// Tells all of them to end what they have begun, and waits until they are gone.
    ///
    /// # Cancel safety
    /// Safe: those that were told are ending.
    pub(super) async fn end(&self) {
        while self.count() > 0 {
            self.each(Connection::leave);
            self.closed.notified().await;
        }
    }

    /// Closes what has been idle for too long. Time is taken at looks alone, so one look more is granted.
    fn look(&self, look: Duration) {
        let now = Instant::now();
        self.now.set(now);
        self.each(|connection| {
            let idle = now.saturating_duration_since(connection.idle_since.get());
            if connection.requests.get() > 0 || idle < self.idle_timeout + look {
                return;
            }
            // A head that never ends keeps HTTP/1.1 from leaving in order.
            if connection.wish.get() == Wish::Leaving { connection.wishes(Wish::Gone) } else { connection.leave() }
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
    /// Waits for what begins a connection; `None` if it is wished away first.
    pub(super) async fn unless_leaving<F: Future>(&self, begin: F) -> Option<F::Output> {
        let mut begin = std::pin::pin!(begin);
        poll_fn(|cx| {
            if self.wish.get() != Wish::Stay {
                return Poll::Ready(None);
            }
            self.hang_bell(cx);
            begin.as_mut().poll(cx).map(Some)
        })
        .await
    }

    /// Drives a connection to its end, or until it is wished away.
    ///
    /// # Errors
    /// Those of the connection.
    pub(super) async fn drive(&self, connection: impl Graceful) -> hyper::Result<()> {
        let mut connection = std::pin::pin!(connection);
        let mut waker: Option<Waker> = None;
        poll_fn(|cx| {
            match self.wish.get() {
                Wish::Stay | Wish::Leaving => {}
                Wish::Leave => {
                    self.wish.set(Wish::Leaving);
                    connection.as_mut().graceful_shutdown();
                }
                Wish::Gone => return Poll::Ready(Ok(())),
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

    /// Counts a request until what this returns is dropped.
    pub(super) fn request(self: &Rc<Self>) -> OpenRequest {
        self.requests.set(self.requests.get() + 1);
        OpenRequest(Rc::clone(self))
    }

    /// Returns what wakes the task that drives it; `None` before it was waited for or driven.
    pub(super) fn bell(&self) -> Option<Arc<Bell>> {
        self.bell.borrow().clone()
    }

    fn leave(&self) {
        if self.wish.get() == Wish::Stay {
            self.wishes(Wish::Leave);
        }
    }

    fn wishes(&self, wish: Wish) {
        self.wish.set(wish);
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

/// A connection that can be told to end what it has begun.
pub(super) trait Graceful: Future<Output = hyper::Result<()>> {
    /// Tells it.
    fn graceful_shutdown(self: Pin<&mut Self>);
}

impl<I, S, B> Graceful for http1::Connection<I, S>
where
    I: Read + Write + Unpin + 'static,
    S: HttpService<Incoming, ResBody = B, Error: Into<Cause>>,
    B: Body<Error: Into<Cause>> + 'static,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        Self::graceful_shutdown(self);
    }
}

impl<I, S, B, E> Graceful for http2::Connection<I, S, E>
where
    I: Read + Write + Unpin + 'static,
    S: HttpService<Incoming, ResBody = B, Error: Into<Cause>>,
    B: Body<Error: Into<Cause>> + 'static,
    E: Http2ServerConnExec<S::Future, B>,
{
    fn graceful_shutdown(self: Pin<&mut Self>) {
        Self::graceful_shutdown(self);
    }
}

/// A request on a connection, until its answer has ended.
pub(super) struct OpenRequest(Rc<Connection>);

impl OpenRequest {
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

//! One worker's connections to one endpoint. Lives on one thread; nothing here is locked.
//!
//! The most recently used idle connection goes out first, so that those that are not needed grow old and are closed. A
//! connection comes back only when its answer has ended. A request that finds none waits in a queue, for which tasks of
//! their own open connections: a request that is cancelled meanwhile costs no connection.

mod waiting;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::abandoned::{self, Abandoned};
use super::http1::Connection;
use super::http2::OnThisThread;
use super::lease::{Counted, Lease, Line, UploadBody};
use super::socket::Socket;
use super::{ConnectError, Endpoint, HttpVersion, PoolSettings, SpareMemory};
use crate::metrics::{ConnectionGauge, ConnectionState, WorkerMetrics};
use crate::write_batch::{Batched, WriteBatch};
use waiting::Waiting;

/// How often an HTTP/2 connection is asked whether it is still there.
const PING: Duration = Duration::from_secs(30);
/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);
/// How many HTTP/1.1 connections are opened at once. Chosen: a burst of calls to a far endpoint (300 ms for TCP and TLS)
/// gets a hundred connections a second, and a burst of cancelled calls does not become one of connections.
const MOST_OPENING: usize = 32;
/// A connection that was idle for so long is used only after the runtime has polled its socket: servers close idle
/// connections, and some send 408 before. Chosen: servers do not close sooner, and on busy connections the extra poll is not
/// worth its cost.
const LONG_IDLE: Duration = Duration::from_secs(1);

/// One worker's connections to one endpoint. Cloning shares it.
pub struct Pool<B>(Rc<Inner<B>>);

struct Inner<B> {
    endpoint: Arc<Endpoint>,
    settings: PoolSettings,
    /// The most recently used last.
    idle: RefCell<Vec<Counted<B>>>,
    /// The HTTP/2 connection, if that is what is spoken.
    shared: RefCell<Option<Shared<B>>>,
    /// How many HTTP/2 connections were opened.
    shared_count: Cell<u64>,
    waiting: Waiting<Offered<B>>,
    /// Receives exchanges whose caller is gone.
    abandoned: mpsc::UnboundedSender<Abandoned<B>>,
    /// Whether a task looks for idle connections that have grown old.
    swept: RefCell<Option<tokio::task::JoinHandle<()>>>,
    gauge: ConnectionGauge,
    /// Counts connection attempts under the endpoint's name.
    metrics: Rc<WorkerMetrics>,
    metrics_index: usize,
    spare: Rc<SpareMemory>,
    /// What goes to the endpoint goes through it.
    write_batch: WriteBatch,
}

/// An HTTP/2 connection that all requests go on.
struct Shared<B> {
    sender: http2::SendRequest<B>,
    number: u64,
    used: Instant,
}

/// A connection for a request that waits.
struct Offered<B> {
    line: Line<B>,
    is_used: bool,
}

impl<B: UploadBody> Pool<B> {
    /// Makes an empty pool. `metrics_index` is the endpoint's place in the worker's metrics.
    pub fn new(
        endpoint: Arc<Endpoint>,
        metrics: Rc<WorkerMetrics>,
        metrics_index: usize,
        write_batch: WriteBatch,
        spare: Rc<SpareMemory>,
    ) -> Self {
        let (abandoned, received) = mpsc::unbounded_channel();
        // Ends with the pool, or with the worker.
        tokio::task::spawn_local(abandoned::finish_all(received));
        let most_opening = match endpoint.settings().http_version {
            HttpVersion::Http1 => MOST_OPENING,
            HttpVersion::Http2 => 1,
        };
        Self(Rc::new(Inner {
            settings: endpoint.settings().pool,
            endpoint,
            idle: RefCell::default(),
            shared: RefCell::default(),
            shared_count: Cell::default(),
            waiting: Waiting::new(most_opening),
            abandoned,
            swept: RefCell::default(),
            gauge: metrics.connections(metrics_index),
            metrics,
            metrics_index,
            spare,
            write_batch,
        }))
    }

    /// Returns the endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0.endpoint
    }

    /// Returns the gauge of its connections.
    pub fn gauge(&self) -> &ConnectionGauge {
        &self.0.gauge
    }

    /// Returns an idle connection, or waits for one: for one that is opened, or for one that becomes idle before. With HTTP/2
    /// it is the one connection. `now` is the time.
    ///
    /// # Errors
    /// [`ConnectError`] when there is none and none can be opened.
    ///
    /// # Cancel safety
    /// Safe: a connection that is being opened is kept for other requests.
    pub async fn lease(&self, now: Instant) -> Result<Lease<B>, ConnectError> {
        let ready = match self.0.endpoint.settings().http_version {
            HttpVersion::Http1 => self.take_idle(now, LONG_IDLE),
            HttpVersion::Http2 => self.share(now),
        };
        match ready {
            Some(lease) => Ok(lease),
            // In a box, since it is large and rare: every request's future would have room for it.
            None => Box::pin(self.wait(now, true)).await,
        }
    }

    /// Returns a connection that carried no request before, whether or not there are idle ones. With HTTP/2 it is the one
    /// connection, unless that is going away.
    ///
    /// # Errors
    /// [`ConnectError`] when none can be opened.
    ///
    /// # Cancel safety
    /// As [`Pool::lease`].
    pub async fn connect(&self) -> Result<Lease<B>, ConnectError> {
        Box::pin(self.wait(Instant::now(), false)).await
    }

    /// Waits for a connection; `takes_used` says whether it may have carried a request before.
    async fn wait(&self, now: Instant, takes_used: bool) -> Result<Lease<B>, ConnectError> {
        let ready = match self.0.endpoint.settings().http_version {
            HttpVersion::Http1 if takes_used && !self.0.idle.borrow().is_empty() => {
                // Lets the runtime poll the sockets.
                tokio::task::yield_now().await;
                self.take_idle(now, Duration::MAX)
            }
            HttpVersion::Http1 => None,
            HttpVersion::Http2 => self.share(now),
        };
        if let Some(lease) = ready {
            return Ok(lease);
        }
        let mut queued = Queued { offered: self.0.waiting.enqueue(takes_used), pool: self.clone() };
        self.open_for_waiting();
        // Time to resolve the name and time to connect: what one connection may take.
        let limit = self.0.endpoint.settings().connect_timeout.saturating_mul(2);
        let offered = tokio::time::timeout(limit, &mut queued.offered).await;
        let Ok(Ok(offered)) = offered else { return Err(ConnectError::Queue(limit)) };
        let Offered { mut line, is_used } = offered?;
        if let Line::Http1(counted) = &mut line {
            counted.used = Instant::now();
        }
        Ok(Lease::new(line, is_used, self.clone()))
    }

    /// Opens connections while more requests wait for one than are being opened, up to the limit.
    fn open_for_waiting(&self) {
        while self.0.waiting.opens_another() {
            let pool = self.clone();
            // Ends by the endpoint's `connect_timeout`, or with the worker.
            tokio::task::spawn_local(async move {
                let opened = pool.open().await;
                pool.0.metrics.upstream_connected(pool.0.metrics_index, opened.is_ok());
                pool.0.waiting.opened();
                match (opened, pool.0.endpoint.settings().http_version) {
                    (Ok(Line::Http1(counted)), _) => pool.offer(counted, false),
                    (Ok(Line::Http2(sender, number)), _) => pool
                        .0
                        .waiting
                        .resolve_all(|| Ok(Offered { line: Line::Http2(sender.clone(), number), is_used: false })),
                    (Err(err), HttpVersion::Http1) => pool.0.waiting.fail(err),
                    (Err(err), HttpVersion::Http2) => {
                        let err = Arc::new(err);
                        pool.0.waiting.resolve_all(|| Err(ConnectError::Shared(Arc::clone(&err))));
                    }
                }
                pool.open_for_waiting();
            });
        }
    }

    async fn open(&self) -> Result<Line<B>, ConnectError> {
        let version = self.0.endpoint.settings().http_version;
        let socket =
            self.0.endpoint.connector.connect(version, |stream| Batched::new(stream, &self.0.write_batch)).await?;
        match version {
            HttpVersion::Http1 => {
                let connection = Box::new(Connection::new(socket, Rc::clone(&self.0.spare)));
                let count = self.0.gauge.count(ConnectionState::Active);
                Ok(Line::Http1(Counted { connection, count, used: Instant::now() }))
            }
            HttpVersion::Http2 => self.start_http2(socket).await,
        }
    }

    async fn start_http2(&self, socket: Socket<Batched<TcpStream>>) -> Result<Line<B>, ConnectError> {
        let mut http = http2::Builder::new(OnThisThread);
        // An endpoint that vanished is noticed, whether or not requests wait for it.
        http.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_while_idle(true);
        let (sender, connection) = http.handshake(TokioIo::new(socket)).await.map_err(ConnectError::Http)?;
        let count = self.0.gauge.count(ConnectionState::Active);
        // Ends when the last sender is dropped and the last stream has ended, or the endpoint closes.
        tokio::task::spawn_local(async move {
            let _counted = count;
            if let Err(err) = connection.await {
                tracing::debug!(error = %err, "a connection to an endpoint ended badly");
            }
        });
        let number = self.0.shared_count.get();
        self.0.shared_count.set(number + 1);
        self.0.shared.replace(Some(Shared { sender: sender.clone(), number, used: Instant::now() }));
        self.sweep();
        Ok(Line::Http2(sender, number))
    }

    /// Puts no more requests on an HTTP/2 connection. Those that are on it are not disturbed.
    pub(super) fn retire(&self, number: u64) {
        self.0.shared.borrow_mut().take_if(|shared| shared.number == number);
    }

    fn share(&self, now: Instant) -> Option<Lease<B>> {
        let mut shared = self.0.shared.borrow_mut();
        let shared = shared.as_mut().filter(|shared| !shared.sender.is_closed())?;
        shared.used = now;
        Some(Lease::new(Line::Http2(shared.sender.clone(), shared.number), true, self.clone()))
    }

    /// Returns an idle connection, unless the first was idle for `longest` or more.
    fn take_idle(&self, now: Instant, longest: Duration) -> Option<Lease<B>> {
        let mut idle = self.0.idle.borrow_mut();
        while let Some(mut counted) = idle.pop() {
            let unused = now.saturating_duration_since(counted.used);
            if unused >= longest {
                idle.push(counted);
                return None;
            }
            // One that had a long request on it may have begun it before those below began theirs.
            let is_fresh = unused < self.0.settings.idle_timeout;
            if is_fresh && counted.connection.is_usable() {
                counted.used = now;
                counted.count.set(ConnectionState::Active);
                return Some(Lease::new(Line::Http1(counted), true, self.clone()));
            }
        }
        None
    }

    /// Takes back a connection whose request has been answered, if it may carry another one.
    pub(super) fn give_back(&self, counted: Counted<B>) {
        if counted.connection.is_free() {
            self.offer(counted, true);
        }
    }

    /// Gives a connection to the first request that waits for one, or keeps it.
    fn offer(&self, counted: Counted<B>, is_used: bool) {
        let counted = if self.0.waiting.is_empty() {
            counted
        } else {
            match self.0.waiting.hand_over(Offered { line: Line::Http1(counted), is_used }, is_used) {
                Some(Offered { line: Line::Http1(counted), .. }) => counted,
                Some(Offered { line: Line::Http2(..), .. }) | None => return,
            }
        };
        self.keep(counted);
    }

    fn keep(&self, mut counted: Counted<B>) {
        let mut idle = self.0.idle.borrow_mut();
        if idle.len() >= self.0.settings.max_idle_per_worker {
            return;
        }
        counted.count.set(ConnectionState::Idle);
        idle.push(counted);
        drop(idle);
        self.sweep();
    }

    /// Sees to it that idle connections are closed when their time is over, though no request comes.
    fn sweep(&self) {
        let mut swept = self.0.swept.borrow_mut();
        if swept.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let pool = Rc::downgrade(&self.0);
        *swept = Some(tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(pool) = pool.upgrade() else { return };
                let mut idle = pool.idle.borrow_mut();
                idle.retain_mut(|idle| idle.used.elapsed() < pool.settings.idle_timeout && idle.connection.is_usable());
                let mut shared = pool.shared.borrow_mut();
                // Streams that are open keep the connection until they end.
                shared
                    .take_if(|shared| shared.used.elapsed() >= pool.settings.idle_timeout || shared.sender.is_closed());
                if idle.is_empty() && shared.is_none() {
                    return;
                }
            }
        }));
    }
}

impl<B> Pool<B> {
    /// Takes over an exchange whose caller is gone; `is_answered` says whether the head of the answer was read.
    pub(super) fn abandon(&self, exchange: Counted<B>, is_answered: bool) {
        let abandoned = Abandoned { exchange, pool: self.clone(), is_answered };
        // Without a receiver, at the end of the worker, the connection is closed.
        let _closed = self.0.abandoned.send(abandoned);
    }
}

impl<B> Clone for Pool<B> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

/// A request in the queue. When it is cancelled, a connection that it was just given goes back to the pool.
struct Queued<B: UploadBody> {
    offered: oneshot::Receiver<Result<Offered<B>, ConnectError>>,
    pool: Pool<B>,
}

impl<B: UploadBody> Drop for Queued<B> {
    fn drop(&mut self) {
        if let Ok(Ok(Offered { line: Line::Http1(counted), is_used })) = self.offered.try_recv() {
            self.pool.offer(counted, is_used);
        }
    }
}

impl<B> Drop for Inner<B> {
    fn drop(&mut self) {
        if let Some(task) = self.swept.take() {
            task.abort();
        }
    }
}

impl<B> fmt::Debug for Pool<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("endpoint", &self.0.endpoint).field("gauge", &self.0.gauge).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! One worker's connections to one endpoint. Leases them to requests and opens new ones. Single-threaded.
//!
//! A connection returns to the pool only when its response has ended. A request that finds no idle connection waits in a
//! queue, for which separate tasks open connections: a request that is cancelled meanwhile wastes no connection.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::abandoned;
use super::error::ConnectError;
use super::http1::{Connection, UploadBody};
use super::http2::OnThisThread;
use super::lease::Lease;
use super::recycler::Recycler;
use super::running::Endpoint;
use super::settings::HttpVersion;
use super::socket::Socket;
use super::store::{ConnectionStore, Counted, Line, Offered};
use crate::metrics::{ConnectionGauge, ConnectionState, WorkerMetrics};
use crate::write_batch::{Batched, WriteBatch};

/// The interval of HTTP/2 keep-alive pings.
const PING: Duration = Duration::from_secs(30);
/// The most HTTP/1.1 connections that are opened at once. Chosen: a burst of calls to a distant endpoint (300 ms for TCP and
/// TLS) gets a hundred connections per second, and a burst of cancelled calls does not become a burst of connections.
const MOST_OPENING: usize = 32;
/// The idle time after which a connection is used only once the runtime has polled its socket: servers close idle connections,
/// and some send 408 first. Chosen: servers do not close sooner, and busy connections skip the extra poll.
const LONG_IDLE: Duration = Duration::from_secs(1);

/// One worker's connections to one endpoint. Clones share them.
pub struct Pool<B> {
    store: ConnectionStore<B>,
    shared: Rc<Opener>,
}

/// What opens the connections of a pool.
struct Opener {
    /// Counts connection attempts under the endpoint's name.
    metrics: Rc<WorkerMetrics>,
    metrics_index: usize,
    recycler: Rc<Recycler>,
    /// Batches what is written to the endpoint.
    write_batch: WriteBatch,
}

impl<B: UploadBody> Pool<B> {
    /// Makes an empty pool. `metrics_index` is the endpoint's index in the worker's metrics.
    pub fn new(
        endpoint: Arc<Endpoint>,
        metrics: Rc<WorkerMetrics>,
        metrics_index: usize,
        write_batch: WriteBatch,
        recycler: Rc<Recycler>,
    ) -> Self {
        let (abandoned, received) = mpsc::unbounded_channel();
        // Ends with the pool, or with the worker.
        tokio::task::spawn_local(abandoned::finish_all(received));
        let most_opening = match endpoint.settings().http_version {
            HttpVersion::Http1 => MOST_OPENING,
            HttpVersion::Http2 => 1,
        };
        let store = ConnectionStore::new(endpoint, metrics.connections(metrics_index), most_opening, abandoned);
        Self { store, shared: Rc::new(Opener { metrics, metrics_index, recycler, write_batch }) }
    }

    /// Returns the endpoint.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.store.endpoint()
    }

    /// Returns the gauge of its connections.
    pub fn gauge(&self) -> &ConnectionGauge {
        self.store.gauge()
    }

    /// Returns an idle connection, or waits until one becomes idle or is opened. With HTTP/2 all requests share one connection.
    /// `now` is the current time.
    ///
    /// # Errors
    /// [`ConnectError`] when there is none and none can be opened.
    ///
    /// # Cancel safety
    /// Safe: a connection that is being opened is kept for other requests.
    pub async fn lease(&self, now: Instant) -> Result<Lease<B>, ConnectError> {
        let ready = match self.endpoint().settings().http_version {
            HttpVersion::Http1 => self.store.take_idle(now, LONG_IDLE),
            HttpVersion::Http2 => self.store.share(now),
        };
        match ready {
            Some(line) => Ok(Lease::new(line, true, self.store.clone())),
            // Boxed because it is large and rare: every request's future would otherwise reserve memory for it.
            None => Box::pin(self.wait(now, true)).await,
        }
    }

    /// Returns a new connection, even if there are idle ones. With HTTP/2 it is the shared connection, unless the endpoint
    /// has sent `GOAWAY` on it.
    ///
    /// # Errors
    /// [`ConnectError`] when none can be opened.
    ///
    /// # Cancel safety
    /// As [`Pool::lease`].
    pub async fn connect(&self) -> Result<Lease<B>, ConnectError> {
        Box::pin(self.wait(Instant::now(), false)).await
    }

    /// Waits for a connection. `takes_used` allows one that carried a request before.
    async fn wait(&self, now: Instant, takes_used: bool) -> Result<Lease<B>, ConnectError> {
        let ready = match self.endpoint().settings().http_version {
            HttpVersion::Http1 if takes_used && self.store.has_idle() => {
                // The runtime polls the sockets.
                tokio::task::yield_now().await;
                self.store.take_idle(now, Duration::MAX)
            }
            HttpVersion::Http1 => None,
            HttpVersion::Http2 => self.store.share(now),
        };
        if let Some(line) = ready {
            return Ok(Lease::new(line, true, self.store.clone()));
        }
        let mut queued = Queued { offered: self.store.waiting().enqueue(takes_used), store: self.store.clone() };
        self.open_for_waiting();
        // One connection may take the timeout for name resolution and again for TCP and TLS.
        let limit = self.endpoint().settings().connect_timeout.saturating_mul(2);
        let offered = tokio::time::timeout(limit, &mut queued.offered).await;
        let Ok(Ok(offered)) = offered else { return Err(ConnectError::Queue(limit)) };
        let Offered { mut line, is_used } = offered?;
        if let Line::Http1(counted) = &mut line {
            counted.used = Instant::now();
        }
        Ok(Lease::new(line, is_used, self.store.clone()))
    }

    /// Opens connections while more requests wait for one than are being opened, up to the limit.
    fn open_for_waiting(&self) {
        while self.store.waiting().opens_another() {
            let pool = self.clone();
            // Ends by the endpoint's `connect_timeout`, or with the worker.
            tokio::task::spawn_local(async move {
                let opened = pool.open().await;
                pool.shared.metrics.upstream_connected(pool.shared.metrics_index, opened.is_ok());
                pool.store.waiting().opened();
                match (opened, pool.endpoint().settings().http_version) {
                    (Ok(Line::Http1(counted)), _) => pool.store.offer(counted, false),
                    (Ok(Line::Http2(sender, number)), _) => pool
                        .store
                        .waiting()
                        .resolve_all(|| Ok(Offered { line: Line::Http2(sender.clone(), number), is_used: false })),
                    (Err(err), HttpVersion::Http1) => pool.store.waiting().fail(err),
                    (Err(err), HttpVersion::Http2) => {
                        let err = Arc::new(err);
                        pool.store.waiting().resolve_all(|| Err(ConnectError::Shared(Arc::clone(&err))));
                    }
                }
                pool.open_for_waiting();
            });
        }
    }

    async fn open(&self) -> Result<Line<B>, ConnectError> {
        let version = self.endpoint().settings().http_version;
        let socket = self
            .endpoint()
            .connector()
            .connect(version, |stream| Batched::new(stream, &self.shared.write_batch))
            .await?;
        match version {
            HttpVersion::Http1 => {
                let connection = Box::new(Connection::new(socket, Rc::clone(&self.shared.recycler)));
                let count = self.gauge().count(ConnectionState::Active);
                Ok(Line::Http1(Counted { connection, count, used: Instant::now() }))
            }
            HttpVersion::Http2 => self.start_http2(socket).await,
        }
    }

    async fn start_http2(&self, socket: Socket<Batched<TcpStream>>) -> Result<Line<B>, ConnectError> {
        let mut http = http2::Builder::new(OnThisThread);
        // Detects a vanished endpoint even without requests.
        http.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_while_idle(true);
        let (sender, connection) = http.handshake(TokioIo::new(socket)).await.map_err(ConnectError::Http)?;
        let count = self.gauge().count(ConnectionState::Active);
        // Ends when the last sender is dropped and the last stream has ended, or the endpoint closes.
        tokio::task::spawn_local(async move {
            let _counted = count;
            if let Err(err) = connection.await {
                tracing::debug!(error = %err, "a connection to an endpoint failed");
            }
        });
        let number = self.store.set_shared(sender.clone());
        Ok(Line::Http2(sender, number))
    }
}

impl<B> Clone for Pool<B> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), shared: Rc::clone(&self.shared) }
    }
}

/// A request in the queue. If it is cancelled, a connection that it was just offered returns to the pool.
struct Queued<B: UploadBody> {
    offered: oneshot::Receiver<Result<Offered<B>, ConnectError>>,
    store: ConnectionStore<B>,
}

impl<B: UploadBody> Drop for Queued<B> {
    fn drop(&mut self) {
        if let Ok(Ok(Offered { line: Line::Http1(counted), is_used })) = self.offered.try_recv() {
            self.store.offer(counted, is_used);
        }
    }
}

impl<B: UploadBody> fmt::Debug for Pool<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("endpoint", self.endpoint()).field("gauge", self.gauge()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! One worker's connections to one endpoint. The pool leases them to requests and opens new ones. It is single-threaded.
//!
//! A connection returns to the pool only when its response has ended. A request that finds no idle connection waits in a
//! queue, for which separate tasks open connections. If the request is cancelled meanwhile, its connection serves others.

use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::error::ConnectError;
use super::http1::{Connection, UploadBody};
use super::http2::LocalExecutor;
use super::idle_order::Position;
use super::lease::Lease;
use super::running::Endpoint;
use super::settings::HttpVersion;
use super::socket::Socket;
use super::store::{ConnectionStore, Offer, PoolConnection, TrackedConnection};
use super::worker_pools::WorkerPools;
use crate::metrics::{ConnectionGauge, ConnectionState};
use crate::runbook::Section;
use crate::write_batch::Batched;

/// The interval of HTTP/2 keep-alive pings.
const PING_INTERVAL: Duration = Duration::from_secs(30);
/// The maximum number of HTTP/1.1 connections that are opened concurrently. Chosen: enough for a hundred connections per second
/// to a distant endpoint (300 ms for TCP and TLS), and few enough that a burst of cancelled calls opens few connections.
const MAX_OPENING: usize = 32;
/// The idle time after which the runtime polls the socket before a connection is reused, since the server may have closed it, some
/// with a 408. Chosen: servers do not close connections sooner, and busy connections skip the extra poll.
const LONG_IDLE: Duration = Duration::from_secs(1);

/// The time before another attempt to replace an HTTP/2 connection that has reached its age. Chosen: as long as a circuit stays
/// open at first by default.
const RENEWAL_PAUSE: Duration = Duration::from_secs(5);

/// One worker's connections to one endpoint. Clones share the connections.
pub struct Pool<B> {
    store: ConnectionStore<B>,
    pools: Rc<WorkerPools<B>>,
}

impl<B: UploadBody> Pool<B> {
    /// Creates an empty pool, which has no task and no timer.
    pub fn new(endpoint: Arc<Endpoint>, pools: Rc<WorkerPools<B>>) -> Self {
        let max_opening = match endpoint.settings().http_version {
            HttpVersion::Http1 => MAX_OPENING,
            HttpVersion::Http2 => 1,
        };
        let (abandoned, idle) = (pools.abandoned.clone(), Rc::clone(&pools.idle));
        let store = ConnectionStore::new(endpoint, &pools.metrics, max_opening, abandoned, idle);
        Self { store, pools }
    }

    /// Returns the endpoint of the pool.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.store.endpoint()
    }

    /// Returns the gauge that counts the pool's connections.
    fn gauge(&self) -> &ConnectionGauge {
        self.store.gauge()
    }

    /// Leases an idle connection, or waits until one becomes idle or is opened. With HTTP/2, all requests share one connection.
    ///
    /// # Errors
    /// [`ConnectError`] if there is no connection and none can be opened.
    ///
    /// # Cancel safety
    /// Safe: a connection that is being opened becomes available to other requests.
    pub async fn lease(&self, now: Instant) -> Result<Lease<B>, ConnectError> {
        match self.ready(now) {
            Some(connection) => Ok(Lease::new(connection, true, self.store.clone())),
            // Boxed, since it is large and rare: unboxed, it would enlarge the future of every request.
            None => Box::pin(self.wait(now, true)).await,
        }
    }

    /// Returns an open connection that was used recently. Not part of [`Pool::lease`], whose locals enlarge the future of every
    /// request.
    fn ready(&self, now: Instant) -> Option<PoolConnection<B>> {
        match self.endpoint().settings().http_version {
            HttpVersion::Http1 => self.store.take_idle(now, LONG_IDLE),
            HttpVersion::Http2 => {
                if self.store.start_renewal(now) {
                    self.renew();
                }
                self.store.shared(now)
            }
        }
    }

    /// Leases a new connection, even if there are idle ones. With HTTP/2 it is the shared connection, unless the endpoint has
    /// sent `GOAWAY` on it.
    ///
    /// # Errors
    /// [`ConnectError`] if none can be opened.
    ///
    /// # Cancel safety
    /// As [`Pool::lease`].
    pub async fn connect(&self) -> Result<Lease<B>, ConnectError> {
        Box::pin(self.wait(Instant::now(), false)).await
    }

    /// Waits for a connection. `accepts_reused` allows a connection that carried a request before.
    async fn wait(&self, now: Instant, accepts_reused: bool) -> Result<Lease<B>, ConnectError> {
        let ready = match self.endpoint().settings().http_version {
            HttpVersion::Http1 if accepts_reused && self.store.has_idle() => {
                // Meanwhile the runtime polls the sockets.
                tokio::task::yield_now().await;
                self.store.take_idle(now, Duration::MAX)
            }
            HttpVersion::Http1 => None,
            HttpVersion::Http2 => self.store.shared(now),
        };
        if let Some(connection) = ready {
            return Ok(Lease::new(connection, true, self.store.clone()));
        }
        let mut queued = Queued { offered: self.store.waiting().enqueue(accepts_reused), store: self.store.clone() };
        self.open_for_waiting();
        let limit = self.endpoint().settings().resolve_timeout + self.endpoint().settings().connect_timeout;
        let offered = tokio::time::timeout(limit, &mut queued.offered).await;
        let Ok(Ok(offered)) = offered else {
            let is_resolving = self.endpoint().is_resolving();
            return Err(if is_resolving { ConnectError::DnsTimeout(limit) } else { ConnectError::Queue(limit) });
        };
        let Offer { mut connection, is_reused } = offered?;
        if let PoolConnection::Http1(tracked) = &mut connection {
            tracked.used = Instant::now();
        }
        Ok(Lease::new(connection, is_reused, self.store.clone()))
    }

    /// Opens connections until one is being opened for each waiting request or the limit is reached.
    fn open_for_waiting(&self) {
        while self.store.waiting().start_opening() {
            let pool = self.clone();
            // The task ends within the endpoint's `resolve_timeout` and `connect_timeout`, or with the worker.
            tokio::task::spawn_local(async move {
                let opened = pool.open().await;
                pool.pools.metrics.upstream_connected(pool.endpoint().label(), opened.is_ok());
                pool.store.waiting().finish_opening();
                match (opened, pool.endpoint().settings().http_version) {
                    (Ok(PoolConnection::Http1(tracked)), _) => pool.store.offer(tracked, false),
                    (Ok(PoolConnection::Http2(sender, number)), _) => pool.store.waiting().resolve_all(|| {
                        Ok(Offer { connection: PoolConnection::Http2(sender.clone(), number), is_reused: false })
                    }),
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

    /// Opens an HTTP/2 connection in place of the shared one, which is used until then.
    fn renew(&self) {
        let pool = self.clone();
        // The task ends within the endpoint's `resolve_timeout` and `connect_timeout`, or with the worker.
        tokio::task::spawn_local(async move {
            let opened = pool.open().await;
            pool.pools.metrics.upstream_connected(pool.endpoint().label(), opened.is_ok());
            if let Err(err) = opened {
                let endpoint = pool.endpoint().name();
                let cause = std::error::Error::source(&err).map(tracing::field::display);
                let section = Section::Endpoint(err.reason());
                tracing::warn!(%endpoint, error = %err, cause, side = "endpoint", remedy = section.remedy(), runbook = %section, "an HTTP/2 connection is used beyond its max_age: no other can be opened");
                pool.store.postpone_renewal(Instant::now() + RENEWAL_PAUSE);
            }
        });
    }

    async fn open(&self) -> Result<PoolConnection<B>, ConnectError> {
        let version = self.endpoint().settings().http_version;
        let socket = self
            .endpoint()
            .connector()
            .connect(version, |stream| Batched::new(stream, &self.pools.write_batch))
            .await?;
        match version {
            HttpVersion::Http1 => {
                let connection = Box::new(Connection::new(
                    socket,
                    Rc::clone(&self.pools.recycler),
                    self.endpoint().settings().pool.expiry(Instant::now()),
                ));
                let count = self.gauge().count(ConnectionState::Active);
                Ok(PoolConnection::Http1(TrackedConnection {
                    connection,
                    count,
                    used: Instant::now(),
                    position: Position::NONE,
                }))
            }
            HttpVersion::Http2 => self.start_http2(socket).await,
        }
    }

    async fn start_http2(&self, socket: Socket<Batched<TcpStream>>) -> Result<PoolConnection<B>, ConnectError> {
        let mut http = http2::Builder::new(LocalExecutor);
        // Pings detect an unreachable endpoint even without requests.
        http.timer(TokioTimer::new()).keep_alive_interval(PING_INTERVAL).keep_alive_while_idle(true);
        let (sender, connection) = http.handshake(TokioIo::new(socket)).await.map_err(ConnectError::Http)?;
        let count = self.gauge().count(ConnectionState::Active);
        // The task ends when all senders are dropped and all streams have ended, or when the endpoint closes the connection.
        tokio::task::spawn_local(async move {
            let _counted = count;
            if let Err(err) = connection.await {
                tracing::debug!(error = %err, "an HTTP/2 connection to an endpoint failed");
            }
        });
        let number = self.store.set_shared(sender.clone());
        Ok(PoolConnection::Http2(sender, number))
    }
}

impl<B> Clone for Pool<B> {
    fn clone(&self) -> Self {
        Self { store: self.store.clone(), pools: Rc::clone(&self.pools) }
    }
}

/// A request in the queue. If it is cancelled, a connection that was already sent to it returns to the pool.
struct Queued<B: UploadBody> {
    offered: oneshot::Receiver<Result<Offer<B>, ConnectError>>,
    store: ConnectionStore<B>,
}

impl<B: UploadBody> Drop for Queued<B> {
    fn drop(&mut self) {
        if let Ok(Ok(Offer { connection: PoolConnection::Http1(tracked), is_reused })) = self.offered.try_recv() {
            self.store.offer(tracked, is_reused);
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

//! One worker's connections to one endpoint. Lives on one thread; nothing here is locked.
//!
//! The most recently used idle connection goes out first, so that those that are not needed grow old and are closed. A
//! connection comes back only when its answer has ended.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http2;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpStream;

use super::http1::Connection;
use super::http2::OnThisThread;
use super::lease::{Counted, Lease, Line, UploadBody};
use super::socket::Socket;
use super::{ConnectError, Endpoint, HttpVersion, PoolSettings, SpareMemory};
use crate::metrics::{ConnectionGauge, ConnectionState, WorkerMetrics};
use crate::outbox::{Batched, Outbox};

/// How often an HTTP/2 connection is asked whether it is still there.
const PING: Duration = Duration::from_secs(30);
/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// One worker's connections to one endpoint. Cloning shares it.
pub struct Pool<B>(Rc<Inner<B>>);

struct Inner<B> {
    endpoint: Arc<Endpoint>,
    settings: PoolSettings,
    /// The most recently used last.
    idle: RefCell<Vec<Counted<B>>>,
    /// The HTTP/2 connection, if that is what is spoken.
    shared: RefCell<Option<Shared<B>>>,
    /// Whether a task looks for idle connections that have grown old.
    swept: RefCell<Option<tokio::task::JoinHandle<()>>>,
    gauge: ConnectionGauge,
    /// Counts connection attempts under the endpoint's name.
    metrics: Rc<WorkerMetrics>,
    metrics_index: usize,
    spare: Rc<SpareMemory>,
    /// What goes to the endpoint goes through it.
    outbox: Outbox,
}

/// An HTTP/2 connection that all requests go on.
struct Shared<B> {
    sender: http2::SendRequest<B>,
    used: Instant,
}

impl<B: UploadBody> Pool<B> {
    /// Makes an empty pool. `metrics_index` is the endpoint's place in the worker's metrics.
    pub fn new(
        endpoint: Arc<Endpoint>,
        metrics: Rc<WorkerMetrics>,
        metrics_index: usize,
        outbox: Outbox,
        spare: Rc<SpareMemory>,
    ) -> Self {
        Self(Rc::new(Inner {
            settings: endpoint.settings().pool,
            endpoint,
            idle: RefCell::default(),
            shared: RefCell::default(),
            swept: RefCell::default(),
            gauge: metrics.connections(metrics_index),
            metrics,
            metrics_index,
            spare,
            outbox,
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

    /// Returns an idle connection, or opens one. With HTTP/2 it is the one connection. `now` is the time.
    ///
    /// # Errors
    /// [`ConnectError`] when there is none and none can be opened.
    ///
    /// # Cancel safety
    /// Safe: what was begun is closed.
    pub async fn lease(&self, now: Instant) -> Result<Lease<B>, ConnectError> {
        let ready = match self.0.endpoint.settings().http_version {
            HttpVersion::Http1 => self.take_idle(now),
            HttpVersion::Http2 => self.share(now),
        };
        match ready {
            Some(lease) => Ok(lease),
            None => self.connect().await,
        }
    }

    /// Opens a connection, whether or not there are idle ones.
    ///
    /// # Errors
    /// [`ConnectError`] when none can be opened.
    ///
    /// # Cancel safety
    /// Safe: what was begun is closed.
    pub async fn connect(&self) -> Result<Lease<B>, ConnectError> {
        // In a box, since it is large and rare: every request's future would have room for it.
        let connected = Box::pin(async {
            let version = self.0.endpoint.settings().http_version;
            let socket =
                self.0.endpoint.connector.connect(version, |stream| Batched::new(stream, &self.0.outbox)).await?;
            match version {
                HttpVersion::Http1 => {
                    let connection = Box::new(Connection::new(socket, Rc::clone(&self.0.spare)));
                    let count = self.0.gauge.count(ConnectionState::Active);
                    Ok(Line::Http1(Counted { connection, count, used: Instant::now() }))
                }
                HttpVersion::Http2 => self.start_http2(socket).await.map(Line::Http2),
            }
        });
        let lease = connected.await.map(|line| Lease::new(line, false, self.clone()));
        self.0.metrics.upstream_connected(self.0.metrics_index, lease.is_ok());
        lease
    }

    async fn start_http2(&self, socket: Socket<Batched<TcpStream>>) -> Result<http2::SendRequest<B>, ConnectError> {
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
        self.0.shared.replace(Some(Shared { sender: sender.clone(), used: Instant::now() }));
        self.sweep();
        Ok(sender)
    }

    fn share(&self, now: Instant) -> Option<Lease<B>> {
        let mut shared = self.0.shared.borrow_mut();
        let shared = shared.as_mut().filter(|shared| !shared.sender.is_closed())?;
        shared.used = now;
        Some(Lease::new(Line::Http2(shared.sender.clone()), true, self.clone()))
    }

    fn take_idle(&self, now: Instant) -> Option<Lease<B>> {
        let mut idle = self.0.idle.borrow_mut();
        while let Some(mut counted) = idle.pop() {
            // One that had a long request on it may have begun it before those below began theirs.
            let is_fresh = now.saturating_duration_since(counted.used) < self.0.settings.idle_timeout;
            if is_fresh && counted.connection.is_usable() {
                counted.used = now;
                counted.count.set(ConnectionState::Active);
                return Some(Lease::new(Line::Http1(counted), true, self.clone()));
            }
        }
        None
    }

    /// Takes back a connection whose request has been answered, if it may carry another one.
    pub(super) fn give_back(&self, mut counted: Counted<B>) {
        let mut idle = self.0.idle.borrow_mut();
        if !counted.connection.is_free() || idle.len() >= self.0.settings.max_idle_per_worker {
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

impl<B> Clone for Pool<B> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
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

//! One worker's connections to one endpoint. Lives on one thread; nothing here is locked.
//!
//! The most recently used idle connection goes out first, so that those that are not needed grow old and are closed. A
//! connection comes back only when its answer has ended.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http::uri::{Authority, Scheme};
use http_body::Body;
use hyper::client::conn::{http1, http2};
use hyper::rt::{Read, Write};
use hyper_util::rt::TokioTimer;
use tokio::time::Instant;

use super::connect::Connected;
use super::sender::{OnThisThread, Sender, Sending};
use super::{ConnectError, Endpoint, HttpVersion, PoolSettings};
use crate::metrics::{ConnectionCount, ConnectionGauge, ConnectionState, WorkerMetrics};

/// The most that is buffered of one answer's head and of data on its way. The service's answers are small.
const BUFFER: usize = 128 * 1024;
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
    idle: RefCell<Vec<Idle<B>>>,
    /// The HTTP/2 connection, if that is what is spoken.
    shared: RefCell<Option<Shared<B>>>,
    /// Whether a task looks for idle connections that have grown old.
    swept: RefCell<Option<tokio::task::JoinHandle<()>>>,
    gauge: ConnectionGauge,
    /// Counts connection attempts under the endpoint's name.
    metrics: Rc<WorkerMetrics>,
    metrics_index: usize,
}

struct Idle<B> {
    sender: http1::SendRequest<B>,
    since: Instant,
    count: ConnectionCount,
}

/// An HTTP/2 connection that all requests go on.
struct Shared<B> {
    sender: http2::SendRequest<B>,
    used: Instant,
}

impl<B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static> Pool<B> {
    /// Makes an empty pool. `metrics_index` is the endpoint's place in the worker's metrics.
    pub fn new(endpoint: Arc<Endpoint>, metrics: Rc<WorkerMetrics>, metrics_index: usize) -> Self {
        Self(Rc::new(Inner {
            settings: endpoint.settings().pool,
            endpoint,
            idle: RefCell::default(),
            shared: RefCell::default(),
            swept: RefCell::default(),
            gauge: metrics.connections(metrics_index),
            metrics,
            metrics_index,
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

    /// Returns an idle connection, or opens one. With HTTP/2 it is the one connection.
    ///
    /// # Errors
    /// [`ConnectError`] when there is none and none can be opened.
    ///
    /// # Cancel safety
    /// Safe: what was begun is closed.
    pub async fn lease(&self) -> Result<Lease<B>, ConnectError> {
        let ready = match self.0.endpoint.settings().http_version {
            HttpVersion::Http1 => self.take_idle(),
            HttpVersion::Http2 => self.share(),
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
            match (self.0.endpoint.connector.connect(version).await?, version) {
                (Connected::Plain(io), HttpVersion::Http1) => self.start_http1(io).await,
                (Connected::Tls(io), HttpVersion::Http1) => self.start_http1(io).await,
                (Connected::Plain(io), HttpVersion::Http2) => self.start_http2(io).await,
                (Connected::Tls(io), HttpVersion::Http2) => self.start_http2(io).await,
            }
        });
        let lease = connected.await.map(|sender| Lease { sender, reused: false, pool: self.clone() });
        self.0.metrics.upstream_connected(self.0.metrics_index, lease.is_ok());
        lease
    }

    async fn start_http1(&self, io: impl Read + Write + Unpin + 'static) -> Result<Sender<B>, ConnectError> {
        let (sender, connection) =
            http1::Builder::new().max_buf_size(BUFFER).handshake(io).await.map_err(ConnectError::Http)?;
        // Ends when the sender is dropped or the endpoint closes; whoever waits for an answer is told.
        tokio::task::spawn_local(async move {
            if let Err(err) = connection.await {
                tracing::debug!(error = %err, "a connection to an endpoint ended badly");
            }
        });
        Ok(Sender::Http1 { sender, count: self.0.gauge.count(ConnectionState::Active) })
    }

    async fn start_http2(&self, io: impl Read + Write + Unpin + 'static) -> Result<Sender<B>, ConnectError> {
        let mut http = http2::Builder::new(OnThisThread);
        // An endpoint that vanished is noticed, whether or not requests wait for it.
        http.timer(TokioTimer::new()).keep_alive_interval(PING).keep_alive_while_idle(true);
        let (sender, connection) = http.handshake(io).await.map_err(ConnectError::Http)?;
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
        Ok(self.http2(sender))
    }

    fn http2(&self, sender: http2::SendRequest<B>) -> Sender<B> {
        let uri = self.0.endpoint.connector.uri();
        let scheme = uri.scheme().cloned().unwrap_or(Scheme::HTTPS);
        let authority = uri.authority().cloned().unwrap_or_else(|| Authority::from_static("unknown"));
        Sender::Http2 { sender, scheme, authority }
    }

    fn share(&self) -> Option<Lease<B>> {
        let mut shared = self.0.shared.borrow_mut();
        let shared = shared.as_mut().filter(|shared| !shared.sender.is_closed())?;
        shared.used = Instant::now();
        Some(Lease { sender: self.http2(shared.sender.clone()), reused: true, pool: self.clone() })
    }

    fn take_idle(&self) -> Option<Lease<B>> {
        let mut idle = self.0.idle.borrow_mut();
        let oldest = Instant::now().checked_sub(self.0.settings.idle_timeout);
        let is_fresh = |idle: &Idle<B>| oldest.is_none_or(|oldest| idle.since > oldest);
        // Closed ones in the middle are left to the sweep.
        while idle.last().is_some_and(|last| last.sender.is_closed()) {
            idle.pop();
        }
        // One that has just come back may not have noticed the end of its answer yet; the next one has.
        let place = idle.iter().rposition(|idle| idle.sender.is_ready())?;
        if !idle.get(place).is_some_and(is_fresh) {
            return None;
        }
        let Idle { sender, mut count, .. } = idle.remove(place);
        count.set(ConnectionState::Active);
        Some(Lease { sender: Sender::Http1 { sender, count }, reused: true, pool: self.clone() })
    }

    fn give_back(&self, sender: http1::SendRequest<B>, mut count: ConnectionCount) {
        let mut idle = self.0.idle.borrow_mut();
        if sender.is_closed() || idle.len() >= self.0.settings.max_idle_per_worker {
            return;
        }
        count.set(ConnectionState::Idle);
        idle.push(Idle { sender, since: Instant::now(), count });
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
                idle.retain(|idle| idle.since.elapsed() < pool.settings.idle_timeout && !idle.sender.is_closed());
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

/// A connection in use. Dropping it closes the connection if it is HTTP/1.1; [`Lease::finished`] gives it back.
pub struct Lease<B> {
    sender: Sender<B>,
    reused: bool,
    pool: Pool<B>,
}

impl<B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static> Lease<B> {
    /// Whether the connection carried a request before. Such a one may have been closed by the endpoint a moment ago.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends a request, and returns what waits for the head of its answer.
    ///
    /// # Errors
    /// [`SendError`](super::SendError); it has the request if nothing of it was written.
    ///
    /// # Cancel safety
    /// Not safe: the request may have been received.
    pub fn send(&mut self, request: Request<B>) -> Sending<B> {
        self.sender.send(request)
    }

    /// Gives the connection back, once the answer's body has ended.
    pub fn finished(self) {
        match self.sender {
            Sender::Http1 { sender, count } => self.pool.give_back(sender, count),
            Sender::Http2 { .. } => {}
        }
    }
}

impl<B> fmt::Debug for Lease<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("pool", &self.pool).field("reused", &self.reused).finish_non_exhaustive()
    }
}

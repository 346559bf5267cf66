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
use http::{Request, Response};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1;
use tokio::time::Instant;

use super::connect::Connected;
use super::{ConnectError, Endpoint, PoolSettings};
use crate::metrics::{ConnectionCount, ConnectionGauge, ConnectionState, WorkerMetrics};

/// The most that is buffered of one answer's head and of data on its way. The service's answers are small.
const BUFFER: usize = 128 * 1024;
/// How often idle connections are looked through.
const SWEEP: Duration = Duration::from_secs(5);

/// One worker's connections to one endpoint. Cloning shares it.
pub struct Pool<B>(Rc<Inner<B>>);

struct Inner<B> {
    endpoint: Arc<Endpoint>,
    settings: PoolSettings,
    /// The most recently used last.
    idle: RefCell<Vec<Idle<B>>>,
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

impl<B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static> Pool<B> {
    /// Makes an empty pool. `metrics_index` is the endpoint's place in the worker's metrics.
    pub fn new(endpoint: Arc<Endpoint>, metrics: Rc<WorkerMetrics>, metrics_index: usize) -> Self {
        Self(Rc::new(Inner {
            settings: endpoint.settings().pool,
            endpoint,
            idle: RefCell::default(),
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

    /// Returns an idle connection, or opens one.
    ///
    /// # Errors
    /// [`ConnectError`] when there is none and none can be opened.
    ///
    /// # Cancel safety
    /// Safe: what was begun is closed.
    pub async fn lease(&self) -> Result<Lease<B>, ConnectError> {
        match self.take_idle() {
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
            let connected = self.0.endpoint.connector.connect().await?;
            match connected {
                Connected::Plain(io) => self.start_http(io).await,
                Connected::Tls(io) => self.start_http(io).await,
            }
        });
        let lease = connected.await;
        self.0.metrics.upstream_connected(self.0.metrics_index, lease.is_ok());
        lease
    }

    async fn start_http(
        &self,
        io: impl hyper::rt::Read + hyper::rt::Write + Unpin + 'static,
    ) -> Result<Lease<B>, ConnectError> {
        let (sender, connection) =
            http1::Builder::new().max_buf_size(BUFFER).handshake(io).await.map_err(ConnectError::Http)?;
        // Ends when the sender is dropped or the endpoint closes; whoever waits for an answer is told.
        tokio::task::spawn_local(async move {
            if let Err(err) = connection.await {
                tracing::debug!(error = %err, "a connection to an endpoint ended badly");
            }
        });
        let count = self.0.gauge.count(ConnectionState::Active);
        Ok(Lease { sender, count, reused: false, pool: self.clone() })
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
        Some(Lease { sender, count, reused: true, pool: self.clone() })
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
                if idle.is_empty() {
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

/// A connection in use. Dropping it closes the connection; [`Lease::finished`] gives it back.
pub struct Lease<B> {
    sender: http1::SendRequest<B>,
    count: ConnectionCount,
    reused: bool,
    pool: Pool<B>,
}

impl<B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static> Lease<B> {
    /// Whether the connection carried a request before. Such a one may have been closed by the endpoint a moment ago.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// # Errors
    /// [`SendError`]; it has the request if nothing of it was written.
    ///
    /// # Cancel safety
    /// Not safe: the request may have been received.
    pub async fn send(&mut self, request: Request<B>) -> Result<Response<Incoming>, SendError<B>> {
        self.sender
            .try_send_request(request)
            .await
            .map_err(|mut err| SendError { unsent: err.take_message(), source: err.into_error() })
    }

    /// Gives the connection back, once the answer's body has ended.
    pub fn finished(self) {
        self.pool.give_back(self.sender, self.count);
    }
}

impl<B> fmt::Debug for Lease<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease").field("pool", &self.pool).field("reused", &self.reused).finish_non_exhaustive()
    }
}

/// A request that got no answer.
#[derive(Debug)]
pub struct SendError<B> {
    /// The request, if nothing of it was written to the connection.
    pub unsent: Option<Request<B>>,
    /// What went wrong.
    pub source: hyper::Error,
}

//! A worker's request handler. It follows the configuration in force and flushes the worker's counts on request.

use std::cell::RefCell;
use std::fmt;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use http::{Request, Response};

use super::pipeline::Proxy;
use super::response_body::ResponseBody;
use super::snapshot::Snapshot;
use crate::metrics::{Metrics, ProxyProtocolError, WorkerMetrics};
use crate::runbook::{Condition, Section};
use crate::serve::{CallerBody, Handler, ListenerId, Peer};
use crate::signalr::Operation;
use crate::tail::Tail;
use crate::write_batch::WriteBatch;

/// A worker's request handler. Created on the worker's thread, inside its runtime.
pub struct WorkerProxy(Rc<Configurations>);

/// The configurations that a worker uses.
struct Configurations {
    latest: Arc<ArcSwap<Snapshot>>,
    metrics: Arc<Metrics>,
    worker_metrics: Rc<WorkerMetrics>,
    write_batch: WriteBatch,
    tail: Arc<Tail>,
    current: RefCell<Rc<Proxy>>,
    /// For each closed listener with open connections: the last configuration that had it.
    former: RefCell<Vec<(ListenerId, Rc<Proxy>)>>,
}

impl WorkerProxy {
    /// Creates the handler of one worker. It follows the configuration in `latest`. Writes to endpoints go through
    /// `write_batch`. `tail` gets summaries of requests while it has readers.
    pub fn new(
        latest: Arc<ArcSwap<Snapshot>>,
        metrics: Arc<Metrics>,
        tail: Arc<Tail>,
        write_batch: &WriteBatch,
    ) -> Self {
        let worker_metrics = Rc::new(WorkerMetrics::new(&metrics, Operation::ALL.map(Operation::name)));
        let current = Proxy::new(latest.load_full(), &metrics, &worker_metrics, write_batch, &tail, None);
        let mut flush_requests = metrics.register_worker();
        let configurations = Rc::new(Configurations {
            latest,
            metrics,
            worker_metrics,
            write_batch: write_batch.clone(),
            tail,
            current: RefCell::new(Rc::new(current)),
            former: RefCell::default(),
        });
        let flushed = Rc::clone(&configurations);
        // Ends with the worker.
        tokio::task::spawn_local(async move {
            while let Some(done) = flush_requests.recv().await {
                flushed.flush();
                let _receiver_is_gone = done.send(());
            }
        });
        Self(configurations)
    }
}

impl Drop for WorkerProxy {
    fn drop(&mut self) {
        // The counts at a stop are read once the workers have ended. The task that flushes may live a little longer.
        self.0.worker_metrics.flush();
    }
}

impl Configurations {
    /// Returns this worker's state under the configuration in force. A request keeps the one that it began with.
    fn current(&self) -> Rc<Proxy> {
        let latest = self.latest.load();
        let current = Rc::clone(&self.current.borrow());
        if Arc::ptr_eq(&latest, current.snapshot()) { current } else { self.adopt(Arc::clone(&latest), &current) }
    }

    /// Returns this worker's state under the configuration for calls of a listener: the one in force, or the last one
    /// that had the listener while connections of a closed listener end. Never applies the rules of another listener.
    fn for_listener(&self, listener: ListenerId) -> Rc<Proxy> {
        let current = self.current();
        if current.snapshot().index_of(listener).is_some() { current } else { self.former(listener).unwrap_or(current) }
    }

    #[cold]
    fn former(&self, listener: ListenerId) -> Option<Rc<Proxy>> {
        let former = self.former.borrow();
        former.iter().find(|(gone, _)| *gone == listener).map(|(_, proxy)| Rc::clone(proxy))
    }

    #[cold]
    fn adopt(&self, latest: Arc<Snapshot>, current: &Rc<Proxy>) -> Rc<Proxy> {
        let began = Instant::now();
        let Self { metrics, worker_metrics, write_batch, tail, .. } = self;
        let next = Rc::new(Proxy::new(latest, metrics, worker_metrics, write_batch, tail, Some(current)));
        let is_gone = |listener: &&ListenerId| next.snapshot().index_of(**listener).is_none();
        let gone = current.snapshot().listeners.iter().filter(is_gone);
        self.former.borrow_mut().extend(gone.map(|listener| (*listener, Rc::clone(current))));
        self.current.replace(Rc::clone(&next));
        tracing::debug!(took_us = began.elapsed().as_micros(), "a worker adopted the new configuration");
        next
    }

    /// Flushes the worker's counts. A worker without requests since a reload adopts the new configuration here.
    fn flush(&self) {
        self.current().report_budgets();
        self.worker_metrics.flush();
    }
}

impl Handler for WorkerProxy {
    type Body = ResponseBody;

    fn handle(
        &self,
        peer: &Rc<Peer>,
        request: Request<CallerBody>,
    ) -> impl Future<Output = Response<ResponseBody>> + 'static {
        self.0.for_listener(peer.listener).begin(peer, request)
    }

    /// Adopts the new configuration now, so that calls of a new listener find it even if the listener is removed first.
    fn listeners_changed(&self) {
        self.0.current();
    }

    fn proxy_protocol_refused(&self, listener: ListenerId, peer: Option<SocketAddr>, error: ProxyProtocolError) {
        let current = self.0.for_listener(listener);
        let Some(listener) = current.snapshot().listener_name(listener) else { return };
        self.0.worker_metrics.proxy_protocol_refused(listener, error);
        let remedy = match error {
            ProxyProtocolError::Untrusted => {
                "add the proxy's address to `trusted_proxies` of the listener, or stop the peer: it is none of them"
            }
            ProxyProtocolError::Missing => "turn the PROXY protocol on in the proxy, or `proxy_protocol` off",
            ProxyProtocolError::Malformed => "see the proxy's configuration: its header does not follow the protocol",
            ProxyProtocolError::Timeout => {
                "see what delays the proxy: its header did not arrive within `timeouts.idle`"
            }
        };
        let peer = peer.map(tracing::field::display);
        tracing::warn!(
            listener,
            peer,
            error.kind = error.label(),
            side = "caller",
            remedy,
            runbook = %Section::Condition(Condition::ProxyProtocol),
            "a connection without a valid PROXY header was closed"
        );
    }

    fn listener_ended(&self, listener: ListenerId) {
        // A worker that has had no calls since the reload adopts the new configuration here.
        self.0.current();
        self.0.former.borrow_mut().retain(|(gone, _)| *gone != listener);
    }
}

impl fmt::Debug for WorkerProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerProxy").field("current", &self.0.current).finish_non_exhaustive()
    }
}

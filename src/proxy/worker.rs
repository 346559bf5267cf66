//! A worker's handler: it follows the configuration in force and hands its counts over when asked.

use std::cell::RefCell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::{Request, Response};
use hyper::body::Incoming;

use super::retry::Budget;
use super::{Proxy, ResponseBody, Snapshot};
use crate::endpoint::{Endpoint, Pool};
use crate::metrics::{Metrics, Names, WorkerMetrics};
use crate::serve::{Handler, Peer};
use crate::signalr::Operation;

/// A worker's handler. Made on the worker's thread, inside its runtime.
pub struct WorkerProxy {
    latest: Arc<ArcSwap<Snapshot>>,
    metrics: Arc<Metrics>,
    current: Rc<RefCell<Rc<Proxy>>>,
}

impl WorkerProxy {
    /// Makes the handler of one worker, which follows what `latest` holds.
    pub fn new(latest: Arc<ArcSwap<Snapshot>>, metrics: Arc<Metrics>) -> Self {
        let current = Rc::new(RefCell::new(Rc::new(Proxy::new(latest.load_full(), &metrics, &[]))));
        let mut flush_requests = metrics.register_worker();
        let flushed = Rc::clone(&current);
        // Ends with the metrics, or with the worker.
        tokio::task::spawn_local(async move {
            while let Some(done) = flush_requests.recv().await {
                flushed.borrow().flush();
                let _nobody_waits_any_more = done.send(());
            }
        });
        Self { latest, metrics, current }
    }

    /// Returns this worker's part of the configuration in force. A request keeps the one it began with.
    fn current(&self) -> Rc<Proxy> {
        let latest = self.latest.load();
        let current = Rc::clone(&self.current.borrow());
        if Arc::ptr_eq(&latest, &current.snapshot) {
            return current;
        }
        let next = Rc::new(Proxy::new(Arc::clone(&latest), &self.metrics, &current.pools));
        self.current.replace(Rc::clone(&next));
        next
    }
}

impl Handler for WorkerProxy {
    type Body = ResponseBody;

    fn handle(
        &self,
        peer: &Rc<Peer>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody>> + 'static {
        let (proxy, peer) = (self.current(), Rc::clone(peer));
        async move { proxy.handle(&peer, request).await }
    }
}

impl fmt::Debug for WorkerProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerProxy").field("current", &self.current).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Makes a worker's part of a snapshot. Endpoints that are the same as before keep their connections.
    fn new(snapshot: Arc<Snapshot>, metrics: &Metrics, before: &[Pool<super::RequestBody>]) -> Self {
        let names = Names {
            routes: snapshot.routes.routes().iter().map(|route| route.name().to_string()).collect(),
            endpoints: snapshot.endpoints.iter().map(|endpoint| endpoint.name().to_string()).collect(),
            operations: Operation::ALL.map(Operation::name).to_vec(),
        };
        let endpoint_names = names.endpoints.iter().map(|name| name.as_str().into()).collect();
        let route_names = names.routes.iter().map(|name| name.as_str().into()).collect();
        let metrics = Rc::new(WorkerMetrics::new(metrics, names));
        let pool = |(place, endpoint): (usize, &Arc<Endpoint>)| {
            let same = before.iter().find(|pool| Arc::ptr_eq(pool.endpoint(), endpoint));
            same.cloned().unwrap_or_else(|| Pool::new(Arc::clone(endpoint), Rc::clone(&metrics), place))
        };
        let pools = snapshot.endpoints.iter().enumerate().map(pool).collect();
        let budgets = snapshot.endpoints.iter().map(|_| Budget::new(snapshot.settings.retry.budget)).collect();
        Self { snapshot, pools, budgets, metrics, endpoint_names, route_names }
    }

    fn flush(&self) {
        self.metrics.flush();
        self.pools.iter().for_each(|pool| pool.gauge().flush());
    }
}

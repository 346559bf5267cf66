//! The state of the endpoints that a worker has used, which it keeps from one configuration to the next.
//!
//! Configurations find it by the identity of the endpoint, which is the same as long as its settings are. An endpoint that was not
//! used has none, so that a worker's work at a reload and its memory do not grow with the number of endpoints.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;

use super::body::RequestBody;
use super::upstream::UpstreamState;
use crate::endpoint::{Endpoint, IdleLimit, WorkerPools};
use crate::metrics::WorkerMetrics;
use crate::write_batch::WriteBatch;

/// The number of states that are examined after a reload before other tasks run. Chosen: it takes less than 100 us.
const CHUNK: usize = 256;

/// The state of the endpoints that one worker has used.
pub(super) struct Upstreams {
    pools: Rc<WorkerPools<RequestBody>>,
    /// By [`identity`]. A state keeps its endpoint alive, so identities are unique.
    used: RefCell<HashMap<usize, Rc<UpstreamState>>>,
}

impl Upstreams {
    /// Starts without any state. Must be called on the worker's thread, inside its runtime.
    pub(super) fn start(
        metrics: &Rc<WorkerMetrics>,
        write_batch: &WriteBatch,
        idle_limit: &Arc<IdleLimit>,
    ) -> Rc<Self> {
        Rc::new(Self { pools: WorkerPools::start(metrics, write_batch, idle_limit), used: RefCell::default() })
    }

    /// Returns what the pools of the worker share.
    pub(super) fn pools(&self) -> &WorkerPools<RequestBody> {
        &self.pools
    }

    /// Returns the state of an endpoint. It is new if the worker has not used the endpoint before.
    pub(super) fn state(&self, endpoint: &Arc<Endpoint>) -> Rc<UpstreamState> {
        let make = || Rc::new(UpstreamState::new(endpoint, &self.pools));
        if endpoint.is_retired() {
            // A request of an earlier configuration: the state ends with that configuration.
            return self.used.borrow_mut().remove(&identity(endpoint)).unwrap_or_else(make);
        }
        Rc::clone(self.used.borrow_mut().entry(identity(endpoint)).or_insert_with(make))
    }

    /// Drops the state of retired endpoints, in a task that lets other tasks run. Connections close once no request uses them.
    pub(super) fn drop_retired(self: &Rc<Self>) {
        let mut left: Vec<usize> = self.used.borrow().keys().copied().collect();
        if left.is_empty() {
            return;
        }
        let upstreams = Rc::clone(self);
        // The task ends when it has examined all, or with the worker.
        tokio::task::spawn_local(async move {
            while !left.is_empty() {
                let chunk = left.split_off(left.len().saturating_sub(CHUNK));
                for identity in chunk {
                    upstreams.drop_if_retired(identity);
                }
                tokio::task::yield_now().await;
            }
        });
    }

    fn drop_if_retired(&self, identity: usize) {
        let is_retired = self.used.borrow().get(&identity).is_some_and(|state| state.endpoint().is_retired());
        if is_retired {
            let removed = self.used.borrow_mut().remove(&identity);
            drop(removed);
        }
    }

    /// Reports all retry budgets to the worker's metrics.
    pub(super) fn report_budgets(&self, metrics: &WorkerMetrics) {
        self.used.borrow().values().for_each(|state| state.report_budget(metrics));
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upstreams").field("used", &self.used.borrow().len()).finish_non_exhaustive()
    }
}

/// Returns a number that no other endpoint has while this one exists.
fn identity(endpoint: &Arc<Endpoint>) -> usize {
    Arc::as_ptr(endpoint).addr()
}

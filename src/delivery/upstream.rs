//! An endpoint as one worker sees it under one configuration: its connections, its concurrency limit, its retry budget.

use std::rc::Rc;
use std::sync::Arc;

use super::body::RequestBody;
use super::retry::RetryBudget;
use crate::endpoint::{Endpoint, Pool, Recycler};
use crate::limits::ConcurrencyLimit;
use crate::metrics::{Label, WorkerMetrics};
use crate::write_batch::WriteBatch;

/// An endpoint, for one worker.
#[derive(Clone, Debug)]
pub struct Upstream {
    /// Its index in the configuration.
    pub(super) index: usize,
    /// Its name, shared with log records.
    pub(super) name: Rc<str>,
    pub(super) pool: Pool<RequestBody>,
    /// Shared by all workers; `None` if the endpoint has no limit.
    pub(super) limit: Option<Arc<ConcurrencyLimit>>,
    pub(super) budget: Rc<RetryBudget>,
}

impl Upstream {
    /// Returns an endpoint without connections and with a full budget; `share` is the retry budget per request.
    pub(super) fn new(
        index: usize,
        endpoint: &Arc<Endpoint>,
        share: f32,
        metrics: &Rc<WorkerMetrics>,
        write_batch: &WriteBatch,
        recycler: &Rc<Recycler>,
    ) -> Self {
        let pool = Pool::new(Arc::clone(endpoint), Rc::clone(metrics), write_batch.clone(), Rc::clone(recycler));
        Self {
            index,
            name: endpoint.name().as_str().into(),
            pool,
            limit: None,
            budget: Rc::new(RetryBudget::new(share)),
        }
    }

    /// Returns the same endpoint at another index of another configuration. It keeps its connections and budget.
    pub(super) fn moved_to(&self, index: usize) -> Self {
        Self { index, ..self.clone() }
    }

    /// Returns the endpoint, with another concurrency limit.
    pub(super) fn limited(self, limit: Option<&Arc<ConcurrencyLimit>>) -> Self {
        Self { limit: limit.cloned(), ..self }
    }

    /// Returns the endpoint, which all workers share.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.pool.endpoint()
    }

    /// Returns the label of its metrics.
    pub(super) fn label(&self) -> &Label {
        self.endpoint().label()
    }

    /// Returns its index in the configuration.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Reports its retry budget to the worker's metrics.
    pub(super) fn report_budget(&self, metrics: &WorkerMetrics) {
        metrics.retry_budget(self.label(), self.budget.level());
    }
}

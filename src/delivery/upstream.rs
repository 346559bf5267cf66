//! An endpoint as one worker sees it under one configuration: its connections, its concurrency limit, its retry budget.

use std::rc::Rc;
use std::sync::Arc;

use super::body::RequestBody;
use super::retry::RetryBudget;
use crate::endpoint::{Endpoint, Pool, Recycler};
use crate::limits::ConcurrencyLimit;
use crate::metrics::{ConnectionGauge, RetryBudgetShare, WorkerMetrics};
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
    budget_gauge: Rc<RetryBudgetShare>,
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
        let pool = Pool::new(Arc::clone(endpoint), Rc::clone(metrics), index, write_batch.clone(), Rc::clone(recycler));
        Self {
            index,
            name: endpoint.name().as_str().into(),
            pool,
            limit: None,
            budget: Rc::new(RetryBudget::new(share)),
            budget_gauge: Rc::new(metrics.retry_budget(index)),
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

    /// Returns its index in the configuration.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns the gauge of its connections.
    pub(super) fn connection_gauge(&self) -> &ConnectionGauge {
        self.pool.gauge()
    }

    /// Flushes its counts to the metrics that all workers share.
    pub(super) fn flush(&self) {
        self.pool.gauge().flush();
        self.budget_gauge.set(self.budget.level());
    }

    /// Sets its budget to zero in the metrics, unless another configuration also has the endpoint.
    pub(super) fn retire(&self) {
        if Rc::strong_count(&self.budget_gauge) == 1 {
            self.budget_gauge.set(0.0);
        }
    }
}

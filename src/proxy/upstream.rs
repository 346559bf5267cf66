//! An endpoint as one worker sees it under one configuration: its connections, its retry budget, its name.

use std::rc::Rc;
use std::sync::Arc;

use super::body::RequestBody;
use super::retry::Budget;
use crate::endpoint::{Endpoint, Pool, SpareMemory};
use crate::metrics::{RetryBudgetShare, WorkerMetrics};
use crate::write_batch::WriteBatch;

/// An endpoint, for one worker.
#[derive(Clone, Debug)]
pub(super) struct Upstream {
    /// Its place in the configuration.
    pub(super) place: usize,
    /// Its name, as the log wants it.
    pub(super) name: Rc<str>,
    pub(super) pool: Pool<RequestBody>,
    pub(super) budget: Rc<Budget>,
    budget_shown: Rc<RetryBudgetShare>,
}

impl Upstream {
    /// Begins with no connection and a full budget; `share` is that of retries.
    pub(super) fn new(
        place: usize,
        endpoint: &Arc<Endpoint>,
        share: f32,
        metrics: &Rc<WorkerMetrics>,
        write_batch: &WriteBatch,
        spare: &Rc<SpareMemory>,
    ) -> Self {
        let pool = Pool::new(Arc::clone(endpoint), Rc::clone(metrics), place, write_batch.clone(), Rc::clone(spare));
        Self {
            place,
            name: endpoint.name().as_str().into(),
            pool,
            budget: Rc::new(Budget::new(share)),
            budget_shown: Rc::new(metrics.retry_budget(place)),
        }
    }

    /// Returns the same endpoint at another place of another configuration. Connections and budget go on.
    pub(super) fn moved_to(&self, place: usize) -> Self {
        Self { place, ..self.clone() }
    }

    /// Returns the endpoint, which all workers share.
    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        self.pool.endpoint()
    }

    /// Hands its counts over.
    pub(super) fn flush(&self) {
        self.pool.gauge().flush();
        self.budget_shown.set(self.budget.left());
    }

    /// Shows no budget any more, unless another configuration has the endpoint, too.
    pub(super) fn retire(&self) {
        if Rc::strong_count(&self.budget_shown) == 1 {
            self.budget_shown.set(0.0);
        }
    }
}

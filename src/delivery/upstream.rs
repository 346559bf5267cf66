//! An endpoint as one worker sees it under one configuration: its connections, its concurrency limit, its retry budget.

use std::rc::Rc;
use std::sync::Arc;

use super::body::RequestBody;
use super::retry::RetryBudget;
use crate::endpoint::{Endpoint, Pool, WorkerPools};
use crate::limits::{ConcurrencyLimit, Limits, RateLimit};
use crate::metrics::{Label, WorkerMetrics};

/// An endpoint, for one worker under one configuration.
#[derive(Debug)]
pub struct Upstream {
    /// Its index in the configuration.
    pub(super) index: usize,
    /// Shared by all workers; `None` if the endpoint has no limit.
    pub(super) limit: Option<Arc<ConcurrencyLimit>>,
    /// Shared by all workers; `None` if the endpoint has no limit.
    pub(super) rate: Option<Arc<RateLimit>>,
    state: Rc<UpstreamState>,
}

impl Upstream {
    /// Returns the endpoint at an index of a configuration. `state` may come from an earlier configuration.
    pub(super) fn new(index: usize, limits: &Limits, state: Rc<UpstreamState>) -> Self {
        let (limit, rate) = (limits.endpoint_concurrency(index).cloned(), limits.endpoint_rate(index).cloned());
        Self { index, limit, rate, state }
    }

    /// Returns the endpoint, which all workers share.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        self.state.endpoint()
    }

    /// Returns the label of its metrics.
    pub(super) fn label(&self) -> &Label {
        self.endpoint().label()
    }

    /// Returns its index in the configuration.
    pub fn index(&self) -> usize {
        self.index
    }

    /// Returns its name, shared with log records.
    pub(super) fn name(&self) -> &Rc<str> {
        &self.state.name
    }

    /// Returns its connections.
    pub(super) fn pool(&self) -> &Pool<RequestBody> {
        &self.state.pool
    }

    /// Returns its retry budget.
    pub(super) fn budget(&self) -> &RetryBudget {
        &self.state.budget
    }
}

/// What a worker keeps of an endpoint from one configuration to the next.
#[derive(Debug)]
pub(super) struct UpstreamState {
    name: Rc<str>,
    pool: Pool<RequestBody>,
    budget: RetryBudget,
}

impl UpstreamState {
    /// Returns the state of an endpoint that was not used before: no connections and a full budget.
    pub(super) fn new(endpoint: &Arc<Endpoint>, pools: &Rc<WorkerPools<RequestBody>>) -> Self {
        let pool = Pool::new(Arc::clone(endpoint), Rc::clone(pools));
        Self { name: endpoint.name().as_str().into(), pool, budget: RetryBudget::new() }
    }

    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        self.pool.endpoint()
    }

    pub(super) fn budget(&self) -> &RetryBudget {
        &self.budget
    }

    /// Reports its retry budget to the worker's metrics.
    pub(super) fn report_budget(&self, metrics: &WorkerMetrics) {
        metrics.retry_budget(self.endpoint().label(), self.budget.level());
    }
}

//! One worker's state for deliveries under one configuration.

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;

use super::idempotency::IdempotencyStore;
use super::settings::DeliverySettings;
use super::upstream::Upstream;
use crate::endpoint::{Endpoint, Recycler};
use crate::limits::{DeadlineTimer, Limits};
use crate::metrics::WorkerMetrics;
use crate::write_batch::WriteBatch;

/// One worker's state for deliveries under one configuration.
#[derive(Debug)]
pub struct WorkerDelivery {
    pub(super) settings: DeliverySettings,
    /// In configured order.
    pub(super) upstreams: Vec<Upstream>,
    pub(super) idempotency: Arc<IdempotencyStore>,
    pub(super) timer: DeadlineTimer,
    pub(super) metrics: Rc<WorkerMetrics>,
    recycler: Rc<Recycler>,
}

/// What all workers share of one configuration.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryParts<'a> {
    /// How calls are delivered.
    pub settings: DeliverySettings,
    /// The endpoints, in configured order.
    pub endpoints: &'a [Arc<Endpoint>],
    /// The limits, among them those of the endpoints.
    pub limits: &'a Limits,
    /// The calls that carried an idempotency key.
    pub idempotency: &'a Arc<IdempotencyStore>,
}

impl WorkerDelivery {
    /// Creates a worker's delivery. Endpoints that are the same as `before` keep their connections and retry budgets.
    pub fn new(
        parts: DeliveryParts<'_>,
        metrics: &Rc<WorkerMetrics>,
        write_batch: &WriteBatch,
        before: Option<&Self>,
    ) -> Self {
        let DeliveryParts { settings, endpoints, limits, idempotency } = parts;
        let recycler = before.map_or_else(Rc::default, |before| Rc::clone(&before.recycler));
        let share = settings.retry.budget;
        let upstream = |(index, endpoint): (usize, &Arc<Endpoint>)| {
            let mut known = before.iter().flat_map(|before| &before.upstreams);
            let upstream = match known.find(|known| Arc::ptr_eq(known.endpoint(), endpoint)) {
                Some(known) => {
                    known.budget.set_share(share);
                    known.moved_to(index)
                }
                None => Upstream::new(index, endpoint, share, metrics, write_batch, &recycler),
            };
            upstream.limited(limits.endpoint_concurrency(index))
        };
        Self {
            settings,
            upstreams: endpoints.iter().enumerate().map(upstream).collect(),
            idempotency: Arc::clone(idempotency),
            timer: DeadlineTimer::default(),
            metrics: Rc::clone(metrics),
            recycler,
        }
    }

    /// Keeps the memory of headers for the next response.
    pub fn recycle(&self, headers: HeaderMap) {
        self.recycler.recycle_map(headers);
    }

    /// Reports the endpoints' retry budgets to the worker's metrics.
    pub fn report_budgets(&self) {
        self.upstreams.iter().for_each(|upstream| upstream.report_budget(&self.metrics));
    }
}

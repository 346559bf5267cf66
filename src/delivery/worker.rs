//! One worker's state for deliveries under one configuration.

use std::cell::OnceCell;
use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;

use super::settings::DeliverySettings;
use super::upstream::Upstream;
use super::upstreams::Upstreams;
use crate::endpoint::{Endpoint, IdleLimit};
use crate::idempotency::IdempotencyStore;
use crate::limits::{DeadlineTimer, Limits};
use crate::metrics::WorkerMetrics;
use crate::write_batch::WriteBatch;

/// One worker's state for deliveries under one configuration.
#[derive(Debug)]
pub struct WorkerDelivery {
    pub(super) settings: DeliverySettings,
    /// In configured order.
    endpoints: Arc<[Arc<Endpoint>]>,
    limits: Arc<Limits>,
    /// The endpoints that were used under this configuration, by index.
    used: Box<[OnceCell<Box<Upstream>>]>,
    /// The state of the endpoints that were used under any configuration.
    upstreams: Rc<Upstreams>,
    pub(super) idempotency: Arc<IdempotencyStore>,
    pub(super) timer: DeadlineTimer,
    pub(super) metrics: Rc<WorkerMetrics>,
}

/// What all workers share of one configuration.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryParts<'a> {
    /// How calls are delivered.
    pub settings: DeliverySettings,
    /// The endpoints, in configured order.
    pub endpoints: &'a Arc<[Arc<Endpoint>]>,
    /// The limits, among them those of the endpoints.
    pub limits: &'a Arc<Limits>,
    /// The maximum number of idle connections to endpoints, the same for all configurations.
    pub idle_limit: &'a Arc<IdleLimit>,
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
        let DeliveryParts { settings, endpoints, limits, idle_limit, idempotency } = parts;
        let upstreams = match before {
            Some(before) => {
                before.upstreams.drop_retired();
                Rc::clone(&before.upstreams)
            }
            None => Upstreams::start(metrics, write_batch, idle_limit),
        };
        Self {
            settings,
            endpoints: Arc::clone(endpoints),
            limits: Arc::clone(limits),
            used: endpoints.iter().map(|_| OnceCell::new()).collect(),
            upstreams,
            idempotency: Arc::clone(idempotency),
            timer: DeadlineTimer::default(),
            metrics: Rc::clone(metrics),
        }
    }

    /// Returns the endpoint at an index of the configuration.
    pub(super) fn endpoint(&self, index: usize) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(index)
    }

    /// Returns the endpoint at an index of the configuration, with this worker's connections to it.
    pub(super) fn upstream(&self, index: usize) -> Option<&Upstream> {
        let slot = self.used.get(index)?;
        match slot.get() {
            Some(upstream) => Some(upstream),
            None => self.first_use(index, slot),
        }
    }

    #[cold]
    fn first_use<'a>(&self, index: usize, slot: &'a OnceCell<Box<Upstream>>) -> Option<&'a Upstream> {
        let endpoint = self.endpoints.get(index)?;
        let state = self.upstreams.state(endpoint);
        state.budget().set_share(self.settings.retry.budget);
        Some(slot.get_or_init(|| Box::new(Upstream::new(index, &self.limits, state))))
    }

    /// Keeps the memory of headers for the next response.
    pub fn recycle(&self, headers: HeaderMap) {
        self.upstreams.pools().recycle(headers);
    }

    /// Reports the endpoints' retry budgets to the worker's metrics.
    pub fn report_budgets(&self) {
        self.upstreams.report_budgets(&self.metrics);
    }
}

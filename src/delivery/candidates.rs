//! Which endpoints of a route are tried, and in which order. Does not decide when to try the next.

use super::upstream::Upstream;
use super::worker::WorkerDelivery;
use crate::endpoint::{CallClass, EndpointRole, Permit};
use crate::route::{Choice, Order, WhenUnavailable};
use crate::signalr::{FanOutKind, Operation};

/// Iterates over the endpoints that may be tried: those whose circuit breaker admits the call, or the first one if none
/// does and the route sends anyway. Operations that any single endpoint can carry out try primaries before secondaries,
/// like the Management SDK.
pub(super) struct Candidates<'a> {
    worker: &'a WorkerDelivery,
    choice: &'a Choice<'a>,
    order: Order<'a>,
    /// The role that endpoints must have; any if `None`.
    role: Option<EndpointRole>,
    class: CallClass,
    has_tried: bool,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(worker: &'a WorkerDelivery, choice: &'a Choice<'a>, operation: Operation) -> Self {
        let role = (operation.fan_out_kind() == FanOutKind::SingleEndpoint).then_some(EndpointRole::Primary);
        let class = CallClass::new(operation.class().index());
        Self { worker, choice, order: choice.order(), role, class, has_tried: false }
    }

    /// Returns an upper bound of the number of endpoints that follow.
    pub(super) fn left(&self) -> usize {
        self.order.left()
    }

    fn next_admitted(&mut self) -> Option<(&'a Upstream, Permit<'a>)> {
        let (worker, role, class) = (self.worker, self.role, self.class);
        self.order.by_ref().find_map(|index| {
            let endpoint = worker.endpoint(index)?;
            if role.is_some_and(|role| role != endpoint.settings().role) {
                return None;
            }
            let permit = endpoint.health().try_acquire(class)?;
            Some((worker.upstream(index)?, permit))
        })
    }
}

impl<'a> Iterator for Candidates<'a> {
    type Item = (&'a Upstream, Permit<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut found = self.next_admitted();
        if found.is_none() && self.role == Some(EndpointRole::Primary) {
            self.role = Some(EndpointRole::Secondary);
            self.order = self.choice.order();
            found = self.next_admitted();
        }
        let sends_anyway = !self.has_tried && self.choice.route().when_unavailable() == WhenUnavailable::Send;
        self.has_tried = true;
        if found.is_some() || !sends_anyway {
            return found;
        }
        // All circuits are open, and the route is configured to send anyway.
        self.order = self.choice.order();
        let upstream = self.worker.upstream(self.order.next()?)?;
        Some((upstream, upstream.endpoint().health().acquire_anyway(self.class)))
    }
}

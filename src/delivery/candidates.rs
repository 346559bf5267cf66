//! Which endpoints of a route are tried, and in which order. Decides nothing about when the next one's turn is.

use super::upstream::Upstream;
use crate::endpoint::{CallClass, EndpointRole, Permit};
use crate::route::{Choice, Order, WhenUnavailable};
use crate::signalr::{FanOutKind, Operation};

/// The endpoints of a route that are worth trying, one after the other. For what only one endpoint can give, primaries come
/// before secondaries, as in the Management SDK.
pub(super) struct Candidates<'a> {
    upstreams: &'a [Upstream],
    choice: &'a Choice<'a>,
    order: Order<'a>,
    /// The role that is looked for; `None` if it does not matter.
    role: Option<EndpointRole>,
    class: CallClass,
    has_tried: bool,
}

impl<'a> Candidates<'a> {
    pub(super) fn new(upstreams: &'a [Upstream], choice: &'a Choice<'a>, operation: Operation) -> Self {
        let role = (operation.fan_out_kind() == FanOutKind::SingleEndpoint).then_some(EndpointRole::Primary);
        let class = CallClass::new(operation.class().index());
        Self { upstreams, choice, order: choice.order(), role, class, has_tried: false }
    }

    /// Returns how many endpoints may still come: at most as many.
    pub(super) fn left(&self) -> usize {
        self.order.left()
    }

    fn healthy(&mut self) -> Option<(&'a Upstream, Permit<'a>)> {
        let (upstreams, role, class) = (self.upstreams, self.role, self.class);
        self.order.by_ref().find_map(|index| {
            let upstream = upstreams.get(index)?;
            let endpoint = upstream.endpoint();
            if role.is_some_and(|role| role != endpoint.settings().role) {
                return None;
            }
            Some((upstream, endpoint.health().enter(class)?))
        })
    }
}

impl<'a> Iterator for Candidates<'a> {
    type Item = (&'a Upstream, Permit<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut healthy = self.healthy();
        if healthy.is_none() && self.role == Some(EndpointRole::Primary) {
            self.role = Some(EndpointRole::Secondary);
            self.order = self.choice.order();
            healthy = self.healthy();
        }
        let sends_anyway = !self.has_tried && self.choice.route().when_unavailable() == WhenUnavailable::Send;
        self.has_tried = true;
        if healthy.is_some() || !sends_anyway {
            return healthy;
        }
        // All are out, and the route would rather try than fail.
        self.order = self.choice.order();
        let upstream = self.upstreams.get(self.order.next()?)?;
        Some((upstream, upstream.endpoint().health().enter_anyway(self.class)))
    }
}

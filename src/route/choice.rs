//! The endpoints that a route chooses for one call and the order in which they are tried. Ignores their health.

use http::{HeaderMap, HeaderName};

use super::Pick;
use super::hash::Score;
use super::table::{Route, RouteInput, Target};
use crate::signalr::Policy;

/// The header in which a caller may name one of a route's endpoints, if the route has `endpoint_header`. It is not forwarded.
pub const ENDPOINT_HEADER: HeaderName = HeaderName::from_static("signalr-gateway-endpoint");

/// Error of a caller that names an endpoint which the route does not have, or on a route that does not allow callers to name one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header {ENDPOINT_HEADER} names no endpoint that callers of this route may choose")]
pub struct EndpointNotSelectable;

/// What a route chooses for one call.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    route: &'a Route,
    /// The hash of the call's key; 0 unless the route picks by hash.
    key: u64,
    /// The endpoint that the caller named. No other may be used.
    named: Option<&'a Target>,
}

/// Whether a call is sent to one endpoint or to all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// One endpoint. The next one is tried only if the previous one did not process the call.
    One,
    /// All endpoints, whose responses are merged.
    All(Policy),
}

impl<'a> Choice<'a> {
    /// Chooses among the endpoints of `route`, which matches the call.
    ///
    /// # Errors
    /// [`EndpointNotSelectable`] if the caller named an endpoint that it may not choose.
    pub fn new(route: &'a Route, input: &RouteInput<'_>) -> Result<Self, EndpointNotSelectable> {
        let key = match route.pick() {
            Pick::Hash(by) => by.hash(input.call, input.headers),
            Pick::First | Pick::Weighted | Pick::All(_) => 0,
        };
        let named = if input.may_have_endpoint_header { named_target(route, input.headers)? } else { None };
        Ok(Self { route, key, named })
    }

    /// Returns the route.
    pub fn route(&self) -> &'a Route {
        self.route
    }

    /// Returns whether the call is sent to one endpoint or to all.
    pub fn delivery_mode(&self) -> DeliveryMode {
        match (self.route.pick(), self.named) {
            (Pick::All(policy), None) => DeliveryMode::All(*policy),
            (Pick::First | Pick::Weighted | Pick::Hash(_) | Pick::All(_), _) => DeliveryMode::One,
        }
    }

    /// Returns whether the caller named the endpoint.
    pub fn is_named_by_caller(&self) -> bool {
        self.named.is_some()
    }

    /// Returns the indexes of the endpoints that may be used, in configured order.
    pub fn endpoint_indexes(&self) -> impl Iterator<Item = usize> + 'a {
        let named = self.named.map(Target::endpoint_index);
        let all = self.route.targets().iter().map(Target::endpoint_index);
        all.filter(move |index| named.is_none_or(|named| named == *index))
    }

    /// Returns the endpoints in the order in which they are tried.
    pub fn order(&self) -> Order<'a> {
        let excluded = self.named.map_or(0, |named| {
            let others = self.route.targets().iter().enumerate();
            let others = others.filter(|(_, target)| target.endpoint_index() != named.endpoint_index());
            others.fold(0, |bits, (index, _)| bits | 1 << index)
        });
        Order { choice: *self, returned: excluded }
    }
}

/// Returns the endpoint that the caller named, if any.
fn named_target<'a>(route: &'a Route, headers: &HeaderMap) -> Result<Option<&'a Target>, EndpointNotSelectable> {
    let mut values = headers.get_all(&ENDPOINT_HEADER).iter();
    let Some(name) = values.next() else { return Ok(None) };
    let may_name = route.endpoint_header() && values.next().is_none();
    let target = route.targets().iter().find(|target| may_name && name == target.name().as_str());
    target.map(Some).ok_or(EndpointNotSelectable)
}

/// The endpoints of a choice in the order in which they are tried. Does not allocate.
#[derive(Debug)]
pub struct Order<'a> {
    choice: Choice<'a>,
    /// A bit for each target that was returned, by its index in the route. The configuration allows 32 targets.
    returned: u32,
}

impl Order<'_> {
    /// Returns the number of endpoints that are left.
    pub fn left(&self) -> usize {
        let targets = self.choice.route.targets().len();
        targets.saturating_sub(self.returned.count_ones() as usize)
    }
}

impl Iterator for Order<'_> {
    /// The index of an endpoint.
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let returned = self.returned;
        let mut left = self.choice.route.targets().iter().enumerate().filter(|(index, _)| returned & (1 << index) == 0);
        let (index, target) = match self.choice.route.pick() {
            Pick::First | Pick::All(_) => left.next()?,
            Pick::Weighted => random(left)?,
            Pick::Hash(_) => best(left, self.choice.key)?,
        };
        self.returned |= 1 << index;
        Some(target.endpoint_index())
    }
}

/// Returns one target at random, by weight.
fn random<'a>(mut left: impl Iterator<Item = (usize, &'a Target)> + Clone) -> Option<(usize, &'a Target)> {
    let total: u32 = left.clone().map(|(_, target)| target.weight()).sum();
    // `total` is 0 if no target is left.
    let mut offset = if total == 0 { 0 } else { fastrand::u32(..total) };
    left.find(|(_, target)| match offset.checked_sub(target.weight()) {
        Some(rest) => {
            offset = rest;
            false
        }
        None => true,
    })
}

/// Returns the target with the best score for a key.
fn best<'a>(left: impl Iterator<Item = (usize, &'a Target)>, key: u64) -> Option<(usize, &'a Target)> {
    let scored = left.map(|found| (Score::of(found.1.seed(), key, found.1.weight()), found));
    scored.reduce(|best, next| if next.0.beats(best.0) { next } else { best }).map(|(_, found)| found)
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;

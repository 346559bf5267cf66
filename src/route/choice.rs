//! What a route chooses for one call: its endpoints, and the order in which they are tried. Knows nothing of their health.

use http::{HeaderMap, HeaderName};

use super::Pick;
use super::hash::Score;
use super::table::{Route, RouteInput, Target};

/// The header by which a caller may name one of a route's endpoints, where the route lets it. Never goes upstream.
pub const ENDPOINT_HEADER: HeaderName = HeaderName::from_static("signalr-gateway-endpoint");

/// A caller named an endpoint that it may not choose: the route does not have it, or does not let callers choose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the header {ENDPOINT_HEADER} names no endpoint that callers of this route may choose")]
pub struct EndpointNotSelectable;

/// What a route chooses for one call.
#[derive(Clone, Copy, Debug)]
pub struct Choice<'a> {
    route: &'a Route,
    /// The hash of what the call is spread by; 0 unless the route spreads calls.
    key: u64,
    /// The endpoint that the caller named: no other will do.
    named: Option<&'a Target>,
}

/// How the endpoints of a choice are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryMode {
    /// One of them, the next only when nothing could be sent.
    One,
    /// All of them, and one answer.
    All(crate::signalr::Policy),
}

impl<'a> Choice<'a> {
    /// Makes the choice of `route`.
    ///
    /// # Errors
    /// [`EndpointNotSelectable`] if the caller named an endpoint that it may not choose.
    pub fn new(route: &'a Route, input: &RouteInput<'_>) -> Result<Self, EndpointNotSelectable> {
        let key = match route.pick() {
            Pick::Hash(by) => by.hash(input.call, input.headers),
            Pick::First | Pick::Weighted | Pick::All(_) => 0,
        };
        let named = if input.may_have_endpoint_header { named(route, input.headers)? } else { None };
        Ok(Self { route, key, named })
    }

    /// Returns the route.
    pub fn route(&self) -> &'a Route {
        self.route
    }

    /// Says whether one endpoint is used or all are.
    pub fn delivery_mode(&self) -> DeliveryMode {
        match (self.route.pick(), self.named) {
            (Pick::All(policy), None) => DeliveryMode::All(*policy),
            (Pick::First | Pick::Weighted | Pick::Hash(_) | Pick::All(_), _) => DeliveryMode::One,
        }
    }

    /// Whether the caller named the endpoint.
    pub fn is_named_by_caller(&self) -> bool {
        self.named.is_some()
    }

    /// Returns the places of the endpoints that may be used, in configured order.
    pub fn endpoint_indexes(&self) -> impl Iterator<Item = usize> + 'a {
        let named = self.named.map(Target::endpoint_index);
        let all = self.route.targets().iter().map(Target::endpoint_index);
        all.filter(move |place| named.is_none_or(|named| named == *place))
    }

    /// Returns the endpoints in the order in which they are tried.
    pub fn order(&self) -> Order<'a> {
        let tried = match self.named {
            None => 0,
            Some(named) => {
                let places = self.route.targets().iter().enumerate();
                places
                    .filter(|(_, target)| target.endpoint_index() != named.endpoint_index())
                    .fold(0, |bits, (place, _)| bits | 1 << place)
            }
        };
        Order { choice: *self, tried }
    }
}

/// Finds the endpoint that the caller named, if it did.
fn named<'a>(route: &'a Route, headers: &HeaderMap) -> Result<Option<&'a Target>, EndpointNotSelectable> {
    let mut values = headers.get_all(&ENDPOINT_HEADER).iter();
    let Some(name) = values.next() else { return Ok(None) };
    let is_one = route.endpoint_header() && values.next().is_none();
    let target = route.targets().iter().find(|target| is_one && name == target.name().as_str());
    target.map(Some).ok_or(EndpointNotSelectable)
}

/// The endpoints of a choice, one after the other: the next is asked for only when nothing could be sent to those
/// before. Allocates nothing.
#[derive(Debug)]
pub struct Order<'a> {
    choice: Choice<'a>,
    /// A bit for each endpoint that was handed out, by its place in the route. Configuration allows 32.
    tried: u32,
}

impl Order<'_> {
    /// Returns how many endpoints are left.
    pub fn left(&self) -> usize {
        let targets = self.choice.route.targets().len();
        targets.saturating_sub(self.tried.count_ones() as usize)
    }
}

impl Iterator for Order<'_> {
    /// The place of an endpoint.
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let tried = self.tried;
        let mut left = self.choice.route.targets().iter().enumerate().filter(|(place, _)| tried & (1 << place) == 0);
        let (place, target) = match self.choice.route.pick() {
            Pick::First | Pick::All(_) => left.next()?,
            Pick::Weighted => by_lot(left)?,
            Pick::Hash(_) => best(left, self.choice.key)?,
        };
        self.tried |= 1 << place;
        Some(target.endpoint_index())
    }
}

/// Picks at random by weight.
fn by_lot<'a>(mut left: impl Iterator<Item = (usize, &'a Target)> + Clone) -> Option<(usize, &'a Target)> {
    let total: u32 = left.clone().map(|(_, target)| target.weight()).sum();
    // `total` is 0 when none is left.
    let mut ticket = if total == 0 { 0 } else { fastrand::u32(..total) };
    left.find(|(_, target)| match ticket.checked_sub(target.weight()) {
        Some(rest) => {
            ticket = rest;
            false
        }
        None => true,
    })
}

/// Picks the endpoint with the best score for a key.
fn best<'a>(left: impl Iterator<Item = (usize, &'a Target)>, key: u64) -> Option<(usize, &'a Target)> {
    let scored = left.map(|found| (Score::of(found.1.seed(), key, found.1.weight()), found));
    scored.reduce(|best, next| if next.0.beats(best.0) { next } else { best }).map(|(_, found)| found)
}

#[cfg(test)]
#[path = "choice_tests.rs"]
mod tests;

//! The endpoints that a route chooses for one call and the order in which they are tried. Ignores their health.

use std::borrow::Cow;

use http::{HeaderMap, HeaderName};

use super::caller::Reach;
use super::hash::Score;
use super::table::{Route, RouteInput};
use super::target::Target;
use super::{Constraint, NamedBy, Pattern, Pick};
use crate::signalr::{Name, Policy};

/// The header in which a caller may name one of a route's endpoints, if the route has `endpoint_header`. It is not forwarded.
pub const ENDPOINT_HEADER: HeaderName = HeaderName::from_static("signalr-gateway-endpoint");

/// Error of a call that has no endpoint that it may be sent to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NamedEndpointError {
    /// The route does not let callers name an endpoint in [`ENDPOINT_HEADER`].
    #[error(
        "callers of this route may not name an endpoint in the header {ENDPOINT_HEADER}; leave it out, or have the operator \
         set `endpoint_header` on the route"
    )]
    NotAllowed,
    /// The call names an endpoint that does not exist or that is not among those of the route.
    #[error(
        "the {by} of the call names {}, which is no endpoint that calls of this route may name; check the name, or have the \
         operator add it",
        shown(name.as_deref())
    )]
    Unknown {
        /// What names it.
        by: NamedBy,
        /// The name; `None` if the call does not have it in the form that the route expects.
        name: Option<String>,
    },
    /// No endpoint that the call could be sent to is in use.
    #[error(
        "the operator of the gateway has disabled the endpoint of this call (`enabled = false`); nothing was sent; ask the \
         operator when it will be enabled again"
    )]
    Disabled,
    /// The caller may not reach an endpoint that the call could be sent to, or names one that does not exist.
    #[error(
        "the caller that the certificate identifies may not reach every endpoint that this call could be sent to; nothing was \
         sent; name another endpoint, or have the operator add it to `endpoints` of the caller"
    )]
    OutOfReach,
    /// A header that must name the endpoint is missing.
    #[error("calls of this route must name their endpoint in the header {header}, and this one has no such header")]
    HeaderMissing {
        /// The header.
        header: HeaderName,
    },
}

impl NamedEndpointError {
    #[cold]
    fn unknown(by: &NamedBy, name: Option<&str>) -> Self {
        Self::Unknown { by: by.clone(), name: name.map(|name| name.chars().take(MAX_SHOWN).collect()) }
    }
}

/// The maximum number of characters of a name that an error shows. Names of endpoints are no longer.
const MAX_SHOWN: usize = 64;

fn shown(name: Option<&str>) -> String {
    name.filter(|name| !name.is_empty()).map_or_else(|| "nothing".to_owned(), |name| format!("`{name}`"))
}

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
    /// [`NamedEndpointError`] if there is no endpoint that the call may be sent to.
    pub fn new(route: &'a Route, input: &RouteInput<'_>) -> Result<Self, NamedEndpointError> {
        let key = match route.pick() {
            Pick::Hash(by) => by.hash(input.call, input.headers),
            Pick::First | Pick::Weighted | Pick::All(_) => 0,
        };
        let may_be_named = route.named_by().is_some() || input.may_have_endpoint_header;
        let named = if may_be_named { named_target(route, input) } else { Ok(None) };
        let named = match input.caller.reach {
            None => named?,
            Some(reach) => within_reach(named, route, reach)?,
        };
        if named.map_or(route.targets().is_empty(), |named| !named.is_enabled()) {
            return Err(NamedEndpointError::Disabled);
        }
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

    /// Returns what named the endpoint; `None` if the route picks.
    pub fn named_by(&self) -> Option<&'a NamedBy> {
        self.route.named_by().filter(|_| self.named.is_some())
    }

    /// Returns the endpoints that may be used, in configured order.
    pub fn targets(&self) -> &'a [Target] {
        self.named.map_or_else(|| self.route.targets(), std::slice::from_ref)
    }

    /// Returns the indexes of the endpoints that may be used, in configured order.
    pub fn endpoint_indexes(&self) -> impl Iterator<Item = usize> + 'a {
        self.targets().iter().map(Target::endpoint_index)
    }

    /// Returns the endpoints in the order in which they are tried.
    pub fn order(&self) -> Order<'a> {
        Order { choice: *self, returned: 0 }
    }
}

/// Returns the named endpoint, if any, unless the caller may not reach every endpoint that the call could be sent to. A caller
/// does not learn whether an endpoint exists that it may not reach.
fn within_reach<'a>(
    named: Result<Option<&'a Target>, NamedEndpointError>,
    route: &Route,
    reach: &Reach,
) -> Result<Option<&'a Target>, NamedEndpointError> {
    let is_reached = match &named {
        Ok(Some(named)) => reach.contains(named),
        Ok(None) => route.targets().iter().all(|target| reach.contains(target)),
        Err(NamedEndpointError::Unknown { .. }) => false,
        Err(_) => true,
    };
    if is_reached { named } else { Err(NamedEndpointError::OutOfReach) }
}

/// Returns the endpoint that the call names, if any.
fn named_target<'a>(route: &'a Route, input: &RouteInput<'_>) -> Result<Option<&'a Target>, NamedEndpointError> {
    let RouteInput { call, headers, may_have_endpoint_header, .. } = input;
    let by = route.named_by();
    let is_own_header = matches!(by, Some(NamedBy::Header(name)) if *name == ENDPOINT_HEADER);
    if *may_have_endpoint_header && !is_own_header && headers.contains_key(ENDPOINT_HEADER) {
        return Err(NamedEndpointError::NotAllowed);
    }
    let Some(by) = by else { return Ok(None) };
    let rules = route.matches();
    match by {
        NamedBy::Hub => captured_target(route, by, &rules.hubs, call.hub.map(Name::decoded)),
        NamedBy::Group => captured_target(route, by, &rules.groups, call.group.map(Name::decoded)),
        NamedBy::Application => captured_target(route, by, &rules.applications, call.query_value("application")),
        NamedBy::Header(header) => header_target(route, by, header, headers),
    }
}

/// Returns the endpoint that a part of `name` names. Only the first pattern that matches counts.
fn captured_target<'a>(
    route: &'a Route,
    by: &NamedBy,
    patterns: &Constraint<Pattern>,
    name: Option<Cow<'_, str>>,
) -> Result<Option<&'a Target>, NamedEndpointError> {
    let name = name.unwrap_or_default();
    let mut patterns = patterns.allowed().unwrap_or_default().iter();
    let captured = patterns.find(|pattern| pattern.matches(&name)).and_then(|pattern| pattern.captured(&name));
    let target = captured.and_then(|captured| route.target_named(captured.as_bytes(), by.case()));
    target.map(Some).ok_or_else(|| NamedEndpointError::unknown(by, captured))
}

/// Returns the endpoint that a header names. A call without the header names none.
fn header_target<'a>(
    route: &'a Route,
    by: &NamedBy,
    header: &HeaderName,
    headers: &HeaderMap,
) -> Result<Option<&'a Target>, NamedEndpointError> {
    let mut values = headers.get_all(header).iter();
    let Some(value) = values.next() else {
        let is_required = route.names_any_endpoint();
        return if is_required { Err(NamedEndpointError::HeaderMissing { header: header.clone() }) } else { Ok(None) };
    };
    let is_single = values.next().is_none();
    let target = route.target_named(value.as_bytes(), by.case()).filter(|_| is_single);
    target.map(Some).ok_or_else(|| NamedEndpointError::unknown(by, value.to_str().ok().filter(|_| is_single)))
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
        let targets = self.choice.targets().len();
        targets.saturating_sub(self.returned.count_ones() as usize)
    }
}

impl Iterator for Order<'_> {
    /// The index of an endpoint.
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let returned = self.returned;
        let mut left = self.choice.targets().iter().enumerate().filter(|(index, _)| returned & (1 << index) == 0);
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

#[cfg(test)]
#[path = "named_endpoint_tests.rs"]
mod named_endpoint_tests;

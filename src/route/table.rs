//! The routing table. A call takes the first route whose conditions all hold.
//!
//! Routes that name their hubs, or what the hubs begin with, are indexed, so the time to find one does not grow with their
//! number. All other routes are tried one after the other.

use std::borrow::Borrow;
use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use http::HeaderMap;

use super::caller::RouteCaller;
use super::case::Case;
use super::directory::Directory;
use super::hub_index::HubIndex;
use super::target::Target;
use super::{
    Constraint, MatchSettings, NamedBy, Pattern, Pick, RouteEndpoint, RouteName, RouteSettings, WhenUnavailable, hash,
};
use crate::endpoint::EndpointName;
use crate::limits::RateSettings;
use crate::signalr::{Call, Name};

/// The order of a route's endpoints fits 32 bits.
const MAX_TARGETS: usize = 32;

/// The properties of a request that routes match.
#[derive(Clone, Copy, Debug)]
pub struct RouteInput<'a> {
    /// The call.
    pub call: &'a Call<'a>,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// Whether [`ENDPOINT_HEADER`](super::ENDPOINT_HEADER) may be among the headers. If not, the search is skipped.
    pub may_have_endpoint_header: bool,
    /// The index of the listener that received the request.
    pub listener: usize,
    /// The caller's address; `None` on a Unix socket.
    pub client: Option<IpAddr>,
    /// The caller, as its certificate identifies it.
    pub caller: RouteCaller<'a>,
}

/// A condition of a route that a call does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// The hub differs, or there is none.
    Hub,
    /// The operation differs.
    Operation,
    /// The group differs, or there is none.
    Group,
    /// The user differs, or there is none.
    User,
    /// The application differs, or there is none.
    Application,
    /// A header is missing or has another value.
    Header,
    /// The listener differs.
    Listener,
    /// The caller's address is in another network, or the call was received on a Unix socket.
    Client,
    /// The identity of the caller differs, or it has none.
    Caller,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hub => "hub",
            Self::Operation => "operation",
            Self::Group => "group",
            Self::User => "user",
            Self::Application => "application",
            Self::Header => "header",
            Self::Listener => "listener",
            Self::Client => "client",
            Self::Caller => "caller",
        })
    }
}

/// One route, with its names resolved to indexes.
#[derive(Debug)]
pub struct Route {
    name: RouteName,
    matches: MatchSettings,
    /// The indexes of the listeners that may receive the call.
    listeners: Constraint<usize>,
    pick: Pick,
    when_unavailable: WhenUnavailable,
    rate: Option<RateSettings>,
    named_by: Option<NamedBy>,
    /// All endpoints, if calls may name any of them.
    directory: Option<Arc<Directory>>,
    /// The endpoints that are in use.
    targets: Vec<Target>,
    /// The endpoints that are not in use.
    disabled: Vec<Target>,
}

impl Route {
    /// Returns the configured name.
    pub fn name(&self) -> &RouteName {
        &self.name
    }

    /// Returns how endpoints are chosen.
    pub fn pick(&self) -> &Pick {
        &self.pick
    }

    /// Returns the conditions.
    pub fn matches(&self) -> &MatchSettings {
        &self.matches
    }

    /// Returns what in a call names its endpoint, if the route lets calls name one.
    pub fn named_by(&self) -> Option<&NamedBy> {
        self.named_by.as_ref()
    }

    /// Returns whether each call names its endpoint, which may be any.
    pub fn names_any_endpoint(&self) -> bool {
        self.directory.is_some()
    }

    /// Returns the endpoint with this name, if calls of this route may name it.
    pub(super) fn target_named(&self, name: &[u8], case: Case) -> Option<&Target> {
        match &self.directory {
            Some(all) => all.find(name, case),
            None => self
                .targets
                .iter()
                .chain(&self.disabled)
                .find(|target| case.is_same(target.name().as_str().as_bytes(), name)),
        }
    }

    /// Returns the rate limit, if there is one.
    pub fn rate(&self) -> Option<RateSettings> {
        self.rate
    }

    /// Returns what happens while no endpoint is available.
    pub fn when_unavailable(&self) -> WhenUnavailable {
        self.when_unavailable
    }

    /// Returns the endpoints that are in use, in configured order. Empty if each call names its endpoint, which may be any.
    pub fn targets(&self) -> &[Target] {
        &self.targets
    }

    /// Returns the endpoints that are not in use, in configured order.
    pub fn disabled(&self) -> &[Target] {
        &self.disabled
    }

    /// Returns the first condition that the call does not meet, if any.
    pub fn mismatch(&self, input: &RouteInput<'_>) -> Option<Mismatch> {
        self.mismatch_at(input, false)
    }

    /// Returns the first condition that the call does not meet. `hub_matches` skips the condition on the hub.
    fn mismatch_at(&self, input: &RouteInput<'_>, hub_matches: bool) -> Option<Mismatch> {
        let RouteInput { call, headers, listener, client, caller, .. } = input;
        let rules = &self.matches;
        if rules.operations.is_some_and(|operations| !operations.contains(call.operation)) {
            return Some(Mismatch::Operation);
        }
        if !hub_matches && !accepts(&rules.hubs, || call.hub.map(Name::decoded)) {
            return Some(Mismatch::Hub);
        }
        if !accepts(&rules.groups, || call.group.map(Name::decoded)) {
            return Some(Mismatch::Group);
        }
        if !accepts(&rules.users, || call.user.map(Name::decoded)) {
            return Some(Mismatch::User);
        }
        if !accepts(&rules.applications, || call.query_value("application")) {
            return Some(Mismatch::Application);
        }
        if !rules.headers.iter().all(|rule| rule.holds(headers)) {
            return Some(Mismatch::Header);
        }
        if !self.listeners.allows(|allowed| allowed == listener) {
            return Some(Mismatch::Listener);
        }
        if !rules.clients.allows(|network| client.as_ref().is_some_and(|client| network.contains(client))) {
            return Some(Mismatch::Client);
        }
        // Last: `Table::needs_certificate` asks for routes that only this condition keeps from matching.
        if !rules.callers.allows(|pattern| caller.identity.is_some_and(|identity| pattern.matches(identity))) {
            return Some(Mismatch::Caller);
        }
        None
    }
}

/// Returns whether the name is accepted. Decodes it only if needed.
fn accepts<'a>(allowed: &Constraint<Pattern>, name: impl FnOnce() -> Option<Cow<'a, str>>) -> bool {
    let Some(patterns) = allowed.allowed() else { return true };
    name().is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(&name)))
}

/// Error of building a table: a name that does not resolve. Validation has already rejected unknown names. Building fails as well,
/// since a route with a dropped condition could match calls of another tenant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// A route names a listener that does not exist.
    #[error("route `{route}` names the listener `{listener}`, which does not exist")]
    NoListener {
        /// The route.
        route: RouteName,
        /// The name.
        listener: String,
    },
    /// A route names an endpoint that does not exist.
    #[error("route `{route}` names the endpoint `{endpoint}`, which does not exist")]
    NoEndpoint {
        /// The route.
        route: RouteName,
        /// The name.
        endpoint: EndpointName,
    },
    /// A route has no endpoints, and its calls name none.
    #[error("route `{0}` has no endpoints")]
    NoTarget(RouteName),
    /// A route has more endpoints than it can order.
    #[error("route `{0}` has more than {MAX_TARGETS} endpoints")]
    TooManyTargets(RouteName),
    /// The calls of a route name their endpoint without case, and two names differ only in case.
    #[error("the names of the endpoints `{one}` and `{other}` differ only in case")]
    Ambiguous {
        /// One of them.
        one: EndpointName,
        /// The other.
        other: EndpointName,
    },
}

/// All routes, in order.
#[derive(Debug)]
pub struct Table {
    routes: Vec<Route>,
    /// The routes that have only hubs that can be indexed.
    hubs: HubIndex,
    /// All other routes, in order.
    others: Vec<usize>,
    /// The routes with a condition on the caller.
    with_caller: Vec<usize>,
}

impl Table {
    /// Builds the table. Routes refer to `endpoints` and `listeners` by index.
    ///
    /// # Errors
    /// [`TableError`] for the first name that does not resolve.
    pub fn build<R: Borrow<RouteSettings>>(
        settings: &[R],
        endpoints: &[EndpointName],
        listeners: &[&str],
    ) -> Result<Self, TableError> {
        Self::build_with_disabled(settings, endpoints, &[], listeners)
    }

    /// Builds the table of a configuration with endpoints that are not in use. Routes may name these, but no call is sent there.
    ///
    /// # Errors
    /// [`TableError`] for the first name that does not resolve.
    pub fn build_with_disabled<R: Borrow<RouteSettings>>(
        settings: &[R],
        endpoints: &[EndpointName],
        disabled: &[EndpointName],
        listeners: &[&str],
    ) -> Result<Self, TableError> {
        let mut indexes: HashMap<&EndpointName, usize> = endpoints.iter().zip(0..).collect();
        indexes.extend(disabled.iter().map(|name| (name, Target::DISABLED)));
        let directory = directory(settings, endpoints, disabled)?;
        let resolve = |route: &RouteSettings| {
            let endpoint = |wanted: &RouteEndpoint| {
                let (name, seed) = (wanted.endpoint.clone(), hash::seed(wanted.endpoint.as_str()));
                match indexes.get(&name) {
                    Some(index) => Ok(Target::new(name, *index, wanted.weight, seed)),
                    None => Err(TableError::NoEndpoint { route: route.name.clone(), endpoint: name }),
                }
            };
            let listener = |wanted: &String| {
                listeners
                    .iter()
                    .position(|name| name == wanted)
                    .ok_or_else(|| TableError::NoListener { route: route.name.clone(), listener: wanted.clone() })
            };
            let targets: Vec<_> = route.endpoints.iter().map(endpoint).collect::<Result<_, _>>()?;
            let named_by = route.named_by();
            if targets.is_empty() && named_by.is_none() {
                return Err(TableError::NoTarget(route.name.clone()));
            }
            if targets.len() > MAX_TARGETS {
                return Err(TableError::TooManyTargets(route.name.clone()));
            }
            check_case(&targets, named_by.as_ref())?;
            let names_any = targets.is_empty();
            let (targets, disabled) = targets.into_iter().partition(Target::is_enabled);
            Ok(Route {
                name: route.name.clone(),
                listeners: route.matches.listeners.try_map(listener)?,
                directory: directory.clone().filter(|_| names_any),
                targets,
                disabled,
                matches: route.matches.clone(),
                pick: route.pick.clone(),
                named_by,
                when_unavailable: route.when_unavailable,
                rate: route.rate,
            })
        };
        let routes: Vec<Route> = settings.iter().map(Borrow::borrow).map(resolve).collect::<Result<_, _>>()?;
        let (mut hubs, mut others) = (Vec::new(), Vec::new());
        for (index, route) in routes.iter().enumerate() {
            let keys = route.matches.hubs.allowed().and_then(|hubs| hubs.iter().map(Pattern::hub_key).collect());
            match keys {
                Some(keys) => hubs.extend(Vec::into_iter(keys).map(|key| (key, index))),
                None => others.push(index),
            }
        }
        let hubs = HubIndex::build(hubs);
        let with_caller = routes.iter().zip(0..).filter(|(route, _)| !route.matches.callers.is_any());
        let with_caller = with_caller.map(|(_, index)| index).collect();
        Ok(Self { routes, hubs, others, with_caller })
    }

    /// Returns the first route that matches the call, and its index.
    pub fn find(&self, input: &RouteInput<'_>) -> Option<(usize, &Route)> {
        let mut found: Option<(usize, &Route)> = None;
        // The lists are in no order, so all of them are searched, up to the best route so far.
        let mut search = |indexes: &[usize], hub_matches| {
            let mut routes = indexes.iter().map_while(|index| {
                let is_earlier = found.is_none_or(|(best, _)| *index < best);
                Some((*index, self.routes.get(*index).filter(|_| is_earlier)?))
            });
            let first = routes.find(|(_, route)| route.mismatch_at(input, hub_matches).is_none());
            found = first.or(found);
        };
        if let Some(hub) = input.call.hub.filter(|_| !self.hubs.is_empty()) {
            self.hubs.visit(&hub.decoded(), |indexes| search(indexes, true));
        }
        search(&self.others, false);
        found
    }

    /// Returns whether a call that no route matches, and whose caller has no identity, could match one with an identity.
    #[cold]
    pub fn needs_certificate(&self, input: &RouteInput<'_>) -> bool {
        let is_kept_out = |index: &usize| {
            self.routes.get(*index).is_some_and(|route| route.mismatch(input) == Some(Mismatch::Caller))
        };
        input.caller.identity.is_none() && self.with_caller.iter().any(is_kept_out)
    }

    /// Returns all routes, in order.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

/// Builds the directory of all endpoints, if there is a route whose calls may name any of them.
fn directory<R: Borrow<RouteSettings>>(
    routes: &[R],
    endpoints: &[EndpointName],
    disabled: &[EndpointName],
) -> Result<Option<Arc<Directory>>, TableError> {
    let routes = routes.iter().map(Borrow::borrow).filter(|route| route.endpoints.is_empty());
    let cases: Vec<Case> = routes.filter_map(|route| Some(route.named_by()?.case())).collect();
    if cases.is_empty() {
        return Ok(None);
    }
    let target = |(name, index): (&EndpointName, usize)| Target::new(name.clone(), index, 1, 0);
    let disabled = disabled.iter().map(|name| (name, Target::DISABLED));
    let targets = endpoints.iter().zip(0..).chain(disabled).map(target).collect();
    Directory::build(targets, &cases).map(|built| Some(Arc::new(built))).map_err(ambiguous)
}

/// Checks that no two names differ only in case if calls name their endpoint without case.
fn check_case(targets: &[Target], named_by: Option<&NamedBy>) -> Result<(), TableError> {
    if named_by.is_none_or(|by| by.case() == Case::Sensitive) {
        return Ok(());
    }
    Directory::build(targets.to_vec(), &[Case::Insensitive]).map(|_| ()).map_err(ambiguous)
}

fn ambiguous((one, other): (Target, Target)) -> TableError {
    TableError::Ambiguous { one: one.name().clone(), other: other.name().clone() }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;

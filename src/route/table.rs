//! The routing table: the first route whose conditions all hold takes the call.
//!
//! Routes that name hubs exactly are found by the hub, so two hundred of them cost no more than a few.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use http::HeaderMap;

use super::{MatchSettings, Pattern, Pick, RouteName, RouteSettings, WhenUnavailable};
use crate::endpoint::EndpointName;
use crate::signalr::{Call, Name};

/// What a route is shown of a request.
#[derive(Clone, Copy, Debug)]
pub struct Inquiry<'a> {
    /// The call.
    pub call: &'a Call<'a>,
    /// The request's headers.
    pub headers: &'a HeaderMap,
    /// The place of the listener it came in by.
    pub listener: usize,
    /// The caller's address; `None` on a Unix socket.
    pub client: Option<IpAddr>,
}

/// The condition of a route that a call does not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mismatch {
    /// Another hub, or none.
    Hub,
    /// Another operation.
    Operation,
    /// Another group, or none.
    Group,
    /// Another user, or none.
    User,
    /// Another application, or none.
    Application,
    /// A header is missing or has another value.
    Header,
    /// Another listener.
    Listener,
    /// Another network, or a Unix socket.
    Client,
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
        })
    }
}

/// One route, with its names resolved to places.
#[derive(Debug)]
pub struct Route {
    name: RouteName,
    matches: MatchSettings,
    /// The places of the listeners that may be used; any if empty.
    listeners: Vec<usize>,
    pick: Pick,
    when_unavailable: WhenUnavailable,
    /// The place and the weight of each endpoint.
    endpoints: Vec<(usize, u32)>,
}

impl Route {
    /// Returns the configured name.
    pub fn name(&self) -> &RouteName {
        &self.name
    }

    /// Returns how an endpoint is chosen.
    pub fn pick(&self) -> Pick {
        self.pick
    }

    /// Returns what happens while every endpoint is out.
    pub fn when_unavailable(&self) -> WhenUnavailable {
        self.when_unavailable
    }

    /// Returns the place and the weight of each endpoint, in configured order.
    pub fn endpoints(&self) -> &[(usize, u32)] {
        &self.endpoints
    }

    /// Says which condition the call does not meet, if any.
    pub fn mismatch(&self, inquiry: &Inquiry<'_>) -> Option<Mismatch> {
        let Inquiry { call, headers, listener, client } = inquiry;
        let rules = &self.matches;
        if rules.operations.is_some_and(|operations| !operations.contains(call.operation)) {
            return Some(Mismatch::Operation);
        }
        if !named(&rules.hubs, || call.hub.map(Name::decoded)) {
            return Some(Mismatch::Hub);
        }
        if !named(&rules.groups, || call.group.map(Name::decoded)) {
            return Some(Mismatch::Group);
        }
        if !named(&rules.users, || call.user.map(Name::decoded)) {
            return Some(Mismatch::User);
        }
        if !named(&rules.applications, || call.query_value("application")) {
            return Some(Mismatch::Application);
        }
        let has_header = |wanted: &super::HeaderMatch| {
            let mut values = headers.get_all(&wanted.name).iter();
            values.any(|found| wanted.value.as_ref().is_none_or(|value| found == value))
        };
        if !rules.headers.iter().all(has_header) {
            return Some(Mismatch::Header);
        }
        if !self.listeners.is_empty() && !self.listeners.contains(listener) {
            return Some(Mismatch::Listener);
        }
        let is_inside = |client: &IpAddr| rules.clients.iter().any(|network| network.contains(client));
        if !rules.clients.is_empty() && !client.as_ref().is_some_and(is_inside) {
            return Some(Mismatch::Client);
        }
        None
    }

    /// Returns the endpoints in the order in which they are tried.
    pub fn order(&self) -> Order<'_> {
        Order { route: self, tried: 0 }
    }
}

/// Whether one of the patterns takes the name, or there are none. The name is decoded only when it is needed.
fn named<'a>(patterns: &[Pattern], name: impl FnOnce() -> Option<Cow<'a, str>>) -> bool {
    patterns.is_empty() || name().is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(&name)))
}

/// The endpoints of a route, one after the other: the next is asked for only when nothing could be sent to those
/// before. Allocates nothing.
#[derive(Debug)]
pub struct Order<'a> {
    route: &'a Route,
    /// A bit for each endpoint that was handed out, by its place in the route. Configuration allows 32.
    tried: u32,
}

impl Iterator for Order<'_> {
    /// The place of an endpoint.
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let tried = self.tried;
        let mut left = self.route.endpoints.iter().enumerate().filter(|(place, _)| tried & (1 << place) == 0);
        let (place, (endpoint, _)) = match self.route.pick {
            Pick::First | Pick::All(_) => left.next()?,
            Pick::Weighted => {
                let total: u32 = left.clone().map(|(_, (_, weight))| weight).sum();
                // `total` is 0 when none is left.
                let mut ticket = if total == 0 { 0 } else { fastrand::u32(..total) };
                left.find(|(_, (_, weight))| match ticket.checked_sub(*weight) {
                    Some(rest) => {
                        ticket = rest;
                        false
                    }
                    None => true,
                })?
            }
        };
        self.tried |= 1 << place;
        Some(*endpoint)
    }
}

/// All routes, in order.
#[derive(Debug)]
pub struct Table {
    routes: Vec<Route>,
    /// By hub in lower case: the routes that may take its calls, in order.
    by_hub: HashMap<String, Vec<usize>>,
    /// The routes that may take calls of any other hub, or of none.
    others: Vec<usize>,
}

impl Table {
    /// Builds the table. `endpoints` and `listeners` are the names whose places the routes refer to; configuration
    /// has checked that every name a route has is among them.
    pub fn build(settings: &[RouteSettings], endpoints: &[EndpointName], listeners: &[&str]) -> Self {
        let resolve = |route: &RouteSettings| {
            let endpoint = |wanted: &super::RouteEndpoint| {
                let place = endpoints.iter().position(|name| *name == wanted.endpoint)?;
                Some((place, wanted.weight))
            };
            let listener = |wanted: &String| listeners.iter().position(|name| name == wanted);
            Route {
                name: route.name.clone(),
                listeners: route.matches.listeners.iter().filter_map(listener).collect(),
                endpoints: route.endpoints.iter().filter_map(endpoint).collect(),
                matches: route.matches.clone(),
                pick: route.pick,
                when_unavailable: route.when_unavailable,
            }
        };
        let routes: Vec<Route> = settings.iter().map(resolve).collect();
        let exact_hubs = |route: &Route| -> Option<Vec<String>> {
            let hubs = &route.matches.hubs;
            let names: Option<Vec<_>> = hubs.iter().map(|hub| hub.exact().map(str::to_owned)).collect();
            names.filter(|names| !names.is_empty())
        };
        let mut by_hub: HashMap<String, Vec<usize>> = HashMap::new();
        for hub in routes.iter().filter_map(exact_hubs).flatten() {
            let may_take = |(_, route): &(usize, &Route)| exact_hubs(route).is_none_or(|hubs| hubs.contains(&hub));
            let places = routes.iter().enumerate().filter(may_take).map(|(place, _)| place).collect();
            by_hub.insert(hub, places);
        }
        let others = routes
            .iter()
            .enumerate()
            .filter(|(_, route)| exact_hubs(route).is_none())
            .map(|(place, _)| place)
            .collect();
        Self { routes, by_hub, others }
    }

    /// Returns the first route that takes the call, and its place.
    pub fn pick(&self, inquiry: &Inquiry<'_>) -> Option<(usize, &Route)> {
        let places = inquiry
            .call
            .hub
            .filter(|_| !self.by_hub.is_empty())
            .and_then(|hub| self.by_hub.get(&hub.decoded().to_ascii_lowercase()))
            .unwrap_or(&self.others);
        places
            .iter()
            .filter_map(|place| Some((*place, self.routes.get(*place)?)))
            .find(|(_, route)| route.mismatch(inquiry).is_none())
    }

    /// Returns all routes, in order.
    pub fn routes(&self) -> &[Route] {
        &self.routes
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;

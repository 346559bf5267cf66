//! Checks routes whose calls name their endpoint, by a capture or in a header, and the names that they can have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::context::{Context, Key, key};
use crate::config::file::{ConfigFile, EndpointHeaderFile, PickFile, RouteFile};
use crate::endpoint::EndpointName;
use crate::route::{Case, ENDPOINT_HEADER, NamedBy, Pattern, RouteSettings};
use crate::signalr::Name;

/// Lowers `endpoint_header`.
pub(super) fn header(file: &EndpointHeaderFile, key: &[String], context: &mut Context<'_>) -> Option<http::HeaderName> {
    match file {
        EndpointHeaderFile::Allowed(false) => None,
        EndpointHeaderFile::Allowed(true) => Some(ENDPOINT_HEADER),
        // A placeholder: the name was reported.
        EndpointHeaderFile::Name(name) => {
            Some(super::values::header_name(key, name, context).unwrap_or(ENDPOINT_HEADER))
        }
    }
}

/// Checks how the calls of a route name their endpoint.
pub(super) fn check_route(index: usize, file: &RouteFile, route: &RouteSettings, context: &mut Context<'_>) {
    let at = |tail: &str| -> Key {
        key(&["routes", &index.to_string()]).into_iter().chain(tail.split('.').map(str::to_owned)).collect()
    };
    let captures: Vec<_> = route.captures().collect();
    if let Some((by, patterns)) = captures.first() {
        let other = captures.get(1).map(|(other, _)| other.to_string());
        let other = other.or_else(|| route.endpoint_header.as_ref().map(|_| "endpoint_header".to_owned()));
        if let Some(other) = other {
            let fact = format!("names the endpoint, and so does `{other}`");
            context.problem(&at(&format!("match.{by}")), fact, "let one of them name it");
        }
        if let Some(plain) = patterns.iter().find(|pattern| !pattern.names_endpoint()) {
            let fact = format!("`{plain}` names no endpoint, but another pattern does");
            context.problem(&at(&format!("match.{by}")), fact, "give it a route of its own");
        }
    }
    let names_each = !captures.is_empty() || (route.endpoint_header.is_some() && file.endpoints.is_none());
    if names_each && !matches!(file.pick, PickFile::First) {
        let fix = "remove it, or write a route whose calls do not have to name their endpoint";
        context.problem(&at("pick"), "has no effect: each call names its endpoint", fix);
    }
    if file.endpoints.is_none() && !names_each {
        let fix =
            "name at least one endpoint, or let calls name theirs: `{endpoint}` in `match.hub`, or `endpoint_header`";
        context.problem(&at("endpoints"), "is missing: the route has no endpoint", fix);
    }
    let by_hub = captures.iter().find(|(by, _)| *by == NamedBy::Hub);
    for (position, endpoint) in route.endpoints.iter().enumerate() {
        let name = endpoint.endpoint.as_str();
        if by_hub.is_some_and(|(_, patterns)| !patterns.iter().any(|pattern| hub_can_name(pattern, name))) {
            let fix = "rename the endpoint, or give it a route that does not need its name in the hub";
            context.problem(&at(&format!("endpoints.{position}")), format!("{HUBS} `{name}`"), fix);
        }
    }
}

const HUBS: &str = "hubs begin with a letter and have no `-`, so none can name";

/// Checks the names of endpoints that calls can name: each must be captured whole and mean one endpoint.
pub(super) fn check_names(file: &ConfigFile, routes: &[Arc<RouteSettings>], context: &mut Context<'_>) {
    let all: Vec<EndpointName> = file.endpoints.keys().map(|name| EndpointName::new(name)).collect();
    // Routes whose calls may name any endpoint often have the same patterns.
    let mut any_ends = BTreeMap::new();
    let mut any_without_case = None;
    for route in routes.iter().map(|route| &**route) {
        let named: Vec<&EndpointName> = route.endpoints.iter().map(|endpoint| &endpoint.endpoint).collect();
        for (by, patterns) in route.captures() {
            for pattern in patterns {
                let Some(end) = pattern.capture_end() else { continue };
                if named.is_empty() {
                    any_ends.entry((end, pattern.case())).or_insert((route, pattern));
                } else {
                    check_end(&named, end, (route, pattern), context);
                }
            }
            if by.case() == Case::Insensitive {
                if named.is_empty() {
                    any_without_case.get_or_insert(route);
                } else {
                    check_case(&named, route, context);
                }
            }
        }
    }
    let all: Vec<&EndpointName> = all.iter().collect();
    for ((end, _), source) in any_ends {
        check_end(&all, end, source, context);
    }
    if let Some(route) = any_without_case {
        check_case(&all, route, context);
    }
}

/// Reports names that contain the text at which a capture ends: their calls would be those of another endpoint.
fn check_end(
    names: &[&EndpointName],
    end: &str,
    (route, pattern): (&RouteSettings, &Pattern),
    context: &mut Context<'_>,
) {
    for name in names {
        let folded = match pattern.case() {
            Case::Sensitive => name.as_str().to_owned(),
            Case::Insensitive => name.as_str().to_ascii_lowercase(),
        };
        if let Some((shorter, _)) = folded.split_once(end) {
            let fact = format!(
                "has `{end}` in its name, where `{{endpoint}}` in `{pattern}` of the route `{}` ends: its calls would name \
                 `{shorter}`",
                route.name
            );
            let fix = "rename the endpoint, put another text after `{endpoint}`, or list in `endpoints` of the route the \
                       endpoints that its calls may name";
            context.problem(&key(&["endpoints", name.as_str()]), fact, fix);
        }
    }
}

/// Reports names that differ only in case, where calls name endpoints without case.
fn check_case(names: &[&EndpointName], route: &RouteSettings, context: &mut Context<'_>) {
    let mut seen = BTreeMap::new();
    for name in names {
        if let Some(other) = seen.insert(name.as_str().to_ascii_lowercase(), *name) {
            let fact = format!(
                "differs from `{other}` only in case, and calls of the route `{}` name their endpoint without case",
                route.name
            );
            context.problem(&key(&["endpoints", name.as_str()]), fact, "rename one of them");
        }
    }
}

/// Warns of endpoints that no call can be sent to.
pub(super) fn check_unused(file: &ConfigFile, routes: &[Arc<RouteSettings>], context: &mut Context<'_>) {
    let listed: BTreeSet<&str> =
        routes.iter().flat_map(|route| &route.endpoints).map(|listed| listed.endpoint.as_str()).collect();
    let any = || routes.iter().filter(|route| route.endpoints.is_empty());
    // Patterns that name any endpoint in the hub, one for each kind of name that they can have.
    let mut by_hub: BTreeMap<bool, &Pattern> = BTreeMap::new();
    let hub_patterns = any()
        .flat_map(|route| route.captures())
        .filter(|(by, _)| *by == NamedBy::Hub)
        .flat_map(|(_, patterns)| patterns);
    for pattern in hub_patterns {
        by_hub.insert(pattern.begins_with_capture(), pattern);
    }
    let reaches_all = any().any(|route| route.named_by().is_some_and(|by| by != NamedBy::Hub));
    for endpoint in file.endpoints.keys() {
        if listed.contains(endpoint.as_str()) || reaches_all {
            continue;
        }
        let at = key(&["endpoints", endpoint]);
        if by_hub.is_empty() {
            context.warning(&at, "no route has this endpoint", "name it in a route, or remove it");
        } else if !by_hub.values().any(|pattern| hub_can_name(pattern, endpoint)) {
            let fix = "rename it, or name it in a route";
            context.warning(&at, format!("no route has this endpoint: {HUBS} `{endpoint}`"), fix);
        }
    }
}

/// Returns whether a hub that matches the pattern can name the endpoint.
fn hub_can_name(pattern: &Pattern, endpoint: &str) -> bool {
    let begins_well = !pattern.begins_with_capture() || endpoint.starts_with(|first: char| first.is_ascii_alphabetic());
    pattern.names_endpoint() && begins_well && endpoint.bytes().all(Name::is_hub_byte)
}

//! Lowers routes.

use std::collections::HashMap;
use std::sync::Arc;

use super::context::{Context, Key, key};
use super::digest::Digest;
use super::listener::operations;
use super::{named_endpoint, values};
use crate::config::file::{
    ConfigFile, HashByFile, HashNameFile, HeaderMatchFile, MatchFile, OneOrMany, PickFile, PolicyFile,
    RouteEndpointFile, RouteFile, WhenUnavailableFile,
};
use crate::endpoint::EndpointName;
use crate::route::{
    Case, Constraint, HashKey, HeaderMatch, MatchSettings, Pattern, Pick, RouteEndpoint, RouteName, RouteSettings,
    WhenUnavailable, identity_pattern,
};
use crate::signalr::{Operation, Policy};

/// The order of a route's endpoints fits 32 bits.
const MAX_ENDPOINTS: usize = 32;
/// The part of a pattern that names the endpoint.
const CAPTURE: &str = "{endpoint}";
/// Keeps the sum of a route's weights within 32 bits.
const MAX_WEIGHT: u32 = 1_000_000;

/// Lowers all routes. Also returns their digests, in the same order.
pub(super) fn lower(file: &ConfigFile, context: &mut Context<'_>) -> (Vec<Arc<RouteSettings>>, Vec<Digest>) {
    if file.routes.is_empty() && context.merged.main_items("routes") == 0 {
        let route = default_route(file, context);
        let digest = Digest::of(&route);
        return (vec![Arc::new(route)], vec![digest]);
    }
    let (mut routes, mut digests) = (Vec::with_capacity(file.routes.len()), Vec::with_capacity(file.routes.len()));
    for (index, file) in file.routes.iter().enumerate() {
        let kept = context.last.routes.take(file).filter(|(kept, _)| {
            // An endpoint may have been in a file that is gone.
            kept.endpoints.iter().all(|named| context.defines("endpoints", named.endpoint.as_str()))
        });
        let (route, digest) = if let Some(kept) = kept {
            context.memo.routes.insert(file, kept.clone());
            kept
        } else {
            let reports = context.reports();
            let route = Arc::new(lower_one(index, file, context));
            let digest = Digest::of(&route);
            if context.reports() == reports {
                context.memo.routes.insert(file, (Arc::clone(&route), digest));
            }
            (route, digest)
        };
        routes.push(route);
        digests.push(digest);
    }
    check_order(file, &routes, context);
    named_endpoint::check_names(file, &routes, context);
    named_endpoint::check_unused(file, &routes, context);
    (routes, digests)
}

/// Returns the route of a configuration that has none.
fn default_route(file: &ConfigFile, context: &mut Context<'_>) -> RouteSettings {
    if file.endpoints.len() > MAX_ENDPOINTS {
        let count = file.endpoints.len();
        let fact = format!("there are {count} endpoints and no route: without routes there may be {MAX_ENDPOINTS}");
        context.problem(
            &key(&["routes"]),
            fact,
            "add routes, such as one with match = { hub = \"{endpoint}_*\" }, by which each call names its endpoint",
        );
    }
    let endpoints = file.endpoints.keys();
    RouteSettings {
        name: RouteName::new("default"),
        matches: MatchSettings::default(),
        pick: Pick::First,
        when_unavailable: WhenUnavailable::default(),
        endpoint_header: None,
        rate: None,
        endpoints: endpoints.map(|name| RouteEndpoint { endpoint: EndpointName::new(name), weight: 1 }).collect(),
    }
}

/// Reports routes whose name is taken and routes behind one that matches every call.
fn check_order(file: &ConfigFile, routes: &[Arc<RouteSettings>], context: &mut Context<'_>) {
    let mut names: HashMap<&RouteName, usize> = HashMap::with_capacity(routes.len());
    let mut matches_all: Option<&RouteName> = None;
    for (index, (route, file)) in routes.iter().zip(&file.routes).enumerate() {
        let at = |tail: &str| key(&["routes", &index.to_string(), tail]);
        if let Some(other) = names.insert(&route.name, index) {
            let place = context.origin_of(&key(&["routes", &other.to_string(), "name"]));
            let place = place.map(|place| format!(" ({place})")).unwrap_or_default();
            let fact = format!("there is another route called `{}`{place}", route.name);
            context.problem(&at("name"), fact, "give each route a name of its own");
        }
        if let Some(all) = matches_all {
            let fact = format!("`{}` can never match: the earlier route `{all}` matches every call", route.name);
            context.problem(&at("match"), fact, format!("move `{all}` to the end"));
        } else if file.matches.is_empty() && !context.is_incomplete(&at("match")) {
            matches_all = Some(&route.name);
        }
    }
}

fn lower_one(index: usize, file: &RouteFile, context: &mut Context<'_>) -> RouteSettings {
    let at = |tail: &[&str]| -> Key {
        let mut path = key(&["routes", &index.to_string()]);
        path.extend(key(tail));
        path
    };
    values::check_name(&at(&["name"]), &file.name, context);
    if file.endpoints.as_ref().is_some_and(Vec::is_empty) {
        context.problem(&at(&["endpoints"]), "is empty: the route has no endpoint", "name at least one endpoint");
    }
    let listed = file.endpoints.as_deref().unwrap_or_default();
    if listed.len() > MAX_ENDPOINTS {
        let fact = format!("has {} endpoints, the maximum is {MAX_ENDPOINTS}", listed.len());
        let fix = "spread its calls over several routes, such as one for each hub";
        context.problem(&at(&["endpoints"]), fact, fix);
    }
    let mut endpoints: Vec<RouteEndpoint> = Vec::with_capacity(listed.len());
    for (position, endpoint) in listed.iter().enumerate() {
        let key = at(&["endpoints", &position.to_string()]);
        let (name, weight) = match endpoint {
            RouteEndpointFile::Name(name) => (name, 1),
            RouteEndpointFile::Weighted(weighted) => (&weighted.name, weighted.weight),
        };
        values::check_reference(&key, "endpoints", name, context);
        if !(1..=MAX_WEIGHT).contains(&weight) {
            let fix = "to use no weight, remove it; to take the endpoint out of the route, remove the endpoint";
            context.problem(&key, format!("the weight is {weight}, must be 1 to {MAX_WEIGHT}"), fix);
        }
        let endpoint = EndpointName::new(name);
        if endpoints.iter().any(|earlier| earlier.endpoint == endpoint) {
            context.problem(&key, format!("`{name}` is in this route twice"), "remove one of them");
        }
        endpoints.push(RouteEndpoint { endpoint, weight });
    }
    if file.policy.is_some() && !matches!(file.pick, PickFile::All) {
        context.problem(&at(&["policy"]), "is only for pick = \"all\"", "remove it");
    }
    let is_weighted = |endpoint: &RouteEndpointFile| matches!(endpoint, RouteEndpointFile::Weighted(weighted) if weighted.weight != 1);
    let weights_count = matches!(file.pick, PickFile::Weighted | PickFile::Hash);
    if !weights_count && listed.iter().any(is_weighted) {
        let fix = "write pick = \"weighted\" or \"hash\", or remove the weights";
        context.warning(&at(&["endpoints"]), "weights have an effect only with pick = \"weighted\" and \"hash\"", fix);
    }
    let matches = matches(&file.matches, &at(&["match"]), context);
    let hash_key = hash_key(file, &matches, &at(&["hash_by"]), context);
    let route = RouteSettings {
        name: RouteName::new(&file.name),
        matches,
        endpoint_header: named_endpoint::header(&file.endpoint_header, &at(&["endpoint_header"]), context),
        pick: match file.pick {
            PickFile::First => Pick::First,
            PickFile::Weighted => Pick::Weighted,
            PickFile::Hash => Pick::Hash(hash_key),
            PickFile::All => Pick::All(match file.policy {
                None | Some(PolicyFile::All) => Policy::All,
                Some(PolicyFile::Any) => Policy::Any,
                Some(PolicyFile::Quorum) => Policy::Quorum,
            }),
        },
        when_unavailable: match file.when_unavailable {
            WhenUnavailableFile::Send => WhenUnavailable::Send,
            WhenUnavailableFile::Fail => WhenUnavailable::Fail,
        },
        rate: file.rate.as_ref().and_then(|rate| values::rate(&at(&["rate"]), rate.per_second, rate.burst, context)),
        endpoints,
    };
    named_endpoint::check_route(index, file, &route, context);
    route
}

/// Returns the first text in a pattern that looks like a capture and is none, such as `{tenant}`.
fn unknown_capture(pattern: &str) -> Option<&str> {
    pattern.match_indices('{').find_map(|(at, _)| {
        let rest = pattern.get(at..)?;
        let length = rest.find('}')? + 1;
        let found = rest.get(..length).filter(|found| *found != CAPTURE)?;
        let mut inner = found.trim_matches(['{', '}']).bytes();
        (length > 2 && inner.all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))).then_some(found)
    })
}

/// Lowers the hash key. Checks that the operations that the route matches have it.
fn hash_key(file: &RouteFile, matches: &MatchSettings, key: &[String], context: &mut Context<'_>) -> HashKey {
    let found = match &file.hash_by {
        None | Some(HashByFile::Name(HashNameFile::Hub)) => HashKey::Hub,
        Some(HashByFile::Name(HashNameFile::Group)) => HashKey::Group,
        Some(HashByFile::Name(HashNameFile::User)) => HashKey::User,
        Some(HashByFile::Name(HashNameFile::Connection)) => HashKey::Connection,
        Some(HashByFile::Header(by)) => {
            values::header_name(key, &by.header, context).map_or(HashKey::Hub, HashKey::Header)
        }
    };
    if !matches!(file.pick, PickFile::Hash) {
        if file.hash_by.is_some() {
            context.problem(key, "is only for pick = \"hash\"", "remove it");
        }
        return found;
    }
    let conditions = [
        (HashKey::Hub, !matches.hubs.is_any()),
        (HashKey::Group, !matches.groups.is_any()),
        (HashKey::User, !matches.users.is_any()),
    ];
    let matches = |operation: &Operation| {
        matches.operations.is_none_or(|operations| operations.contains(*operation))
            && conditions.iter().all(|(name, is_set)| !is_set || name.applies_to(*operation))
    };
    let mut matched = Operation::ALL.into_iter().filter(|operation| *operation != Operation::Health).filter(matches);
    if !matched.clone().any(|operation| found.applies_to(operation)) {
        let fix = "choose a key that these operations have, or `hub`";
        context.problem(key, "no operation that the route matches has it", fix);
    } else if found != HashKey::Hub
        && let Some(operation) = matched.find(|operation| !found.applies_to(*operation))
    {
        let fact = format!(
            "some operations that the route matches, such as `{operation}`, do not have it: their calls are hashed by hub"
        );
        let fix = "give these operations a route of their own, or accept that they are hashed by hub";
        context.warning(key, fact, fix);
    }
    found
}

fn matches(file: &MatchFile, route: &[String], context: &mut Context<'_>) -> MatchSettings {
    let at = |name: &str| -> Key { route.iter().cloned().chain([name.to_owned()]).collect() };
    if file.header.as_ref().is_some_and(|headers| headers.as_slice().is_empty()) {
        context.problem(&at("header"), "is empty", "remove it to match any");
    }
    let mut texts = |name: &str, texts: &Option<OneOrMany<String>>| -> Constraint<String> {
        let Some(texts) = texts.as_ref().map(OneOrMany::as_slice) else { return Constraint::Any };
        if texts.is_empty() || texts.iter().any(String::is_empty) {
            context.problem(&at(name), "is empty, so no call could ever match", "remove it to match any");
        }
        Constraint::OneOf(texts.to_vec())
    };
    let hubs = texts("hub", &file.hub);
    let groups = texts("group", &file.group);
    let users = texts("user", &file.user);
    let applications = texts("application", &file.application);
    let listeners = texts("listener", &file.listener);
    let clients = texts("client", &file.client);
    let callers = texts("caller", &file.caller);
    for text in hubs.allowed().unwrap_or_default() {
        let fix = "hub names begin with a letter and have only letters, digits and _`,.[], at most 128; `*` matches any text, \
                   `{endpoint}` a name of an endpoint";
        values::check_hub(&text.replace(CAPTURE, "*"), text, &at("hub"), fix, context);
    }
    for (name, texts) in [("group", &groups), ("user", &users)] {
        // A proxy may remove such a segment of a path, so the gateway refuses it.
        for text in texts.allowed().unwrap_or_default().iter().filter(|text| [".", ".."].contains(&text.as_str())) {
            context.problem(
                &at(name),
                format!("`{text}` can never match: no call may name it in its path"),
                "remove it",
            );
        }
    }
    if let Some(text) = users.allowed().unwrap_or_default().iter().find(|text| text.contains(CAPTURE)) {
        let fact = format!("`{text}` would let a user name the endpoint, which is not supported");
        context.problem(&at("user"), fact, "let the hub, the group, the application or a header name it");
    }
    for (name, texts, fix) in [
        (
            "group",
            &groups,
            "write `{endpoint}`, the only capture, if the group names the endpoint, or `*` for any text",
        ),
        (
            "application",
            &applications,
            "write `{endpoint}`, the only capture, if it names the endpoint, or `*` for any text",
        ),
        ("user", &users, "write `*` for any text"),
    ] {
        for text in texts.allowed().unwrap_or_default() {
            if let Some(name_in_braces) = unknown_capture(text) {
                let fact = format!("`{text}` matches only names that contain `{name_in_braces}` with its braces");
                context.warning(&at(name), fact, fix);
            }
        }
    }
    let mut patterns = |name: &str, texts: Constraint<String>, case| match texts {
        Constraint::Any => Constraint::Any,
        Constraint::OneOf(texts) => {
            let pattern = |text: &String| match Pattern::with_capture(text, case) {
                Ok(pattern) => pattern,
                Err(err) => {
                    let fix = "write one `{endpoint}` with text between it and each `*`, such as `{endpoint}_*`";
                    context.problem(&at(name), format!("`{text}` {err}"), fix);
                    Pattern::new(text, case)
                }
            };
            Constraint::OneOf(texts.iter().map(pattern).collect())
        }
    };
    let hubs = patterns("hub", hubs, Case::Insensitive);
    let groups = patterns("group", groups, Case::Sensitive);
    let applications = patterns("application", applications, Case::Insensitive);
    let users = users.map(|text| Pattern::new(text, Case::Sensitive));
    for listener in listeners.allowed().unwrap_or_default() {
        // Without `[listeners]`, the only one is called `default`.
        if !(listener == "default" && context.names("listeners").is_empty()) {
            values::check_reference(&at("listener"), "listeners", listener, context);
        }
    }
    let header = |header: &HeaderMatchFile, context: &mut Context<'_>| {
        let name = values::header_name(&at("header"), &header.name, context)?;
        let value = header.value.as_ref().map(|value| values::header_value(&at("header"), value, context));
        match value {
            None => Some(HeaderMatch { name, value: None }),
            Some(value) => Some(HeaderMatch { name, value: Some(value?) }),
        }
    };
    let headers = file.header.as_ref().map(OneOrMany::as_slice).unwrap_or_default();
    MatchSettings {
        hubs,
        operations: file.operation.as_ref().map(|names| operations(names.as_slice(), &at("operation"), context)),
        groups,
        users,
        applications,
        headers: headers.iter().filter_map(|file| header(file, context)).collect(),
        listeners,
        clients: match clients {
            Constraint::Any => Constraint::Any,
            Constraint::OneOf(texts) => values::whole_networks(&at("client"), &texts, context),
        },
        callers: callers.map(|text| identity_pattern(text)),
    }
}

//! Each condition, the order of routes, and the equivalence of the hub index with a linear search.

use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::route::{Case, HeaderMatch, MismatchDetail, RouteEndpoint, identity_pattern};
use crate::signalr::OperationSet;

fn route(name: &str, matches: MatchSettings) -> RouteSettings {
    RouteSettings {
        name: RouteName::new(name),
        matches,
        pick: Pick::First,
        when_unavailable: WhenUnavailable::default(),
        endpoint_header: None,
        rate: None,
        endpoints: vec![RouteEndpoint { endpoint: EndpointName::new("east"), weight: 1 }],
    }
}

fn table(routes: &[RouteSettings]) -> Table {
    Table::build(routes, &[EndpointName::new("east"), EndpointName::new("west")], &["default", "local"]).unwrap()
}

fn hubs(names: &[&str]) -> MatchSettings {
    MatchSettings {
        hubs: Constraint::OneOf(names.iter().map(|name| Pattern::new(name, Case::Insensitive)).collect()),
        ..Default::default()
    }
}

fn name(text: &str) -> Constraint<Pattern> {
    Constraint::OneOf(vec![Pattern::new(text, Case::Sensitive)])
}

const TARGET: &str = "/api/hubs/Chat/users/Ann%20B/groups/red";

fn mismatch(matches: MatchSettings) -> Option<Mismatch> {
    let table = table(&[route("only", matches)]);
    let call = Call::parse(&Method::PUT, TARGET, Some("application=Shop")).unwrap();
    let mut headers = HeaderMap::new();
    headers.append("x-region", HeaderValue::from_static("east"));
    headers.append("x-region", HeaderValue::from_static("west"));
    let client = Some("10.1.2.3".parse().unwrap());
    let input = RouteInput {
        call: &call,
        headers: &headers,
        may_have_endpoint_header: false,
        listener: 1,
        client,
        caller: RouteCaller::default(),
    };
    let route = &table.routes()[0];
    let mismatch = route.mismatch(&input);
    assert_eq!(MismatchDetail::find(route, &input, "local").map(|detail| detail.condition), mismatch);
    assert_eq!(table.find(&input).is_some(), mismatch.is_none());
    mismatch
}

#[test]
fn each_condition_must_hold() {
    let rules = MatchSettings::default;
    let header = |value: Option<&'static str>| {
        let value = value.map(HeaderValue::from_static);
        MatchSettings { headers: vec![HeaderMatch { name: HeaderName::from_static("x-region"), value }], ..rules() }
    };
    let operations = |set| MatchSettings { operations: Some(set), ..rules() };
    let listeners = |name: &str| MatchSettings { listeners: Constraint::OneOf(vec![name.into()]), ..rules() };
    let clients = |net: &str| MatchSettings { clients: Constraint::OneOf(vec![net.parse().unwrap()]), ..rules() };
    for (matches, expected) in [
        (rules(), None),
        (hubs(&["chat"]), None),
        (hubs(&["news", "CH*"]), None),
        (hubs(&["news"]), Some(Mismatch::Hub)),
        (operations(OperationSet::GROUPS), None),
        (operations(OperationSet::MESSAGES), Some(Mismatch::Operation)),
        (MatchSettings { users: name("Ann B"), ..rules() }, None),
        (MatchSettings { users: name("ann b"), ..rules() }, Some(Mismatch::User)),
        (MatchSettings { groups: name("r*"), ..rules() }, None),
        (MatchSettings { groups: name("blue"), ..rules() }, Some(Mismatch::Group)),
        (
            MatchSettings { applications: Constraint::OneOf(vec![Pattern::new("shop", Case::Insensitive)]), ..rules() },
            None,
        ),
        (MatchSettings { applications: name("other"), ..rules() }, Some(Mismatch::Application)),
        (header(None), None),
        (header(Some("west")), None),
        (header(Some("north")), Some(Mismatch::Header)),
        (listeners("local"), None),
        (listeners("default"), Some(Mismatch::Listener)),
        (clients("10.1.0.0/16"), None),
        (clients("10.2.0.0/16"), Some(Mismatch::Client)),
    ] {
        assert_eq!(mismatch(matches.clone()), expected, "{matches:?}");
    }
}

#[test]
fn condition_on_the_caller_holds_for_matching_identities_only() {
    let for_prod =
        MatchSettings { callers: Constraint::OneOf(vec![identity_pattern("spiffe://prod/*")]), ..Default::default() };
    let for_chat =
        MatchSettings { hubs: Constraint::OneOf(vec![Pattern::new("chat", Case::Insensitive)]), ..for_prod.clone() };
    let table = table(&[route("chat", for_chat), route("prod", for_prod)]);
    let find = |hub: &str, identity: Option<&str>| {
        let path = format!("/api/hubs/{hub}/:send");
        let call = Call::parse(&Method::POST, &path, None).unwrap();
        let caller = RouteCaller { identity, reach: None };
        let input = RouteInput {
            call: &call,
            headers: &HeaderMap::new(),
            may_have_endpoint_header: false,
            listener: 0,
            client: None,
            caller,
        };
        let found = table.find(&input).map(|(_, route)| route.name().to_string());
        (found, table.needs_certificate(&input))
    };
    assert_eq!(find("chat", Some("spiffe://prod/a")), (Some("chat".to_owned()), false));
    assert_eq!(find("news", Some("spiffe://prod/a")), (Some("prod".to_owned()), false));
    assert_eq!(find("chat", Some("spiffe://test/a")), (None, false), "another certificate does not help");
    assert_eq!(find("chat", None), (None, true));
}

fn picked(table: &Table, target: &str) -> Option<String> {
    let call = Call::parse(&Method::POST, target, None).unwrap();
    let input = RouteInput {
        call: &call,
        headers: &HeaderMap::new(),
        may_have_endpoint_header: false,
        listener: 0,
        client: None,
        caller: RouteCaller::default(),
    };
    table.find(&input).map(|(_, route)| route.name().to_string())
}

#[test]
fn the_first_route_that_matches_wins() {
    let routes =
        [route("chat", hubs(&["chat"])), route("c", hubs(&["c*"])), route("chat too", hubs(&["chat", "news"]))];
    let table = table(&routes);
    for (target, expected) in [
        ("/api/hubs/CHAT/:send", Some("chat")),
        ("/api/hubs/cats/:send", Some("c")),
        ("/api/hubs/news/:send", Some("chat too")),
        ("/api/hubs/other/:send", None),
    ] {
        assert_eq!(picked(&table, target).as_deref(), expected, "{target}");
    }
}

#[test]
fn unknown_name_is_an_error_and_never_matches_everything() {
    let build = |routes: &[RouteSettings]| Table::build(routes, &[EndpointName::new("east")], &["default"]);
    let name = || RouteName::new("only");
    let elsewhere = MatchSettings { listeners: Constraint::OneOf(vec!["internal".into()]), ..Default::default() };
    let no_listener = TableError::NoListener { route: name(), listener: "internal".into() };
    assert_eq!(build(&[route("only", elsewhere)]).unwrap_err(), no_listener);

    let mut to_nowhere = route("only", MatchSettings::default());
    to_nowhere.endpoints.push(RouteEndpoint { endpoint: EndpointName::new("south"), weight: 1 });
    let no_endpoint = TableError::NoEndpoint { route: name(), endpoint: EndpointName::new("south") };
    assert_eq!(build(&[to_nowhere.clone()]).unwrap_err(), no_endpoint);
    to_nowhere.endpoints.clear();
    assert_eq!(build(&[to_nowhere]).unwrap_err(), TableError::NoTarget(name()));
}

#[test]
fn empty_list_matches_nothing() {
    let nothing =
        |matches: MatchSettings| assert_eq!(picked(&table(&[route("only", matches)]), "/api/hubs/h/:send"), None);
    let any = MatchSettings::default;
    nothing(MatchSettings { hubs: Constraint::OneOf(vec![]), ..any() });
    nothing(MatchSettings { groups: Constraint::OneOf(vec![]), ..any() });
    nothing(MatchSettings { users: Constraint::OneOf(vec![]), ..any() });
    nothing(MatchSettings { applications: Constraint::OneOf(vec![]), ..any() });
    nothing(MatchSettings { listeners: Constraint::OneOf(vec![]), ..any() });
    nothing(MatchSettings { clients: Constraint::OneOf(vec![]), ..any() });
}

#[test]
fn call_over_a_unix_socket_matches_no_network() {
    let matches =
        MatchSettings { clients: Constraint::OneOf(vec!["0.0.0.0/0".parse().unwrap()]), ..Default::default() };
    assert_eq!(picked(&table(&[route("net", matches)]), "/api/hubs/h/:send"), None);
}

/// Any conditions on hub, group and operation. Hubs are names, prefixes and other patterns.
fn any_rules() -> impl Strategy<Value = MatchSettings> {
    let names = prop::collection::vec("[abAB]{1,3}|[ab]{0,3}\\*|\\*?[ab]\\*[ab]?|\\*\\*", 0..4);
    (names, prop::option::of("[gh]\\*?"), any::<bool>()).prop_map(|(names, group, is_for_groups)| MatchSettings {
        groups: group.map_or(Constraint::Any, |group| name(&group)),
        operations: is_for_groups.then_some(OperationSet::GROUPS),
        ..if names.is_empty() {
            MatchSettings::default()
        } else {
            hubs(&names.iter().map(String::as_str).collect::<Vec<_>>())
        }
    })
}

proptest! {
    /// The hub index only saves time.
    #[test]
    fn the_index_agrees_with_trying_every_route(
        rules in prop::collection::vec(any_rules(), 1..12),
        hub in "[aAbB]{1,5}",
        group in "[gh]{1,2}",
    ) {
        let routes: Vec<_> = rules.into_iter().enumerate().map(|(index, rules)| route(&index.to_string(), rules)).collect();
        let table = table(&routes);
        for (method, target) in [
            (Method::POST, format!("/api/hubs/{hub}/:send")),
            (Method::POST, format!("/api/hubs/{hub}/groups/{group}/:send")),
            (Method::PUT, format!("/api/hubs/%{:x}{}/groups/{group}/connections/c", hub.as_bytes()[0], &hub[1..])),
            (Method::GET, "/api/auth/accessKey".to_owned()),
        ] {
            let call = Call::parse(&method, &target, None).unwrap();
            let input = RouteInput { call: &call, headers: &HeaderMap::new(), may_have_endpoint_header: false, listener: 0, client: None, caller: RouteCaller::default() };
            let expected = table.routes().iter().position(|route| route.mismatch(&input).is_none());
            prop_assert_eq!(table.find(&input).map(|(index, _)| index), expected, "{}", target);
        }
    }
}

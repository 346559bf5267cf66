//! Endpoints that calls name: by a capture in the hub, the group or the application, or in a header.

use http::{HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::endpoint::EndpointName;
use crate::route::{
    Case, MatchSettings, RouteCaller, RouteEndpoint, RouteName, RouteSettings, Table, TableError, WhenUnavailable,
};
use crate::signalr::Call;

const NAMES: [&str; 4] = ["contoso", "Fabrikam", "northwind", "a-b"];

fn patterns(texts: &[&str], case: Case) -> Constraint<Pattern> {
    Constraint::OneOf(texts.iter().map(|text| Pattern::with_capture(text, case).unwrap()).collect())
}

fn hubs(texts: &[&str]) -> MatchSettings {
    MatchSettings { hubs: patterns(texts, Case::Insensitive), ..Default::default() }
}

/// A route to the endpoints with these names, or to any if there are none.
fn route(name: &str, matches: MatchSettings, endpoints: &[&str]) -> RouteSettings {
    let endpoint = |name: &&str| RouteEndpoint { endpoint: EndpointName::new(name), weight: 1 };
    RouteSettings {
        name: RouteName::new(name),
        matches,
        pick: Pick::First,
        when_unavailable: WhenUnavailable::default(),
        endpoint_header: None,
        rate: None,
        endpoints: endpoints.iter().map(endpoint).collect(),
    }
}

fn by_header(header: &'static str, endpoints: &[&str]) -> RouteSettings {
    let endpoint_header = Some(HeaderName::from_static(header));
    RouteSettings { endpoint_header, ..route("header", MatchSettings::default(), endpoints) }
}

fn build(routes: &[RouteSettings], names: &[&str]) -> Result<Table, TableError> {
    let names: Vec<_> = names.iter().map(|name| EndpointName::new(name)).collect();
    Table::build(routes, &names, &["default"])
}

/// Returns the route of a call and the endpoints that it may be sent to.
fn sent(table: &Table, target: &str, headers: &HeaderMap) -> (String, Result<Vec<String>, NamedEndpointError>) {
    let (path, query) = target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
    let call = Call::parse(&Method::POST, path, query).unwrap();
    let input = RouteInput {
        call: &call,
        headers,
        may_have_endpoint_header: true,
        listener: 0,
        client: None,
        caller: RouteCaller::default(),
    };
    let (_, route) = table.find(&input).unwrap();
    let choice = Choice::new(route, &input);
    let endpoints = choice.map(|choice| {
        assert_eq!(choice.order().left(), choice.targets().len());
        let indexes: Vec<usize> = choice.endpoint_indexes().collect();
        assert_eq!(choice.order().collect::<Vec<_>>(), indexes);
        choice.targets().iter().map(|target| target.name().to_string()).collect()
    });
    (route.name().to_string(), endpoints)
}

fn one(name: &str) -> Vec<String> {
    vec![name.to_owned()]
}

fn unknown(by: &NamedBy, name: &str) -> Result<Vec<String>, NamedEndpointError> {
    Err(NamedEndpointError::unknown(by, Some(name)))
}

#[test]
fn hub_names_the_endpoint_in_any_case_and_never_falls_through() {
    let routes =
        [route("tenants", hubs(&["{endpoint}_*", "App.{endpoint}"]), &[]), route("rest", hubs(&["*"]), &["contoso"])];
    let table = build(&routes, &NAMES).unwrap();
    for (hub, route, expected) in [
        ("contoso_chat", "tenants", Ok(one("contoso"))),
        ("CONTOSO_chat", "tenants", Ok(one("contoso"))),
        ("fabrikam_", "tenants", Ok(one("Fabrikam"))),
        ("contoso_eu_chat", "tenants", Ok(one("contoso"))),
        ("app.NorthWind", "tenants", Ok(one("northwind"))),
        // The first pattern that matches decides.
        ("app.contoso_x", "tenants", unknown(&NamedBy::Hub, "app.contoso")),
        ("contosos_chat", "tenants", unknown(&NamedBy::Hub, "contosos")),
        ("contoso", "rest", Ok(one("contoso"))),
    ] {
        let target = format!("/api/hubs/{hub}/:send");
        assert_eq!(sent(&table, &target, &HeaderMap::new()), (route.to_owned(), expected), "{hub}");
    }
}

#[test]
fn route_confined_to_a_list_serves_no_other_endpoint() {
    let routes = [
        route("tenants", hubs(&["{endpoint}_*"]), &["contoso", "Fabrikam"]),
        route("rest", hubs(&["*"]), &["contoso"]),
    ];
    let table = build(&routes, &NAMES).unwrap();
    let endpoint = |hub: &str| sent(&table, &format!("/api/hubs/{hub}/:send"), &HeaderMap::new()).1;
    assert_eq!(endpoint("FABRIKAM_chat"), Ok(one("Fabrikam")));
    assert_eq!(endpoint("northwind_chat"), unknown(&NamedBy::Hub, "northwind"));
}

#[test]
fn group_and_application_name_the_endpoint() {
    let groups = MatchSettings { groups: patterns(&["{endpoint}/*"], Case::Sensitive), ..Default::default() };
    let applications =
        MatchSettings { applications: patterns(&["{endpoint}"], Case::Insensitive), ..Default::default() };
    let routes = [route("groups", groups, &[]), route("applications", applications, &[])];
    let table = build(&routes, &NAMES).unwrap();
    let endpoint = |target: &str| sent(&table, target, &HeaderMap::new()).1;
    assert_eq!(endpoint("/api/hubs/h/groups/a-b%2Froom/:send"), Ok(one("a-b")));
    assert_eq!(endpoint("/api/hubs/h/groups/%61-b%2Froom/:send"), Ok(one("a-b")));
    assert_eq!(endpoint("/api/hubs/h/groups/Contoso%2Froom/:send"), unknown(&NamedBy::Group, "Contoso"));
    assert_eq!(endpoint("/api/hubs/h/:send?application=FABRIKAM"), Ok(one("Fabrikam")));
    assert_eq!(endpoint("/api/hubs/h/:send?application="), unknown(&NamedBy::Application, ""));
    let long = "n".repeat(300);
    let expected = unknown(&NamedBy::Application, &long[..64]);
    assert_eq!(endpoint(&format!("/api/hubs/h/:send?application={long}")), expected);
}

#[test]
fn header_names_any_endpoint_and_is_required_without_a_list() {
    let table = build(&[by_header("x-tenant", &[])], &NAMES).unwrap();
    let header = HeaderName::from_static("x-tenant");
    let with = |name: &HeaderName, value| HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(value))]);
    let endpoint = |headers: &HeaderMap| sent(&table, "/api/hubs/h/:send", headers).1;
    assert_eq!(endpoint(&with(&header, "Fabrikam")), Ok(one("Fabrikam")));
    let by = NamedBy::Header(header.clone());
    assert_eq!(endpoint(&with(&header, "fabrikam")), unknown(&by, "fabrikam"));
    assert_eq!(endpoint(&HeaderMap::new()), Err(NamedEndpointError::HeaderMissing { header: header.clone() }));
    // The usual header has no meaning here, and a call that relies on it must not be sent elsewhere.
    let mut both = with(&header, "contoso");
    both.insert(ENDPOINT_HEADER, HeaderValue::from_static("contoso"));
    assert_eq!(endpoint(&both), Err(NamedEndpointError::NotAllowed));

    let table = build(&[by_header("x-tenant", &["contoso", "northwind"])], &NAMES).unwrap();
    let endpoint = |headers: &HeaderMap| sent(&table, "/api/hubs/h/:send", headers).1;
    assert_eq!(endpoint(&HeaderMap::new()), Ok(vec!["contoso".to_owned(), "northwind".to_owned()]));
    assert_eq!(endpoint(&with(&header, "Fabrikam")), unknown(&by, "Fabrikam"));
}

#[test]
fn usual_header_is_an_error_where_the_hub_names_the_endpoint() {
    let table = build(&[route("tenants", hubs(&["{endpoint}_*"]), &[])], &NAMES).unwrap();
    let headers = HeaderMap::from_iter([(ENDPOINT_HEADER, HeaderValue::from_static("contoso"))]);
    assert_eq!(sent(&table, "/api/hubs/contoso_chat/:send", &headers).1, Err(NamedEndpointError::NotAllowed));
}

#[test]
fn names_that_differ_only_in_case_are_an_error_where_case_is_not_significant() {
    let names = ["contoso", "Contoso"];
    let ambiguous = TableError::Ambiguous { one: EndpointName::new("contoso"), other: EndpointName::new("Contoso") };
    for endpoints in [&[][..], &names] {
        let tenants = route("tenants", hubs(&["{endpoint}_*"]), endpoints);
        assert_eq!(build(&[tenants], &names).unwrap_err(), ambiguous);
    }
    assert!(build(&[by_header("x-tenant", &[])], &names).is_ok());
}

proptest! {
    /// Adding an endpoint never moves a call from one endpoint to another.
    #[test]
    fn another_endpoint_takes_no_calls(
        mut names in prop::collection::btree_set("[ab]{1,3}", 1..5),
        pattern in "[ab.]{0,2}\\{endpoint\\}(_|__|_x|x)(\\*|y)?",
        added in "[abx_]{1,4}",
        hub in "[ab.][ab.x_y]{0,8}",
    ) {
        names.remove(&added);
        prop_assume!(!names.is_empty());
        let before: Vec<&str> = names.iter().map(String::as_str).collect();
        let after: Vec<&str> = before.iter().copied().chain([&*added]).collect();
        let routes = [route("tenants", hubs(&[&pattern]), &[]), route("rest", MatchSettings::default(), &[before[0]])];
        let target = format!("/api/hubs/a{hub}/:send");
        let sent = |names: &[&str]| sent(&build(&routes, names).unwrap(), &target, &HeaderMap::new());
        let (before, after) = (sent(&before), sent(&after));
        prop_assert!(before == after || (before.1.is_err() && after.1 == Ok(one(&added))), "{:?} {:?}", before, after);
    }
}

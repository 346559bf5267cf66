//! Routes: how many there may be, how many endpoints each may have, and which are not allowed.

use std::fmt::Write;

use super::*;

/// Returns a configuration with these endpoints and no routes.
fn with_endpoints<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let mut config = "[credentials.key]\nkind = \"access_key\"\nkey = { file = \"secret\" }\n".to_owned();
    for name in names {
        let url = format!("https://{}.service.signalr.net", name.to_ascii_lowercase());
        writeln!(config, "[endpoints.{name}]\nurl = \"{url}\"\ncredential = \"key\"").unwrap();
    }
    config
}

fn numbered(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("e{number}")).collect()
}

#[test]
fn there_is_no_limit_on_the_number_of_routes() {
    let mut config = with_endpoints(["east"]);
    for number in 0..300 {
        let (name, hub) = (format!("r{number}"), format!("hub{number}"));
        writeln!(config, "[[routes]]\nname = \"{name}\"\nmatch = {{ hub = \"{hub}\" }}\nendpoints = [\"east\"]")
            .unwrap();
    }
    assert_eq!(load_toml(&config).unwrap().settings.routes.len(), 300);
}

#[test]
fn more_than_32_endpoints_need_routes_and_a_route_has_at_most_32() {
    let names = numbered(33);
    let config = with_endpoints(names.iter().map(String::as_str));
    let text = report(&config);
    assert!(text.contains("routes: there are 33 endpoints and no route"), "{text}");
    let text = report(&format!("{config}[[routes]]\nname = \"all\"\nendpoints = {names:?}\n"));
    assert!(text.contains("routes.0.endpoints: has 33 endpoints, the maximum is 32"), "{text}");
}

/// Returns the report on a configuration with these endpoints and one route.
fn report_of_route(endpoints: &[&str], route: &str) -> String {
    report(&format!("{}[[routes]]\nname = \"tenants\"\n{route}\n", with_endpoints(endpoints.iter().copied())))
}

#[test]
fn route_needs_no_endpoints_if_each_call_names_its_endpoint() {
    for route in [
        "match = { hub = \"{endpoint}_*\" }",
        "match = { hub = [\"{endpoint}_*\", \"app.{endpoint}\"] }\nendpoints = [\"contoso\"]",
        "match = { group = \"{endpoint}/*\" }",
        "match = { application = \"{endpoint}\" }",
        "endpoint_header = true",
        "endpoint_header = \"x-tenant\"",
    ] {
        let config = with_endpoints(["contoso", "fabrikam"]);
        let loaded = load_toml(&format!("{config}[[routes]]\nname = \"tenants\"\n{route}\n"));
        let settings = loaded.unwrap_or_else(|err| panic!("{route}: {err}")).settings;
        assert!(settings.routes[0].named_by().is_some(), "{route}");
    }
}

#[test]
fn capture_that_does_not_exist_is_a_warning_where_its_text_could_match() {
    for (route, expected) in [
        ("match = { group = \"{tenant}/*\" }", Some("`{tenant}/*` matches only names that contain `{tenant}`")),
        ("match = { application = [\"a\", \"x-{Endpoint}\"] }", Some("contain `{Endpoint}` with its braces")),
        ("match = { user = \"{user}\" }", Some("contain `{user}` with its braces")),
        ("match = { group = \"{}/{a b}\" }", None),
        ("match = { group = \"{\\\"id\\\": 1}\" }", None),
    ] {
        let config = with_endpoints(["a"]);
        let text = format!("{config}[[routes]]\nname = \"tenants\"\n{route}\nendpoints = [\"a\"]\n");
        let warnings = load_toml(&text).unwrap_or_else(|err| panic!("{route}: {err}")).warnings;
        let warnings: Vec<String> = warnings.into_iter().map(|warning| warning.fact).collect();
        let found = warnings.iter().filter(|warning| warning.contains("braces")).count();
        assert_eq!(found, usize::from(expected.is_some()), "{warnings:?}");
        assert!(
            expected.is_none_or(|expected| warnings.iter().any(|warning| warning.contains(expected))),
            "{warnings:?}"
        );
    }
}

#[test]
fn unclear_captures_are_problems() {
    for (route, problem) in [
        ("match = { hub = \"chat\" }", "routes.0.endpoints: is missing: the route has no endpoint"),
        ("match = { hub = \"{endpoint}*\" }", "routes.0.match.hub: `{endpoint}*` has a `*` right after `{endpoint}`"),
        ("match = { hub = \"*_{endpoint}\" }", "routes.0.match.hub: `*_{endpoint}` has a `*` before `{endpoint}`"),
        (
            "match = { group = \"{endpoint}/{endpoint}\" }",
            "routes.0.match.group: `{endpoint}/{endpoint}` has more than one `{endpoint}`",
        ),
        ("match = { hub = \"{tenant}_*\" }\nendpoints = [\"a\"]", "routes.0.match.hub: `{tenant}_*` can never match"),
        (
            "match = { user = \"{endpoint}_*\" }\nendpoints = [\"a\"]",
            "routes.0.match.user: `{endpoint}_*` would let a user",
        ),
        ("match = { hub = [\"{endpoint}_*\", \"chat\"] }", "routes.0.match.hub: `chat` names no endpoint"),
        (
            "match = { hub = \"{endpoint}_*\", group = \"{endpoint}\" }",
            "routes.0.match.hub: names the endpoint, and so does `group`",
        ),
        (
            "match = { hub = \"{endpoint}_*\" }\nendpoint_header = true",
            "routes.0.match.hub: names the endpoint, and so does `endpoint_header`",
        ),
        (
            "match = { hub = \"{endpoint}_*\" }\npick = \"all\"",
            "routes.0.pick: has no effect: each call names its endpoint",
        ),
        ("endpoint_header = true\npick = \"weighted\"", "routes.0.pick: has no effect"),
        ("endpoint_header = \"x tenant\"", "routes.0.endpoint_header: `x tenant` is not a header name"),
        ("endpoint_header = true\nendpoints = []", "routes.0.endpoints: is empty"),
    ] {
        let text = report_of_route(&["a"], route);
        assert!(text.contains(problem), "{route}: {text}");
    }
}

#[test]
fn names_that_no_call_can_have_whole_are_problems() {
    let tenants = "match = { hub = \"{endpoint}_*\" }";
    let text = report_of_route(&["contoso", "contoso_eu"], tenants);
    assert_eq!(
        text,
        "endpoints.contoso_eu: has `_` in its name, where `{endpoint}` in `{endpoint}_*` of the route `tenants` ends: its calls would name `contoso` (gateway.toml:7)
  hint: rename the endpoint, put another text after `{endpoint}`, or list in `endpoints` of the route the endpoints that its calls may name"
    );
    // Case is significant as it is in the match.
    assert!(report_of_route(&["axb"], "match = { hub = \"{endpoint}X*\" }").contains("endpoints.axb: has `x`"));
    let text = report_of_route(&["Contoso", "contoso"], tenants);
    assert!(text.contains("endpoints.contoso: differs from `Contoso` only in case"), "{text}");
    let text = report_of_route(&["a-b"], &format!("{tenants}\nendpoints = [\"a-b\"]"));
    assert!(text.contains("routes.0.endpoints.0: hubs begin with a letter and have no `-`"), "{text}");
    // What calls cannot name does no harm.
    for (endpoints, route) in [
        (["contoso", "contoso_eu"], "match = { hub = \"{endpoint}_*\" }\nendpoints = [\"contoso\"]"),
        (["contoso", "contoso_eu"], "match = { hub = \"app_{endpoint}\" }"),
        (["axb", "other"], "match = { group = \"{endpoint}X*\" }"),
        (["Contoso", "contoso"], "match = { group = \"{endpoint}/*\" }"),
        (["Contoso", "contoso"], "endpoint_header = true"),
    ] {
        let config = format!("{}[[routes]]\nname = \"tenants\"\n{route}\n", with_endpoints(endpoints));
        load_toml(&config).unwrap_or_else(|err| panic!("{route}: {err}"));
    }
}

#[test]
fn endpoints_that_no_call_can_name_are_warnings() {
    let warnings = |route: &str| {
        let config = with_endpoints(["contoso", "a-b", "1st"]);
        let loaded = load_toml(&format!("{config}[[routes]]\nname = \"tenants\"\n{route}\n")).unwrap();
        loaded.warnings.into_iter().map(|warning| warning.key).collect::<Vec<_>>()
    };
    assert_eq!(warnings("match = { hub = \"{endpoint}_*\" }"), ["endpoints.1st", "endpoints.a-b"]);
    assert_eq!(warnings("match = { hub = \"app_{endpoint}\" }"), ["endpoints.a-b"]);
    assert_eq!(warnings("match = { group = \"{endpoint}\" }"), Vec::<String>::new());
    assert_eq!(warnings("endpoint_header = true"), Vec::<String>::new());
}

#[test]
fn tests_say_which_endpoint_a_call_names() {
    let config = |tests: &str| {
        format!(
            "{}[[routes]]\nname = \"tenants\"\nmatch = {{ hub = \"{{endpoint}}_*\" }}\n{tests}",
            with_endpoints(["contoso", "fabrikam"])
        )
    };
    let good = "[[tests]]\nurl = \"/api/hubs/CONTOSO_chat/:send\"\nroute = \"tenants\"\nendpoints = \"contoso\"\n\
                [[tests]]\nurl = \"/api/hubs/northwind_chat/:send\"\nrefused = \"no_endpoint\"\n";
    load_toml(&config(good)).unwrap();
    let text = report(&config("[[tests]]\nurl = \"/api/hubs/fabrikam_chat/:send\"\nendpoints = \"contoso\"\n"));
    assert!(text.contains("expected endpoints `contoso`, got route `tenants` to `fabrikam`"), "{text}");
}

#[test]
fn patterns_that_no_name_of_the_api_matches_are_problems_or_warnings() {
    let with = |condition: &str| {
        format!("{}\n[[routes]]\nname = \"r\"\nmatch = {{ {condition} }}\nendpoints = [\"east\"]\n", minimal())
    };
    for condition in ["hub = '1*'", "hub = 'a-b'", "hub = 'a*-b'", "hub = '_x'", "group = '.'", "user = ['a', '..']"] {
        let report = report(&with(condition));
        assert!(report.contains("can never match"), "{condition}: {report}");
    }
    let long = format!("hub = '{}'", "a".repeat(129));
    assert!(report(&with(&long)).contains("can never match"));
    for (condition, is_warned) in [
        ("hub = 'northwind-*'", true),
        ("hub = 'my-app_*'", false),
        ("hub = '*'", false),
        ("hub = 'chat'", false),
        ("hub = '*_chat'", false),
        ("group = '...'", false),
        ("group = 'a-*'", false),
    ] {
        let warnings = load_toml(&with(condition)).unwrap().warnings;
        let found = warnings.iter().any(|warning| warning.fact.contains("hub names have no `-`"));
        assert_eq!(found, is_warned, "{condition}: {warnings:?}");
    }
}

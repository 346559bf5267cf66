//! Callers that are known by their certificates: which configurations are valid, and the routing tests that name a caller.

use super::*;

/// Returns a configuration with a listener that asks for certificates, two endpoints, and more.
fn with_client_ca(more: &str) -> String {
    format!(
        r#"
[listeners.mesh]
bind = "127.0.0.1:0"
tls = {{ certificate = "certificate.pem", key = "secret", client_ca = "ca.pem", client_auth = "optional" }}
{}
[endpoints.west]
url = "https://west.service.signalr.net"
credential = "fabrikam"
{more}"#,
        minimal()
    )
}

#[test]
fn caller_conditions_need_a_listener_that_asks_for_certificates() {
    let more = "[callers.orders]\nmatch = \"spiffe://prod/orders\"\n[[routes]]\nname = \"a\"\nmatch = { caller = \"spiffe://prod/*\" }\nendpoints = [\"east\"]\n";
    let report = report(&format!("{}{more}", minimal()));
    for key in ["callers.orders.match", "routes.0.match.caller"] {
        assert!(
            report.contains(&format!("{key}: can never match: no listener has `tls` with `client_ca`")),
            "{report}"
        );
    }
    assert!(load_toml(&with_client_ca(more)).is_ok());
}

#[test]
fn keys_for_certificates_of_callers_need_a_client_ca_on_a_tcp_listener() {
    let tls = |bind: &str, more: &str| {
        format!(
            "[listeners.mesh]\nbind = \"{bind}\"\ntls = {{ certificate = \"certificate.pem\", key = \"secret\", {more} }}\n{}",
            minimal()
        )
    };
    let text = report(&tls("127.0.0.1:0", "client_auth = \"optional\", client_crl = \"token\""));
    for key in ["client_auth", "client_crl"] {
        assert!(text.contains(&format!("listeners.mesh.tls.{key}: has no effect without `client_ca`")), "{text}");
    }
    let text = report(&tls("unix:gateway.sock", "client_ca = \"ca.pem\""));
    assert!(text.contains("listeners.mesh.tls.client_ca: callers on a Unix socket have no identity"), "{text}");
    let text = report(&tls("127.0.0.1:0", "client_ca = \"missing.pem\", client_crl = []"));
    assert!(text.contains("listeners.mesh.tls.client_ca: the file missing.pem cannot be read"), "{text}");
    assert!(text.contains("listeners.mesh.tls.client_crl: is empty"), "{text}");
}

#[test]
fn identity_belongs_to_one_caller_and_the_narrower_pattern_applies() {
    let callers = |one: &str, other: &str| {
        with_client_ca(&format!("[callers.one]\nmatch = {one}\n[callers.other]\nmatch = {other}\n"))
    };
    for (one, other) in [
        ("\"spiffe://prod/*\"", "\"spiffe://prod/orders\""),
        ("\"*\"", "[\"spiffe://prod/*\", \"*.prod.internal\"]"),
        ("\"spiffe://prod/a*\"", "\"spiffe://prod/b*\""),
        ("[\"spiffe://prod/a*\", \"spiffe://prod/*a\"]", "\"spiffe://test/*\""),
    ] {
        let loaded = load_toml(&callers(one, other));
        assert!(loaded.is_ok(), "{one} {other}: {}", loaded.unwrap_err());
    }
    for (one, other) in [
        ("\"spiffe://prod/orders\"", "[\"x:y\", \"spiffe://prod/orders\"]"),
        ("\"spiffe://prod/*/orders\"", "\"spiffe://prod/eu/*\""),
        ("\"spiffe://*\"", "\"*/orders\""),
        ("\"spiffe://prod/*\"", "\"spiffe://prod/*\""),
        ("\"Orders.internal\"", "\"orders.INTERNAL\""),
    ] {
        let text = report(&callers(one, other));
        assert!(text.contains("match the same identities"), "{one} {other}: {text}");
    }
}

#[test]
fn what_a_caller_may_use_must_exist() {
    let text = report(&with_client_ca(
        "[callers.orders]\nmatch = []\noperations = [\"sends\"]\nhubs = [\"a-b\"]\nendpoints = [\"eats\", \"w*\"]\nrate = { per_second = 0 }\n",
    ));
    for problem in [
        "callers.orders.match: is empty",
        "callers.orders.operations: `sends` is not an operation",
        "callers.orders.hubs: `a-b` can never match",
        "callers.orders.endpoints: there is no endpoint `eats`",
        "callers.orders.rate.per_second: is 0",
    ] {
        assert!(text.contains(problem), "{problem}: {text}");
    }
}

const ROUTES: &str = r#"
[callers.orders]
match = "spiffe://prod/orders"
operations = ["messages"]
hubs = ["orders*"]
endpoints = ["east"]
[[routes]]
name = "prod"
match = { caller = "spiffe://prod/*", hub = ["orders*", "news"] }
endpoints = ["east"]
[[routes]]
name = "both"
match = { caller = "spiffe://prod/*", hub = "orders_all", operation = "groups" }
pick = "all"
endpoints = ["east", "west"]
[[routes]]
name = "tenants"
match = { hub = "{endpoint}_orders" }
"#;

#[test]
fn routing_tests_name_the_caller() {
    let test = |hub: &str, caller: &str, expected: &str| {
        let caller = if caller.is_empty() { String::new() } else { format!("caller = \"{caller}\"\n") };
        let test = format!("[[tests]]\nurl = \"/api/hubs/{hub}/:send\"\nlistener = \"mesh\"\n{caller}{expected}\n");
        load_toml(&with_client_ca(&format!("{ROUTES}{test}"))).map(drop).map_err(|err| err.to_string())
    };
    assert_eq!(test("orders", "spiffe://prod/orders", "route = \"prod\""), Ok(()));
    assert_eq!(test("news", "spiffe://prod/news", "route = \"prod\""), Ok(()));
    assert_eq!(test("news", "spiffe://prod/orders", "refused = \"caller_not_allowed\""), Ok(()));
    assert_eq!(test("orders", "", "refused = \"certificate_required\""), Ok(()));
    assert_eq!(test("orders", "spiffe://test/orders", "refused = \"no_route\""), Ok(()));
    assert_eq!(test("west_orders", "", "endpoints = \"west\""), Ok(()));
    let report = test("orders", "spiffe://test/orders", "route = \"prod\"").unwrap_err();
    assert!(
        report.contains("`prod` does not match: caller is `spiffe://test/orders`, not `spiffe://prod/*`"),
        "{report}"
    );
}

#[test]
fn caller_that_is_limited_to_endpoints_does_not_learn_which_others_exist() {
    let routes = ROUTES.replace("hubs = [\"orders*\"]\n", "");
    let refused = |hub: &str, kind: &str| {
        let test = format!(
            "[[tests]]\nurl = \"/api/hubs/{hub}/:send\"\nlistener = \"mesh\"\ncaller = \"spiffe://prod/orders\"\nrefused = \"{kind}\"\n"
        );
        load_toml(&with_client_ca(&format!("{routes}{test}"))).map(drop).map_err(|err| err.to_string())
    };
    assert_eq!(refused("west_orders", "caller_not_allowed"), Ok(()));
    assert_eq!(refused("north_orders", "caller_not_allowed"), Ok(()), "there is no such endpoint");
    assert!(refused("east_orders", "caller_not_allowed").unwrap_err().contains("got route `tenants` to `east`"));
}

#[test]
fn routing_test_with_a_caller_needs_a_listener_that_asks_for_certificates() {
    let test = "[listeners.plain]\nbind = \"127.0.0.1:0\"\n[[tests]]\nurl = \"/api/hubs/a/:send\"\nlistener = \"plain\"\ncaller = \"x:y\"\nroute = \"default\"\n";
    let text = report(&with_client_ca(test));
    assert!(text.contains("tests.0.caller: the callers of this listener have no identity"), "{text}");
}

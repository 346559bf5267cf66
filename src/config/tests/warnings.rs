//! Warnings about open listeners and about routes that match less than they appear to; and empty lists, which are problems.

use super::*;

const ENDPOINT: &str = r#"
[credentials.here]
kind = "managed_identity"

[endpoints.east]
url = "https://east.service.signalr.net"
credential = "here"
"#;

fn loaded(toml: &str) -> Result<Loaded, ConfigError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("gateway.toml");
    std::fs::write(&file, format!("{ENDPOINT}{toml}")).unwrap();
    load(&Sources { file: Some(file), ..Sources::default() })
}

/// Returns the keys and facts of the warnings.
fn warnings(toml: &str) -> Vec<(String, String)> {
    let loaded = loaded(toml).unwrap();
    loaded.warnings.into_iter().map(|warning| (warning.key, warning.fact)).collect()
}

#[test]
fn warns_about_a_listener_on_a_network_that_allows_more_than_the_default() {
    for (listener, expected) in [
        ("bind = \"0.0.0.0:8080\"\noperations = [\"messages\", \"credentials\"]", Some("credentials")),
        ("bind = \"[::]:8080\"\noperations = [\"connection_close\", \"hub_execute\"]", Some("execute, close")),
        ("bind = \"10.0.0.1:8080\"\noperations = [\"close\"]", Some("close")),
        ("bind = \"0.0.0.0:8080\"", None),
        ("bind = \"0.0.0.0:8080\"\noperations = [\"close\"]\nclients = [\"10.0.0.0/8\"]", None),
        ("bind = \"127.0.0.1:8080\"\noperations = [\"close\", \"credentials\"]", None),
        ("bind = \"[::1]:8080\"\noperations = [\"close\"]", None),
        ("bind = \"unix:/run/gateway.sock\"\noperations = [\"close\", \"credentials\"]", None),
    ] {
        let found = warnings(&format!("[listeners.default]\n{listener}\n"));
        match expected {
            None => assert_eq!(found, [], "{listener}"),
            Some(sets) => {
                let [(key, fact)] = found.as_slice() else { panic!("{listener}: {found:?}") };
                assert_eq!(key, "listeners.default.operations");
                assert!(fact.ends_with(&format!("may use operations of {sets}")), "{fact}");
            }
        }
    }
}

#[test]
fn warns_about_a_route_for_messages_unless_a_route_matches_execute() {
    let route = |operations: &str| {
        format!("[[routes]]\nname = \"r\"\nmatch.operation = {operations}\nendpoints = [\"east\"]\n")
    };
    let found = warnings(&route("\"messages\""));
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].0, "routes.0.match.operation");
    assert_eq!(warnings(&route("[\"messages\", \"execute\"]")), []);
    assert_eq!(warnings(&route("\"hub_send\"")), []);

    let allowed = "[listeners.default]\nbind = \"127.0.0.1:8080\"\noperations = [\"execute\"]\n";
    assert_eq!(warnings(&(route("\"execute\"") + allowed)), []);
    let found = warnings(&route("\"execute\""));
    assert!(found.len() == 1 && found[0].1.contains("no listener allows `execute`"), "{found:?}");
}

#[test]
fn rejects_an_empty_list_in_a_condition() {
    for condition in ["hub", "group", "user", "application", "operation", "listener", "client", "header"] {
        let route = format!("[[routes]]\nname = \"r\"\nmatch.{condition} = []\nendpoints = [\"east\"]\n");
        let problems = loaded(&route).expect_err(condition).problems;
        assert!(problems.iter().any(|problem| problem.key == format!("routes.0.match.{condition}")), "{problems:?}");
    }
}

#[test]
fn trusted_proxies_must_be_whole_networks_that_the_listener_can_see() {
    let tcp = "bind = \"127.0.0.1:8080\"\n";
    let unix = "bind = \"unix:/run/gateway.sock\"\n";
    for (listener, key, expected) in [
        (
            format!("{tcp}trusted_proxies = [\"10.0.0.5/8\"]"),
            "trusted_proxies",
            "is not the first address of its network",
        ),
        (format!("{tcp}trusted_proxies = [\"proxy.corp\"]"), "trusted_proxies", "`proxy.corp` is not a network"),
        (format!("{tcp}trusted_proxies = [\"unix\"]"), "trusted_proxies", "this is a TCP listener"),
        (format!("{unix}trusted_proxies = [\"10.0.0.0/8\"]"), "trusted_proxies", "have no address"),
        (format!("{tcp}proxy_protocol = true"), "proxy_protocol", "every connection would be closed"),
    ] {
        let problems = loaded(&format!("[listeners.default]\n{listener}\n")).expect_err(&listener).problems;
        let [problem] = problems.as_slice() else { panic!("{listener}: {problems:?}") };
        assert_eq!(problem.key, format!("listeners.default.{key}"), "{listener}");
        assert!(problem.fact.contains(expected), "{listener}: {problem:?}");
    }
    for (listener, is_warned) in [
        (format!("{tcp}trusted_proxies = [\"10.0.0.5\", \"10.1.0.0/16\", \"fd00::/8\"]\nproxy_protocol = true"), false),
        (format!("{unix}trusted_proxies = [\"unix\", \"10.0.0.0/8\"]"), false),
        (format!("{tcp}trusted_proxies = [\"0.0.0.0/0\"]"), true),
        (format!("{tcp}trusted_proxies = [\"::/0\"]"), true),
    ] {
        let found = warnings(&format!("[listeners.default]\n{listener}\n"));
        assert_eq!(
            found.iter().any(|(_, fact)| fact.contains("choose the address")),
            is_warned,
            "{listener}: {found:?}"
        );
    }
}

#[test]
fn warns_about_a_network_with_host_bits() {
    let fact = "`10.0.0.5/8` is not the first address of its network, and matches all of it";
    let listener =
        "[listeners.default]\nbind = \"127.0.0.1:8080\"\nclients = [\"10.0.0.5/8\", \"10.0.0.0/8\", \"10.0.0.5\"]\n";
    assert_eq!(warnings(listener), [("listeners.default.clients".to_owned(), fact.to_owned())]);
    let fix = &loaded(listener).unwrap().warnings[0].fix;
    assert_eq!(fix, "write `10.0.0.5` for this host, or `10.0.0.0/8` for all 8 bits");
    let route = "[[routes]]\nname = \"r\"\nmatch.client = \"10.0.0.5/8\"\nendpoints = [\"east\"]\n";
    assert_eq!(warnings(route), [("routes.0.match.client".to_owned(), fact.to_owned())]);
}

#[test]
fn warns_about_limits_that_refuse_ordinary_calls() {
    let found = warnings("[limits]\nmax_body = 1\nmax_header = 100\n");
    let keys: Vec<&str> = found.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["limits.max_header", "limits.max_body"], "{found:?}");
    assert!(found[1].1.contains("refused with 413"), "{found:?}");
    assert_eq!(warnings("[limits]\nmax_body = \"1KiB\"\nmax_header = \"1KiB\"\n"), []);
}

#[test]
fn warns_about_an_endpoint_in_another_cloud_than_its_credential() {
    let config = |host: &str, cloud: &str| {
        format!(
            "[credentials.app]\nkind = \"federated\"\ntenant = \"fabrikam.com\"\n\
             client_id = \"11111111-2222-3333-4444-555555555555\"\n{cloud}\nassertion = {{ source = \"file\", path = \"/x\" }}\n\
             [endpoints.west]\nurl = \"https://{host}\"\ncredential = \"app\"\n"
        )
    };
    let government = "cloud = \"us_government\"";
    for (host, cloud, expected) in [
        ("west.service.signalr.net", "", None),
        ("west.signalr.azure.us", government, None),
        ("west.service.signalr.azure.cn", "cloud = \"china\"", None),
        ("signalr.fabrikam.example", government, None),
        ("west.signalr.azure.us", "cloud = \"custom\"\nauthority = \"https://login.example\"", None),
        ("west.signalr.azure.us", "", Some("us_government")),
        ("west.service.signalr.azure.cn", "", Some("china")),
        ("west.service.signalr.net", government, Some("public")),
    ] {
        let found = loaded(&config(host, cloud)).unwrap().warnings;
        let Some(expected) = expected else {
            assert_eq!(found, [], "{host} {cloud}");
            continue;
        };
        let [warning] = found.as_slice() else { panic!("{host} {cloud}: {found:?}") };
        assert_eq!(warning.key, "endpoints.west.url");
        assert!(warning.fix.starts_with(&format!("write cloud = \"{expected}\" in [credentials.app]")), "{warning:?}");
    }
}

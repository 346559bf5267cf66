//! `explain`: the route and endpoints of a call, or why it is refused, without a running gateway.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::valid_config;
use crate::support::{BROADCAST_PATH, run, run_with_stdin};

#[tokio::test]
async fn explain_shows_the_route_of_a_call_or_why_it_is_rejected() {
    let folder = tempfile::tempdir().unwrap();
    let config = valid_config(folder.path());
    let explain = async |rest: &[&str]| {
        let mut arguments = vec!["explain", "--config", &config, "--json"];
        arguments.extend(rest);
        let finished = run(&arguments).await;
        (finished.code, serde_json::from_str::<Value>(&finished.stdout).unwrap())
    };
    let (code, found) = explain(&["POST", "/api/hubs/Chat/users/a%2Fb/:send"]).await;
    assert_eq!(code, Some(0), "{found}");
    let seen = ["operation", "hub", "user", "route"].map(|key| found[key].as_str().unwrap().to_owned());
    assert_eq!(seen, ["user_send", "Chat", "a/b", "default"]);
    assert_eq!(found["endpoints"][0]["endpoint"], "local");
    let (_, text) = {
        let finished = run(&["explain", "--config", &config, "GET", "/api/hubs/chat/users/u"]).await;
        (finished.code, finished.stdout)
    };
    assert!(text.contains("\nroute       default (pick: first, in this order)\n"), "{text}");
    for (rest, kind) in [
        (vec!["GET", "/nowhere"], "unknown_path"),
        (vec!["GET", BROADCAST_PATH], "method_not_allowed"),
        (vec!["POST", "/api/hubs/chat/:generateToken"], "operation_not_allowed"),
        (vec!["POST", BROADCAST_PATH, "-H", "origin: https://evil.example"], "origin_not_allowed"),
        (vec!["POST", "http://evil.example/api/hubs/chat/:send"], "host_not_allowed"),
    ] {
        let (code, found) = explain(&rest).await;
        assert_eq!((code, found["refused"]["kind"].as_str()), (Some(1), Some(kind)), "{rest:?}: {found}");
    }
}

/// Writes a configuration with a route for each condition, and two endpoints.
fn routed_config(folder: &Path) -> String {
    let path = valid_config(folder);
    let more = r#"
[listeners.second]
bind = "127.0.0.1:0"
operations = ["messages", "credentials"]

[endpoints.other]
url = "http://127.0.0.1:2"
credential = "emulator"
role = "secondary"

[[routes]]
name = "hub"
match = { hub = ["news", "n_*"] }
endpoints = ["local"]
[[routes]]
name = "operation"
match = { operation = ["queries", "hub_send"] }
endpoints = ["local"]
[[routes]]
name = "group"
match = { group = "g*" }
endpoints = ["local"]
[[routes]]
name = "user"
match = { user = "ann" }
endpoints = ["local"]
[[routes]]
name = "application"
match = { application = "shop" }
endpoints = ["local"]
[[routes]]
name = "header"
match = { header = { name = "x-region", value = "east" } }
endpoints = ["local"]
[[routes]]
name = "listener"
match = { listener = "default" }
endpoints = ["local"]
[[routes]]
name = "client"
match = { client = "10.0.0.0/8" }
endpoints = ["local"]
[[routes]]
name = "rest"
pick = "hash"
hash_by = "user"
endpoint_header = true
endpoints = ["local", { name = "other", weight = 1000 }]
"#;
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::write(&path, format!("{text}{more}")).unwrap();
    path
}

#[tokio::test]
async fn explain_shows_why_each_earlier_route_did_not_match() {
    let folder = tempfile::tempdir().unwrap();
    let config = routed_config(folder.path());
    let call = [
        "POST",
        "/api/hubs/chat/users/Ann/:send?application=Blog",
        "-H",
        "x-region: west",
        "--listener",
        "second",
        "--client",
        "192.168.7.7",
    ];
    let finished = run(&[&["explain", "--config", &config], &call[..]].concat()).await;
    assert_eq!(finished.code, Some(0), "{finished:?}");
    insta::assert_snapshot!("explain", finished.stdout);
    let finished = run(&[&["explain", "--json", "--config", &config], &call[..]].concat()).await;
    insta::assert_snapshot!("explain_json", finished.stdout);
    // Operations that need one endpoint prefer a primary, unless a header selects the endpoint.
    for (header, endpoints) in
        [("x-none: 1", vec!["local", "other"]), ("signalr-gateway-endpoint: other", vec!["other"])]
    {
        let url = "/api/hubs/chat/:generateToken";
        let call = ["explain", "--json", "--config", &config, "POST", url, "--listener", "second", "-H", header];
        let found: Value = serde_json::from_str(&run(&call).await.stdout).unwrap();
        let names: Vec<_> = found["endpoints"].as_array().unwrap().iter().map(|one| one["endpoint"].clone()).collect();
        assert_eq!(names, endpoints, "{found}");
    }
}

#[tokio::test]
async fn explain_shows_what_names_the_endpoint_of_a_call() {
    let folder = tempfile::tempdir().unwrap();
    let config = routed_config(folder.path());
    let text = std::fs::read_to_string(&config).unwrap();
    let tenants = "\n[[routes]]\nname = \"tenants\"\nmatch = { hub = \"{endpoint}_*\" }\n";
    // Before the other routes, which begin with the first `[[routes]]`.
    let (before, after) = text.split_once("[[routes]]").unwrap();
    std::fs::write(&config, format!("{before}{tenants}[[routes]]{after}")).unwrap();
    let explain = async |hub: &str| {
        let url = format!("/api/hubs/{hub}/:send");
        run(&["explain", "--config", &config, "POST", &url]).await
    };
    let found = explain("OTHER_chat").await;
    assert_eq!(found.code, Some(0), "{}", found.stderr);
    assert!(
        found.stdout.contains("tenants (the endpoint that the hub names)\nendpoint    other ("),
        "{}",
        found.stdout
    );
    let unknown = explain("nowhere_chat").await;
    assert_eq!(unknown.code, Some(1), "{}", unknown.stderr);
    assert!(
        unknown.stdout.contains("refused     404 no_endpoint: the hub of the call names `nowhere`"),
        "{}",
        unknown.stdout
    );
}

#[tokio::test]
async fn explain_reads_a_configuration_from_stdin() {
    let folder = tempfile::tempdir().unwrap();
    let text = std::fs::read_to_string(routed_config(folder.path())).unwrap();
    // Paths are then relative to the working directory.
    let text = text.replace("file = \"key\"", &format!("file = \"{}\"", folder.path().join("key").display()));
    let call = ["POST", "/api/hubs/news/:send"];
    let found = run_with_stdin(&text, &[&["explain", "--config", "-", "--json"][..], &call].concat()).await;
    assert_eq!(found.code, Some(0), "{found:?}");
    let found: Value = serde_json::from_str(&found.stdout).unwrap();
    assert_eq!((&found["route"], &found["endpoints"][0]["endpoint"]), (&json!("hub"), &json!("local")), "{found}");

    let wrong = text.replace("[[routes]]", "[[route]]");
    let refused = run_with_stdin(&wrong, &[&["explain", "--config", "-"][..], &call].concat()).await;
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(2), ""), "{refused:?}");
    assert!(refused.stderr.contains("route") && refused.stderr.contains("did you mean `routes`"), "{}", refused.stderr);
}

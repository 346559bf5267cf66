//! The routing tests of a configuration: which ones pass, and what the others report.

use super::*;

const CONFIG: &str = r#"
[listeners.default]
bind = "127.0.0.1:0"
[listeners.second]
bind = "unix:gateway.sock"
operations = ["credentials", "messages"]

[credentials.key]
kind = "access_key"
key = { file = "key" }

[endpoints.east]
url = "https://east.service.signalr.net"
credential = "key"
[endpoints.west]
url = "https://west.service.signalr.net"
credential = "key"
role = "secondary"
[endpoints.north]
url = "https://north.service.signalr.net"
credential = "key"

[[routes]]
name = "chat"
match = { hub = "chat" }
endpoints = ["west", "east"]
[[routes]]
name = "groups"
match = { group = "*", listener = "default" }
pick = "hash"
hash_by = "group"
endpoint_header = true
endpoints = ["east", "west", "north"]
[[routes]]
name = "shared"
match = { hub = "shared" }
pick = "weighted"
endpoints = ["east", "west"]
[[routes]]
name = "inside"
match = { client = "10.0.0.0/8" }
pick = "all"
endpoints = ["east", "west"]
"#;

fn load_with(tests: &str) -> Result<Loaded, String> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("key"), "x").unwrap();
    let file = dir.path().join("gateway.toml");
    std::fs::write(&file, format!("{CONFIG}{tests}")).unwrap();
    let loaded = load(&Sources { file: Some(file), ..Sources::default() });
    loaded.map_err(|err| err.to_string().replace(&format!("{}/", dir.path().display()), ""))
}

#[test]
fn passing_tests_report_nothing() {
    let loaded = load_with(
        r#"
[[tests]]
name = "chat goes west first"
url = "/api/hubs/CHAT/:send"
route = "chat"
endpoints = ["west", "east"]
[[tests]]
url = "/api/hubs/other/groups/room-0/:send"
endpoints = ["east", "north", "west"]
[[tests]]
url = "/api/hubs/other/groups/room-0/:send"
headers = { signalr-gateway-endpoint = "west" }
endpoints = "west"
[[tests]]
url = "/api/hubs/other/groups/room-0/:send"
headers = { signalr-gateway-endpoint = "elsewhere" }
refused = "no_endpoint"
[[tests]]
url = "/api/hubs/shared/:send"
endpoints = ["west", "east"]
[[tests]]
url = "/api/hubs/other/:send"
client = "10.1.2.3"
endpoints = ["west", "east"]
[[tests]]
url = "/api/hubs/chat/:generateToken"
listener = "second"
endpoints = ["east", "west"]
[[tests]]
url = "/api/hubs/chat/:generateToken"
refused = "operation_not_allowed"
[[tests]]
url = "/api/hubs/other/groups/g/:send"
client = "10.1.2.3"
listener = "second"
refused = "no_route"
[[tests]]
method = "GET"
url = "http://evil.example/api/hubs/chat/groups/g"
refused = "host_not_allowed"
"#,
    );
    assert_eq!(loaded.map(|loaded| loaded.warnings), Ok(Vec::new()));
}

#[test]
fn failing_tests_report_what_was_expected_and_what_was_found() {
    let report = load_with(
        r#"
[[tests]]
name = "chat goes east"
url = "/api/hubs/chat/:send"
endpoints = "east"
[[tests]]
url = "/api/hubs/chats/:send"
client = "10.0.0.1"
route = "chat"
[[tests]]
method = "GET"
url = "/api/hubs/nobody/users/u"
route = "shared"
[[tests]]
url = "/api/hubs/chat/:send"
refused = "no_route"
[[tests]]
method = "HEAD"
url = "/api/health"
route = "chat"
"#,
    )
    .unwrap_err();
    assert_eq!(
        report,
        "the configuration has 5 problems
tests.0.endpoints: `chat goes east`: expected endpoints `east`, got route `chat` to `west`, `east` (gateway.toml:48)
  hint: correct the routes, or what the test expects
tests.1.route: `POST /api/hubs/chats/:send`: expected route `chat`, got route `inside` to `east`, `west` (gateway.toml:52)
  hint: `chat` does not match: hub is `chats`, not `chat`
tests.2.route: `GET /api/hubs/nobody/users/u`: expected route `shared`, got 404 `no_route`: no route of the gateway matches this call; have the operator add one (gateway.toml:56)
  hint: `shared` does not match: hub is `nobody`, not `shared`
tests.3.refused: `POST /api/hubs/chat/:send`: expected to be rejected as `no_route`, got route `chat` to `west`, `east` (gateway.toml:59)
  hint: correct the routes, or what the test expects
tests.4.route: `HEAD /api/health`: expected route `chat`, got a response of the gateway itself (gateway.toml:63)
  hint: correct the routes, or what the test expects"
    );
}

#[test]
fn invalid_tests_are_reported_with_all_other_problems() {
    let report = load_with(
        r#"
[[tests]]
url = "/api/hubs/chat/:send"
[[tests]]
url = "/api/hubs/chat/:send"
route = "chat"
refused = "no_route"
[[tests]]
url = "/api/hubs/chat/:send"
refused = "no_rute"
[[tests]]
url = "/api/hubs/chat/:send"
route = "chta"
endpoints = ["esat"]
listener = "secnd"
client = "me"
[[tests]]
method = "PO ST"
url = "/api/hubs/chat/:send"
headers = { "a b" = "c" }
route = "chat"
"#,
    )
    .unwrap_err();
    for part in [
        "has 9 problems",
        "tests.0: has no expectation",
        "tests.1.refused: cannot be combined with `route` or `endpoints`",
        "tests.2.refused: `no_rute` is not an error kind (gateway.toml:53)\n  hint: did you mean `no_route`?",
        "tests.3.route: there is no route `chta` (gateway.toml:56)\n  hint: did you mean `chat`?",
        "tests.3.endpoints: there is no endpoint `esat`",
        "tests.3.listener: there is no listener `secnd`",
        "tests.3.client: `me` is not an IP address",
        "tests.4: the method is not an HTTP method",
        "tests.4.headers: `a b` is not a header name",
    ] {
        assert!(report.contains(part), "no `{part}` in {report}");
    }
}

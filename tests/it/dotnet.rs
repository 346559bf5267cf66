//! The requests of the .NET Management SDK as it wrote them on the wire, and the guide for its users.
//!
//! `dotnet/requests.jsonl` was recorded from version 1.25.1 in transient transport mode on .NET 10: method, target, headers
//! in order, the body with its chunks, and the status that it was answered. `{host}` and `{jwt}` are placeholders.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;
use signalr_gateway::sandbox::{APP_CLIENT_ID, Role, TENANT_B};

use crate::support::{ALL_OPERATIONS, Harness, request, wait_until};

const REQUESTS: &str = include_str!("dotnet/requests.jsonl");
/// The SDK's token for a connection string with a made-up key.
const TOKEN: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJuYW1laWQiOiJob3N0XzEifQ.bm90LW91cnM";

/// A client of the recording: its user, and its connection if a request names it.
const CLIENTS: [(&str, &str); 8] = [
    ("ann 5a1fd3", "cy6Apx9e4_OgHq3C35faOA"),
    ("bob/5a1fd3", "9usYwlARXiioSTzv99oo0w"),
    ("cat+5a1fd3@x.é", ""),
    ("ann fff5ab", "7gNeBxkg7NY7eKHE6IuoHw"),
    ("bob/fff5ab", "NrDSGszdjg-kOIMGZSvNXg"),
    ("cat+fff5ab@x.é", ""),
    ("yan", ""),
    ("zoe", ""),
];

/// Returns the bytes of a recorded body.
fn body_of(recorded: &Value) -> Vec<u8> {
    let text = |key: &str| recorded["body"][key].as_str();
    match (text("text"), text("base64")) {
        (Some(text), _) => text.as_bytes().to_vec(),
        (None, Some(encoded)) => STANDARD.decode(encoded).unwrap(),
        (None, None) => Vec::new(),
    }
}

/// Joins the chunks of a body.
fn joined(mut body: &[u8]) -> Vec<u8> {
    let mut whole = Vec::new();
    while let Some(end) = body.windows(2).position(|pair| pair == b"\r\n") {
        let length = usize::from_str_radix(std::str::from_utf8(&body[..end]).unwrap(), 16).unwrap();
        whole.extend_from_slice(&body[end + 2..end + 2 + length]);
        body = &body[end + 2 + length + 2..];
    }
    whole
}

/// Replays the recording through a gateway, whose route sends calls to these endpoints.
async fn replay(pick: &str, endpoints: &[&str]) {
    let harness = Harness::start(|options| {
        options.allow(&ALL_OPERATIONS);
        options.append_toml(&format!("[[routes]]\nname = \"sdk\"\npick = \"{pick}\"\nendpoints = {endpoints:?}\n"));
    })
    .await;
    harness.sandbox.directory().edit(|directory| {
        directory
            .service_principal_mut(TENANT_B, APP_CLIENT_ID)
            .unwrap()
            .roles
            .push(("east".to_owned(), Role::AppServer));
    });
    let mut clients: Vec<_> =
        CLIENTS.iter().map(|(user, _)| harness.endpoint("east").hubs.connect("chat", Some(user))).collect();
    let mut raw = harness.raw_connection().await;
    for line in REQUESTS.lines() {
        let mut line = line.replace("{jwt}", TOKEN).replace("{host}", "localhost:8080");
        for ((_, recorded), client) in CLIENTS.iter().zip(&clients).filter(|((_, recorded), _)| !recorded.is_empty()) {
            line = line.replace(recorded, client.id());
        }
        let recorded: Value = serde_json::from_str(&line).unwrap();
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let (method, target) = (text(&recorded["method"]), text(&recorded["target"]));
        let headers = recorded["headers"].as_array().unwrap().iter();
        let headers: Vec<_> = headers.map(|pair| format!("{}: {}\r\n", text(&pair[0]), text(&pair[1]))).collect();
        let mut bytes = format!("{method} {target} HTTP/1.1\r\n{}\r\n", headers.concat()).into_bytes();
        let body = body_of(&recorded);
        bytes.extend_from_slice(&body);

        harness.clear_arrivals();
        raw.write(bytes).await;
        let response = raw.response_to(&method).await.unwrap();
        assert_eq!(Some(u64::from(response.status.as_u16())), recorded["status"].as_u64(), "{method} {target}");
        assert_eq!(response.header("signalr-gateway-error"), None, "{method} {target}");
        if target.starts_with("/api/health") {
            continue;
        }
        // Where the first success is the answer, the legs to others may be cancelled.
        let count = if method == "POST" { endpoints.len() } else { 1 };
        for endpoint in endpoints.iter().take(count) {
            let mut arrivals = harness.arrivals(endpoint).into_iter();
            let arrived = arrivals.find(|arrived| arrived.target == target && arrived.method == method);
            let arrived = arrived.unwrap_or_else(|| panic!("{method} {target} did not arrive at {endpoint}"));
            assert_eq!(arrived.body.as_deref().unwrap_or_default(), joined(&body), "{method} {target}");
            let bearer = arrived.authorization.as_ref().unwrap();
            assert!(bearer.claim("tid").is_some(), "{method} {target}: not the gateway's own token");
        }
    }
    // `hello` with its argument, once for each message that was not sent to others.
    let yan = clients.iter_mut().find(|client| client.user() == Some("yan")).unwrap();
    assert!(yan.try_recv().is_some(), "a client received nothing");
}

#[tokio::test]
async fn recorded_requests_of_the_sdk_are_answered_by_one_endpoint_as_it_expects() {
    replay("first", &["east"]).await;
}

#[tokio::test]
async fn recorded_requests_of_the_sdk_are_answered_by_all_endpoints_as_it_expects() {
    replay("all", &["east", "west"]).await;
}

fn guide() -> String {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/guide/dotnet.md");
    std::fs::read_to_string(file).unwrap()
}

#[test]
fn configuration_of_the_guide_is_valid_and_allows_the_operations_it_names() {
    let guide = guide();
    let toml = guide.split_once("```toml\n").unwrap().1.split_once("```").unwrap().0;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("gateway.toml");
    std::fs::write(&file, toml).unwrap();
    let environment = [("FABRIKAM_SECRET".to_owned(), "x".to_owned())].into();
    let sources = signalr_gateway::config::Sources { file: Some(file), environment, overrides: Vec::new() };
    let settings = signalr_gateway::config::load(&sources).unwrap_or_else(|err| panic!("{err}")).settings;
    let (_, admission) = &settings.listeners[0];
    for operation in ["access_key", "generate_token", "user_send"] {
        let operation = signalr_gateway::signalr::Operation::from_name(operation).unwrap();
        assert!(admission.operations.contains(operation), "{operation}");
    }
}

/// The mistakes in the guide's table and the answers to them.
#[tokio::test]
async fn usual_mistakes_are_answered_as_the_guide_says() {
    let harness = Harness::start(|options| {
        options.allow(&ALL_OPERATIONS);
        options.set("limits.max_body", "1000");
    })
    .await;
    let detail = async |method: &str, target: &str, content_type: &str, length: usize| {
        let call = request(method, target).header("content-type", content_type);
        let response = harness.caller().await.send(call, vec![b'x'; length]).await;
        (response.status.as_u16(), response.json()["detail"].as_str().unwrap().to_owned())
    };
    let guide = guide();
    for (method, target, content_type, length, status, words) in [
        ("GET", "/server/?hub=chat", "text/plain", 0, 404, "set ServiceTransportType to Transient"),
        ("GET", "/client/?hub=chat", "text/plain", 0, 404, "clients connect to the SignalR endpoint"),
        ("POST", "/client/negotiate?hub=chat", "text/plain", 0, 404, "clients connect to the SignalR endpoint"),
        ("POST", "/api/hubs/chat/:send", "application/octet-stream", 2000, 413, "they are counted together"),
    ] {
        let (found, detail) = detail(method, target, content_type, length).await;
        assert_eq!(found, status, "{method} {target}");
        assert!(detail.contains(words) && guide.contains(words), "{method} {target}: {detail}");
    }
    let (_, json) = detail("POST", "/api/hubs/chat/:send", "application/json", 2000).await;
    assert!(!json.contains("counted together"), "{json}");
}

#[tokio::test]
async fn refused_access_key_is_explained_on_status_until_the_role_is_assigned() {
    let harness = Harness::start(|options| {
        options.allow(&["credentials"]);
    })
    .await;
    let note = async || harness.admin("/status").await.json()["endpoints"][0]["note"].as_str().map(str::to_owned);
    assert_eq!(note().await, None);
    harness.call("GET", "/api/v1/auth/accessKey").await.assert_status(403);
    let refused = note().await.unwrap();
    assert!(refused.contains("SignalR App Server or SignalR Service Owner"), "{refused}");
    assert!(harness.admin("/").await.text().contains("refuses access_key"));
    harness.sandbox.directory().edit(|directory| {
        directory
            .service_principal_mut(TENANT_B, APP_CLIENT_ID)
            .unwrap()
            .roles
            .push(("east".to_owned(), Role::AppServer));
    });
    wait_until("the role takes effect", async || {
        (harness.call("GET", "/api/v1/auth/accessKey").await.status == 200).then_some(())
    })
    .await;
    assert_eq!(note().await, None);
}

//! The web page of the control listener, and the protection against pages of other origins.

use http::header::{CONTENT_SECURITY_POLICY, ORIGIN};
use serde_json::json;

use super::*;

const EVIL: &str = "https://evil.example";

#[tokio::test]
async fn the_page_loads_nothing_from_other_origins() {
    let sandbox = start().await;
    let control = sandbox.control().url();
    for (target, content_type) in [("/", "text/html"), ("/page.css", "text/css"), ("/page.js", "text/javascript")] {
        let response = request(&sandbox, Method::GET, &control, target).send().await;
        assert_eq!(response.status, StatusCode::OK);
        assert!(response.header("content-type").unwrap().starts_with(content_type));
        let policy = response.header(CONTENT_SECURITY_POLICY.as_str()).unwrap();
        assert!(policy.starts_with("default-src 'none';") && !policy.contains("unsafe"), "{policy}");
        let text = String::from_utf8(response.body.to_vec()).unwrap();
        assert!(!text.contains("https://") && !text.contains("http://"), "{target} names another origin");
    }
}

#[tokio::test]
async fn pages_of_other_origins_cannot_control_the_sandbox() {
    let sandbox = start().await;
    let control = sandbox.control().url();
    let targets =
        ["/sandbox/relay", "/sandbox/tokens", "/sandbox/faults?server=east", "/endpoints/east/negotiate?hub=h"];
    for target in targets {
        let post = || request(&sandbox, Method::POST, &control, target).json(&json!({ "method": "POST", "path": "/" }));
        assert_eq!(post().header(ORIGIN, EVIL).send().await.status, StatusCode::FORBIDDEN, "{target}");
        let name = http::HeaderName::from_static("sec-fetch-site");
        assert_eq!(post().header(name, "cross-site").send().await.status, StatusCode::FORBIDDEN, "{target}");
        let other_host = post().header(HOST, "evil.example:80").send().await;
        assert_eq!(other_host.status, StatusCode::FORBIDDEN, "{target}");
        let own = post().header(ORIGIN, &control).send().await;
        assert_ne!(own.status, StatusCode::FORBIDDEN, "{target}");
    }
}

#[tokio::test]
async fn the_relay_reports_a_missing_gateway() {
    let sandbox = start().await;
    let body = json!({ "method": "POST", "path": "/api/hubs/chat/:send", "body": "{}" });
    let relay = || request(&sandbox, Method::POST, &sandbox.control().url(), "/sandbox/relay").json(&body);
    let response = relay().send().await;
    assert_eq!(response.status, StatusCode::NOT_FOUND);
    assert!(response.json()["error"].as_str().unwrap().contains("no gateway"));
    // No gateway listens at the address.
    let unused = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    sandbox.set_gateway(unused, None);
    let response = relay().send().await;
    assert_eq!(response.status, StatusCode::BAD_GATEWAY);
    assert!(response.json()["error"].as_str().unwrap().contains(&unused.to_string()));
}

#[tokio::test]
async fn the_relay_calls_only_the_gateway() {
    let sandbox = start().await;
    sandbox.set_gateway(sandbox.control().address(), None);
    for path in ["http://elsewhere.example/api/health", "//elsewhere.example/", "api", ""] {
        let body = json!({ "method": "GET", "path": path });
        let response =
            request(&sandbox, Method::POST, &sandbox.control().url(), "/sandbox/relay").json(&body).send().await;
        // The relay sends a path with two leading slashes to the gateway, which responds with 404.
        let expected = if path.starts_with("//") { StatusCode::OK } else { StatusCode::BAD_REQUEST };
        assert_eq!(response.status, expected, "{path}");
    }
}

#[tokio::test]
async fn the_negotiation_of_an_application_redirects_to_the_same_endpoint() {
    let sandbox = start().await;
    let control = sandbox.control().url();
    let target = "/endpoints/west/negotiate?hub=Chat&user=ann";
    let redirect = request(&sandbox, Method::POST, &control, target).send().await.json();
    assert_eq!(redirect["url"], format!("{control}/endpoints/west/client/?hub=chat"));
    let token = redirect["accessToken"].as_str().unwrap();
    let negotiate = |endpoint: &str| {
        let target = format!("/endpoints/{endpoint}/client/negotiate?hub=chat&negotiateVersion=1");
        request(&sandbox, Method::POST, &control, &target).bearer(token).header(ORIGIN, EVIL)
    };
    let response = negotiate("west").send().await;
    assert!(response.json()["connectionToken"].is_string());
    assert_eq!(response.header("access-control-allow-origin"), Some(EVIL), "clients may be of any origin");
    assert_eq!(negotiate("east").send().await.status, StatusCode::UNAUTHORIZED, "a token is for one endpoint");
    assert_eq!(negotiate("north").send().await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn lists_connections_with_their_users_and_groups() {
    let sandbox = start().await;
    let ann = east(&sandbox).hubs.connect("chat", Some("ann"));
    east(&sandbox).hubs.get_or_create("chat").add_connection(ann.id(), "g");
    let target = "/sandbox/connections?hub=CHAT";
    let listed = request(&sandbox, Method::GET, &sandbox.control().url(), target).send().await.json();
    let ann = json!({ "id": ann.id(), "user": "ann", "groups": ["g"], "expires": null });
    let east = json!({ "count": 1, "connections": [ann] });
    assert_eq!(listed, json!({ "east": east, "west": { "count": 0, "connections": [] } }));
}

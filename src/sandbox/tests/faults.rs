//! Faults and the journal, directly and through the control listener.

use std::time::Instant;

use http::header::RETRY_AFTER;
use serde_json::json;

use super::*;
use crate::sandbox::{Entry, Fault, FaultKind, fingerprint};

const HEALTH: &str = "/api/health";
const SEND: &str = "/api/hubs/chat/:send?api-version=2024-12-01&excluded=a%2Fb&excluded=c";

fn health(sandbox: &Sandbox) -> TestRequest {
    request(sandbox, Method::GET, &east(sandbox).url(), HEALTH)
}

#[tokio::test]
async fn a_fault_replaces_the_configured_number_of_responses() {
    let sandbox = start().await;
    let faults = east(&sandbox).server.faults();
    faults.set(Fault::times(2, FaultKind::status_after(429, Duration::from_secs(7))));
    faults.set(Fault::times(1, FaultKind::html(502)));
    faults.set(Fault::times(1, FaultKind::json(200, "{}")));
    let first = health(&sandbox).send().await;
    assert_eq!(
        (first.status.as_u16(), first.headers.get(RETRY_AFTER).unwrap()),
        (429, &"7".parse::<http::HeaderValue>().unwrap())
    );
    assert_eq!(health(&sandbox).send().await.status.as_u16(), 429);
    let html = health(&sandbox).send().await;
    assert_eq!((html.status.as_u16(), html.header("content-type")), (502, Some("text/html")));
    assert_eq!(health(&sandbox).send().await.body, "{}");
    assert_eq!(health(&sandbox).send().await.status.as_u16(), 200);
    assert!(faults.pending().is_empty());
}

#[tokio::test]
async fn processes_a_request_whose_response_is_lost_but_not_one_that_is_reset() {
    let sandbox = start().await;
    let mut connection = east(&sandbox).hubs.connect("chat", None);
    let faults = east(&sandbox).server.faults();
    let message = json!({ "target": "t", "arguments": [1] });
    faults.set(Fault::times(1, FaultKind::Reset));
    assert!(rest(&sandbox, "POST", SEND).await.json(&message).try_send().await.is_err());
    assert_eq!(received(&mut connection), []);
    faults.set(Fault::times(1, FaultKind::LoseAnswer));
    assert!(rest(&sandbox, "POST", SEND).await.json(&message).try_send().await.is_err());
    assert_eq!(received(&mut connection).len(), 1);
    let verdicts: Vec<_> =
        east(&sandbox).server.journal().entries().into_iter().map(|e| (e.status, e.verdict)).collect();
    assert_eq!(verdicts, [(None, String::from("reset")), (None, String::from("answer lost"))]);
}

#[tokio::test]
async fn aborts_a_response_in_the_middle_of_its_body() {
    let sandbox = start().await;
    sandbox.entra().faults().set(Fault::times(1, FaultKind::BreakBody));
    let target = format!("/{TENANT_B}/oauth2/v2.0/token");
    let (head, body) =
        request(&sandbox, Method::POST, &sandbox.entra().url(), &target).send_for_head().await.into_parts();
    assert_eq!(head.status, StatusCode::BAD_REQUEST);
    let declared: usize = head.headers["content-length"].to_str().unwrap().parse().unwrap();
    let mut body = http_body_util::BodyStream::new(body);
    let first = futures_util::StreamExt::next(&mut body).await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(first.len(), declared / 2);
    assert!(futures_util::StreamExt::next(&mut body).await.unwrap().is_err());
}

#[tokio::test]
async fn delays_a_response_or_never_sends_it() {
    let sandbox = start().await;
    let faults = east(&sandbox).server.faults();
    faults.set(Fault::times(1, FaultKind::Delay { delay_ms: 300 }));
    let began = Instant::now();
    assert_eq!(health(&sandbox).send().await.status, StatusCode::OK);
    assert!(began.elapsed() >= Duration::from_millis(300));

    faults.set(Fault::times(1, FaultKind::Hang));
    let hanging = tokio::spawn(health(&sandbox).try_send());
    let seen = tokio::time::timeout(TIMEOUT, east(&sandbox).server.journal().wait_for(2, |e| e.path() == HEALTH));
    assert_eq!(seen.await.unwrap()[1].status, None);
    // Other requests still receive responses.
    assert_eq!(health(&sandbox).send().await.status, StatusCode::OK);
    assert!(!hanging.is_finished());
    hanging.abort();
}

#[tokio::test]
async fn refuses_connections_until_cleared() {
    let sandbox = start().await;
    let server = &east(&sandbox).server;
    for _ in 0..3 {
        server.faults().refuse().await;
        let refused = TcpStream::connect(server.address()).await.unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
        server.faults().clear().await;
        assert_eq!(health(&sandbox).send().await.status, StatusCode::OK);
    }
    // The other endpoint is not affected.
    let west = sandbox.endpoint("west").unwrap().url();
    assert_eq!(request(&sandbox, Method::GET, &west, HEALTH).send().await.status, StatusCode::OK);
}

#[tokio::test]
async fn the_journal_records_requests_and_their_results() {
    let sandbox = start().await;
    let token = token(&sandbox).await;
    let body = r#"{"target":"t"}"#;
    request(&sandbox, Method::POST, &east(&sandbox).url(), SEND)
        .bearer(&token)
        .header(http::HeaderName::from_static("x-request-id"), "r1")
        .body("application/json", body)
        .send()
        .await;
    let entries = east(&sandbox).server.journal().entries();
    let [entry] = entries.as_slice() else { panic!("{entries:?}") };
    assert_eq!((entry.sequence, entry.method.as_str(), entry.target.as_str()), (1, "POST", SEND));
    assert_eq!((entry.status, entry.verdict.as_str()), (Some(202), "sent to 0"));
    assert_eq!(entry.host, east(&sandbox).url().strip_prefix("https://").unwrap());
    assert_eq!((entry.header("x-request-id"), entry.header("content-type")), (Some("r1"), Some("application/json")));
    assert_eq!((entry.body_length, entry.body.as_deref(), entry.complete), (body.len(), Some(body.as_bytes()), true));
    let authorization = entry.authorization.as_ref().unwrap();
    assert_eq!((authorization.scheme.as_str(), &authorization.fingerprint), ("Bearer", &fingerprint(&token)));
    assert_eq!((authorization.claim("tid"), authorization.claim("appid")), (Some(TENANT_B), Some(APP_CLIENT_ID)));

    let token_requests: Vec<Entry> = sandbox.entra().journal().entries();
    let form: Vec<String> = token_requests[0].form().into_iter().map(|(name, _)| name).collect();
    assert_eq!(form, ["grant_type", "client_id", "client_secret", "scope"]);
    assert_eq!((token_requests[0].status, token_requests[0].verdict.as_str()), (Some(200), "token issued"));
}

#[tokio::test]
async fn the_control_listener_sets_faults_and_returns_journals() {
    let sandbox = start().await;
    let control = sandbox.control().url();
    let fault = json!({ "fault": { "answer": { "status": 503 } }, "times": 1, "path_prefix": "/api" });
    let post =
        async |target: &str, body: &Value| request(&sandbox, Method::POST, &control, target).json(body).send().await;
    assert_eq!(post("/sandbox/faults?server=east", &fault).await.status, StatusCode::NO_CONTENT);
    assert_eq!(health(&sandbox).send().await.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(health(&sandbox).send().await.status, StatusCode::OK);
    let journal = request(&sandbox, Method::GET, &control, "/sandbox/journal?server=east&after=1").send().await.json();
    assert_eq!((&journal["received"], &journal["dropped"]), (&2.into(), &0.into()));
    assert_eq!(journal["entries"].as_array().unwrap().len(), 1);
    assert_eq!(journal["entries"][0]["target"], HEALTH);

    assert_eq!(post("/sandbox/faults?server=east", &json!({ "fault": "refuse" })).await.status, StatusCode::NO_CONTENT);
    assert!(TcpStream::connect(east(&sandbox).server.address()).await.is_err());
    let list = request(&sandbox, Method::GET, &control, "/sandbox/faults?server=east").send().await.json();
    assert_eq!(list["refusing"], true);
    request(&sandbox, Method::DELETE, &control, "/sandbox/faults?server=east").send().await;
    assert_eq!(health(&sandbox).send().await.status, StatusCode::OK);

    assert_eq!(post("/sandbox/tokens", &json!({ "lifetime_secs": 9 })).await.status, StatusCode::NO_CONTENT);
    assert_eq!(request_token(&sandbox, TENANT_B, &secret_form(&sandbox)).await.json()["expires_in"], 9);
    let entra = request(&sandbox, Method::GET, &control, "/sandbox/journal?server=entra").send().await;
    assert!(!String::from_utf8_lossy(&entra.body).contains(sandbox.client_secret().expose()));

    let overview = request(&sandbox, Method::GET, &control, "/sandbox").send().await.json();
    assert_eq!(overview["servers"]["east"], east(&sandbox).url());
    assert_eq!(post("/sandbox/faults?server=north", &fault).await.status, StatusCode::NOT_FOUND);
    assert_eq!(post("/sandbox/faults?server=east", &json!({ "fault": "none" })).await.status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_page_of_another_site_cannot_control_the_sandbox() {
    let sandbox = start().await;
    let control = sandbox.control().url();
    let other_host = request(&sandbox, Method::GET, &control, "/sandbox").header(HOST, "rebound.test").send().await;
    assert_eq!(other_host.status, StatusCode::FORBIDDEN);
    let form =
        request(&sandbox, Method::POST, &control, "/sandbox/faults?server=east").body("text/plain", "{}").send().await;
    assert_eq!(form.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[tokio::test]
async fn put_replaces_the_faults_of_a_server_and_all_faults_can_be_listed_and_removed() {
    let sandbox = start().await;
    let control = sandbox.control().url();
    let send = async |method: Method, target: &str, body: Value| {
        request(&sandbox, method, &control, target).json(&body).send().await
    };
    let list = async || request(&sandbox, Method::GET, &control, "/sandbox/faults").send().await.json();
    assert_eq!(list().await, json!({}));
    let hang = json!({ "fault": "hang" });
    let slow = json!({ "fault": { "delay": { "delay_ms": 1 } }, "path_prefix": "/api/" });
    send(Method::POST, "/sandbox/faults?server=east", hang).await;
    assert_eq!(send(Method::PUT, "/sandbox/faults?server=east", slow.clone()).await.status, StatusCode::NO_CONTENT);
    send(Method::PUT, "/sandbox/faults?server=entra", json!({ "fault": "refuse" })).await;
    let slow_east = json!({ "refusing": false, "pending": [slow] });
    assert_eq!(list().await, json!({ "east": slow_east, "entra": { "refusing": true, "pending": [] } }));
    // An invalid fault changes nothing.
    let invalid = send(Method::PUT, "/sandbox/faults?server=east", json!({ "fault": "none" })).await;
    assert_eq!(invalid.status, StatusCode::BAD_REQUEST);
    assert_eq!(list().await["east"], slow_east);
    assert_eq!(send(Method::POST, "/sandbox/faults", json!({ "fault": "hang" })).await.status, StatusCode::BAD_REQUEST);
    send(Method::DELETE, "/sandbox/faults", json!({})).await;
    assert_eq!(list().await, json!({}));
    assert!(TcpStream::connect(sandbox.entra().address()).await.is_ok());
}

#[tokio::test]
async fn an_endpoint_that_refuses_connections_refuses_those_of_the_control_listener() {
    let sandbox = start().await;
    let target = "/endpoints/west/negotiate?hub=chat";
    let negotiate =
        async || request(&sandbox, Method::POST, &sandbox.control().url(), target).send().await.status.as_u16();
    let west = sandbox.endpoint("west").unwrap().server.faults();
    west.refuse().await;
    assert_eq!(negotiate().await, 503);
    west.clear().await;
    assert_eq!(negotiate().await, 200);
}

#[tokio::test]
async fn what_a_test_needs_is_served_once_the_sandbox_is_ready() {
    let sandbox = start().await;
    let ready = async || request(&sandbox, Method::GET, &sandbox.control().url(), "/sandbox/ready").send().await;
    assert_eq!(ready().await.status, StatusCode::SERVICE_UNAVAILABLE);
    sandbox.set_ready(json!({ "version": 1 }));
    assert_eq!(ready().await.json(), json!({ "version": 1 }));
}

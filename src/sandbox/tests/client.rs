//! Clients over every transport, with real sockets.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};

use super::*;
use crate::sandbox::{ClientTimes, Fault, FaultKind};

pub(super) type Socket = WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>;

const HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":1}\u{1e}";

pub(super) async fn client_token(sandbox: &Sandbox, hub: &str, user: &str) -> String {
    let target = format!("/api/hubs/{hub}/:generateToken?api-version=2024-12-01&userId={user}");
    rest(sandbox, "POST", &target).await.send().await.json()["token"].as_str().unwrap().to_owned()
}

pub(super) async fn negotiate(sandbox: &Sandbox, token: &str) -> Value {
    let target = "/client/negotiate?hub=chat&negotiateVersion=1";
    call(sandbox, Method::POST, &east(sandbox).url(), target).bearer(token).send().await.json()
}

pub(super) async fn dial(sandbox: &Sandbox, target: &str, token: &str) -> Result<Socket, tungstenite::Error> {
    let authority = east(sandbox).server.address().to_string();
    let stream = TcpStream::connect(&authority).await.unwrap();
    let name = ServerName::try_from(String::from("127.0.0.1")).unwrap();
    let stream = trusting(sandbox.ca_pem()).connect(name, stream).await.unwrap();
    let mut request = format!("wss://{authority}{target}").into_client_request().unwrap();
    request.headers_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    tokio_tungstenite::client_async(request, stream).await.map(|(socket, _)| socket)
}

/// Opens a WebSocket as user `ann` of the hub `chat` and completes its handshake.
pub(super) async fn connected(sandbox: &Sandbox) -> Socket {
    let token = client_token(sandbox, "chat", "ann").await;
    let mut socket = dial(sandbox, "/client/?hub=chat", &token).await.unwrap();
    socket.send(Message::text(HANDSHAKE)).await.unwrap();
    assert_eq!(text(&mut socket).await, "{}\u{1e}");
    socket
}

/// Opens a WebSocket with stateful reconnect and completes its handshake. Returns it with the target and the token for
/// reconnecting.
pub(super) async fn stateful(sandbox: &Sandbox) -> (Socket, String, String) {
    let token = client_token(sandbox, "chat", "ann").await;
    let target = "/client/negotiate?hub=chat&negotiateVersion=1&useStatefulReconnect=true";
    let negotiated = call(sandbox, Method::POST, &east(sandbox).url(), target).bearer(&token).send().await.json();
    assert_eq!(negotiated["useStatefulReconnect"], true);
    let target = format!("/client/?hub=chat&id={}", negotiated["connectionToken"].as_str().unwrap());
    let mut socket = dial(sandbox, &target, &token).await.unwrap();
    socket.send(Message::text("{\"protocol\":\"json\",\"version\":2}\u{1e}")).await.unwrap();
    assert_eq!(text(&mut socket).await, "{}\u{1e}");
    (socket, target, token)
}

pub(super) async fn text(socket: &mut Socket) -> String {
    let message = tokio::time::timeout(LONG, socket.next()).await.unwrap().unwrap().unwrap();
    message.into_text().unwrap().to_string()
}

pub(super) async fn broadcast(sandbox: &Sandbox, number: u32) {
    let target = "/api/hubs/chat/:send?api-version=2024-12-01";
    let answer = rest(sandbox, "POST", target).await.json(&json!({"target": "t", "arguments": [number]})).send().await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
}

pub(super) fn invocation(number: u32) -> String {
    format!("{{\"type\":1,\"target\":\"t\",\"arguments\":[{number}]}}\u{1e}")
}

#[tokio::test]
async fn a_websocket_of_a_negotiated_connection_has_its_id() {
    let sandbox = start().await;
    let token = client_token(&sandbox, "chat", "ann").await;
    let negotiated = negotiate(&sandbox, &token).await;
    let id = negotiated["connectionId"].as_str().unwrap();
    let secret = negotiated["connectionToken"].as_str().unwrap();
    let target = format!("/client/?hub=chat&id={secret}");
    let mut socket = dial(&sandbox, &target, &token).await.unwrap();
    socket.send(Message::text(HANDSHAKE)).await.unwrap();
    assert_eq!(text(&mut socket).await, "{}\u{1e}");

    let send = format!("/api/hubs/chat/connections/{id}/:send?api-version=2024-12-01");
    rest(&sandbox, "POST", &send).await.json(&json!({"target": "t", "arguments": [1]})).send().await;
    assert_eq!(text(&mut socket).await, invocation(1));
    for (target, status) in [(target.as_str(), 409), ("/client/?hub=chat&id=other", 404)] {
        let Err(tungstenite::Error::Http(refused)) = dial(&sandbox, target, &token).await else {
            panic!("{target} was accepted");
        };
        assert_eq!(refused.status(), status);
    }
    let post = call(&sandbox, Method::POST, &east(&sandbox).url(), &target).bearer(&token).send().await;
    assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn sends_messagepack_in_binary_frames() {
    let sandbox = start().await;
    let token = client_token(&sandbox, "chat", "ann").await;
    let mut socket = dial(&sandbox, "/client/?hub=chat", &token).await.unwrap();
    socket.send(Message::binary(&b"{\"protocol\":\"messagepack\",\"version\":1}\x1e"[..])).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(&b"{}\x1e"[..]));
    broadcast(&sandbox, 300).await;
    let record = [0, 0x96, 1, 0x80, 0xc0, 0xa1, b't', 0x91, 0xcd, 0x01, 0x2c, 0x90];
    let record = [&[u8::try_from(record.len() - 1).unwrap()][..], &record[1..]].concat();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(record));
}

#[tokio::test]
async fn a_close_has_a_reason_and_ends_the_websocket() {
    let sandbox = start().await;
    let mut socket = connected(&sandbox).await;
    let target = "/api/hubs/chat/users/ann/:closeConnections?api-version=2024-12-01&reason=so%20long";
    rest(&sandbox, "POST", target).await.send().await;
    assert_eq!(text(&mut socket).await, "{\"type\":7,\"error\":\"so long\",\"allowReconnect\":true}\u{1e}");
    let Some(Ok(Message::Close(Some(close)))) = socket.next().await else { panic!("the socket is not closed") };
    assert_eq!(u16::from(close.code), 1000);
    assert!(!matches!(socket.next().await, Some(Ok(_))), "nothing follows the close");
    wait_until_empty(&sandbox).await;
}

#[tokio::test]
async fn a_client_completes_an_invocation_and_its_own_invocations_fail() {
    let sandbox = Arc::new(start().await);
    let token = client_token(&sandbox, "chat", "ann").await;
    let negotiated = negotiate(&sandbox, &token).await;
    let target = format!("/client/?hub=chat&id={}", negotiated["connectionToken"].as_str().unwrap());
    let mut socket = dial(&sandbox, &target, &token).await.unwrap();
    let call = "{\"type\":1,\"invocationId\":\"7\",\"target\":\"x\",\"arguments\":[]}\u{1e}";
    // The first invocation arrives with the handshake.
    socket.send(Message::text(format!("{HANDSHAKE}{call}"))).await.unwrap();
    assert_eq!(text(&mut socket).await, "{}\u{1e}");
    let failed = text(&mut socket).await;
    assert!(failed.contains("\"invocationId\":\"7\"") && failed.contains("no upstream"), "{failed}");

    let invoke = format!(
        "/api/hubs/chat/connections/{}/:invoke?api-version=2024-12-01",
        negotiated["connectionId"].as_str().unwrap()
    );
    let of_caller = Arc::clone(&sandbox);
    let caller = tokio::spawn(async move {
        rest(&of_caller, "POST", &invoke).await.json(&json!({"target": "add", "arguments": [1, 2]})).send().await
    });
    let asked: Value = serde_json::from_str(text(&mut socket).await.trim_end_matches('\u{1e}')).unwrap();
    let answer = json!({"type": 3, "invocationId": asked["invocationId"], "result": 3});
    socket.send(Message::text(format!("{answer}\u{1e}"))).await.unwrap();
    assert_eq!(caller.await.unwrap().json(), json!({"result": 3}));
}

#[tokio::test]
async fn long_polling_answers_the_first_poll_at_once_and_then_waits() {
    let sandbox = Arc::new(start().await);
    let token = client_token(&sandbox, "chat", "ann").await;
    let id = negotiate(&sandbox, &token).await["connectionToken"].as_str().unwrap().to_owned();
    let target = format!("/client/?hub=chat&id={id}");
    let request = |method: Method| call(&sandbox, method, &east(&sandbox).url(), &target).bearer(&token);
    let first = request(Method::GET).send().await;
    assert_eq!((first.status, first.body.len()), (StatusCode::OK, 0));
    assert_eq!(request(Method::POST).body("text/plain", HANDSHAKE).send().await.status, StatusCode::OK);
    assert_eq!(request(Method::GET).send().await.body, "{}\u{1e}");
    broadcast(&sandbox, 1).await;
    broadcast(&sandbox, 2).await;
    let mut polled = String::new();
    while !polled.contains("[2]") {
        polled += std::str::from_utf8(&request(Method::GET).send().await.body).unwrap();
    }
    assert_eq!(polled, invocation(1) + &invocation(2));

    // A second poll ends the waiting one.
    let waiting = tokio::spawn(request(Method::GET).send());
    east(&sandbox).server.journal().wait_for(1, |entry| entry.status.is_none() && entry.method == "GET").await;
    let next = tokio::spawn(request(Method::GET).send());
    assert_eq!(waiting.await.unwrap().status, StatusCode::NO_CONTENT);
    assert_eq!(request(Method::DELETE).send().await.status, StatusCode::ACCEPTED);
    assert_eq!(next.await.unwrap().status, StatusCode::NO_CONTENT);
    assert_eq!(request(Method::GET).send().await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn an_event_stream_carries_records_until_its_client_disconnects() {
    let sandbox = start().await;
    let token = client_token(&sandbox, "chat", "ann").await;
    let id = negotiate(&sandbox, &token).await["connectionToken"].as_str().unwrap().to_owned();
    // A browser cannot set a header field on an event stream.
    let target = format!("/client/?hub=chat&id={id}&access_token={token}");
    let url = east(&sandbox).url();
    let get = call(&sandbox, Method::GET, &url, &target).header(http::header::ACCEPT, "text/event-stream");
    let mut stream = get.send_for_head().await.into_body();
    let mut read = Bytes::new();
    let post = call(&sandbox, Method::POST, &url, &target).body("text/plain", HANDSHAKE).send().await;
    assert_eq!(post.status, StatusCode::OK);
    broadcast_when_connected(&sandbox).await;
    let expected = format!(":\r\ndata: {{}}\u{1e}\r\n\r\ndata: {}\r\n\r\n", invocation(5));
    while read.len() < expected.len() {
        let data = stream.frame().await.unwrap().unwrap().into_data().unwrap();
        read = [read, data].concat().into();
    }
    assert_eq!(read, expected);
    drop(stream);
    wait_until_empty(&sandbox).await;
}

async fn broadcast_when_connected(sandbox: &Sandbox) {
    tokio::time::timeout(LONG, async {
        while east(sandbox).hubs.connection_counts().get("chat") != Some(&1) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    broadcast(sandbox, 5).await;
}

async fn wait_until_empty(sandbox: &Sandbox) {
    tokio::time::timeout(LONG, async {
        while east(sandbox).hubs.connection_counts()["chat"] > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_page_can_read_that_public_network_access_is_disabled() {
    let sandbox = start().await;
    let token = client_token(&sandbox, "chat", "ann").await;
    sandbox.directory().edit(|directory| directory.resource_mut("east").unwrap().public_network = false);
    let answer = call(&sandbox, Method::POST, &east(&sandbox).url(), "/client/negotiate?hub=chat")
        .bearer(&token)
        .header(http::header::ORIGIN, "https://page.test")
        .send()
        .await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://page.test"));
}

#[tokio::test]
async fn a_page_can_read_the_responses_of_faults_and_of_rejected_bodies() {
    let sandbox = start().await;
    let token = client_token(&sandbox, "chat", "ann").await;
    let faults = east(&sandbox).server.faults();
    let (direct, plain) = (east(&sandbox).url(), sandbox.control().url());
    let target = "/client/negotiate?hub=chat&negotiateVersion=1";
    let of_page = |method: Method, origin: &str, target: &str| {
        call(&sandbox, method, origin, target).bearer(&token).header(http::header::ORIGIN, "https://page.test")
    };
    let cors = [
        ("access-control-allow-origin", "https://page.test"),
        ("access-control-allow-credentials", "true"),
        ("vary", "Origin"),
    ];
    let may_be_read =
        |answer: &Answer| cors.iter().all(|(name, value)| answer.headers.get_all(*name).iter().eq([value]));

    faults.set(Fault::times(1, FaultKind::status(503)).on_path("/client"));
    let ask = of_page(Method::OPTIONS, &direct, target).header(http::header::ACCESS_CONTROL_REQUEST_METHOD, "POST");
    assert_eq!(ask.send().await.status, StatusCode::NO_CONTENT, "a preflight consumes no fault");
    let failed = of_page(Method::POST, &direct, target).send().await;
    assert_eq!(failed.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(may_be_read(&failed), "{failed:?}");
    assert!(may_be_read(&of_page(Method::POST, &direct, target).send().await), "no header field is repeated");

    // The header fields of a fault take precedence, so that a test can deny access to a page.
    let mut denied = FaultKind::status(503);
    if let FaultKind::Answer { headers, .. } = &mut denied {
        headers.push((String::from("access-control-allow-origin"), String::from("https://other.test")));
    }
    faults.set(Fault::times(1, denied));
    let failed = of_page(Method::POST, &direct, target).send().await;
    assert_eq!(failed.header("access-control-allow-origin"), Some("https://other.test"));

    let large = vec![b' '; 1024 * 1024 + 1];
    for (origin, target) in [(&direct, String::from(target)), (&plain, format!("/endpoints/east{target}"))] {
        let refused = of_page(Method::POST, origin, &target).body("text/plain", large.clone()).send().await;
        assert_eq!(refused.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert!(may_be_read(&refused), "{refused:?}");
    }
    // The REST API does not support CORS.
    let api = of_page(Method::POST, &direct, "/api/hubs/chat/:send").body("text/plain", large).send().await;
    assert_eq!((api.status, api.header("vary")), (StatusCode::PAYLOAD_TOO_LARGE, None));
}

#[tokio::test]
async fn checks_tokens_and_allows_pages_of_other_origins() {
    let sandbox = start().await;
    let (url, target) = (east(&sandbox).url(), "/client/negotiate?hub=chat");
    let of_other_hub = client_token(&sandbox, "other", "ann").await;
    let keyed = |token: &str| call(&sandbox, Method::POST, &url, target).bearer(token);
    for request in [
        call(&sandbox, Method::POST, &url, target),
        keyed("nonsense"),
        keyed(&of_other_hub),
        keyed(&token(&sandbox).await),
    ] {
        assert_eq!(request.send().await.status, StatusCode::UNAUTHORIZED);
    }
    let origin = || http::header::ORIGIN;
    let asked = call(&sandbox, Method::OPTIONS, &url, target)
        .header(origin(), "https://page.test")
        .header(http::header::ACCESS_CONTROL_REQUEST_HEADERS, "x-custom")
        .send()
        .await;
    assert_eq!(asked.status, StatusCode::NO_CONTENT);
    assert_eq!(asked.header("access-control-allow-headers"), Some("x-custom"));
    let good = client_token(&sandbox, "chat", "ann").await;
    let answer = keyed(&good).header(origin(), "https://page.test").send().await;
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://page.test"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    // A page can read a refusal, and caches know that responses vary by origin.
    let refused = keyed("nonsense").header(origin(), "https://page.test").send().await;
    assert_eq!(refused.header("access-control-allow-origin"), Some("https://page.test"));
    assert_eq!(keyed(&good).send().await.header("vary"), Some("Origin"));
    // Version 0 of negotiation has one id.
    assert_eq!(answer.json()["negotiateVersion"], 0);
    assert!(answer.json().get("connectionToken").is_none());
    for hubs in ["", "?hub=chat&hub=chat", "?hub=1"] {
        let target = format!("/client/negotiate{hubs}");
        let answer = call(&sandbox, Method::POST, &url, &target).bearer(&good).send().await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{hubs}");
    }
}

#[tokio::test]
async fn an_invalid_record_closes_only_its_sender() {
    let sandbox = start().await;
    let (mut bad, mut large, mut good) =
        (connected(&sandbox).await, connected(&sandbox).await, connected(&sandbox).await);
    bad.send(Message::text("garbage\u{1e}")).await.unwrap();
    let close = text(&mut bad).await;
    assert!(close.starts_with("{\"type\":7,\"error\":\"a record is invalid"), "{close}");
    large.send(Message::text("x".repeat(2 * 1024 * 1024))).await.unwrap();
    let close = text(&mut large).await;
    assert!(close.starts_with("{\"type\":7,\"error\":\"a record is larger than"), "{close}");
    broadcast(&sandbox, 9).await;
    assert_eq!(text(&mut good).await, invocation(9));
}

#[tokio::test]
async fn pings_an_idle_connection_and_closes_a_silent_client() {
    let times = ClientTimes {
        handshake: Duration::from_millis(200),
        keep_alive: Duration::from_millis(50),
        silence: Duration::from_millis(500),
        ..ClientTimes::default()
    };
    let sandbox = Sandbox::start(SandboxSettings { client_times: times, ..SandboxSettings::default() }).await.unwrap();
    let mut silent = connected(&sandbox).await;
    assert_eq!(text(&mut silent).await, "{\"type\":6}\u{1e}");
    let close = loop {
        let record = text(&mut silent).await;
        if !record.contains("\"type\":6") {
            break record;
        }
    };
    assert!(close.contains("the client sent nothing for"), "{close}");

    let token = client_token(&sandbox, "chat", "ann").await;
    let mut without_handshake = dial(&sandbox, "/client/?hub=chat", &token).await.unwrap();
    assert!(text(&mut without_handshake).await.contains("no handshake arrived"));
}

#[tokio::test]
async fn stateful_reconnect_loses_no_message() {
    let sandbox = start().await;
    let (mut socket, target, token) = stateful(&sandbox).await;
    for number in 1..=2 {
        broadcast(&sandbox, number).await;
        assert_eq!(text(&mut socket).await, invocation(number));
    }
    let call = "{\"type\":1,\"target\":\"x\",\"invocationId\":\"0\",\"arguments\":[]}\u{1e}";
    socket.send(Message::text(format!("{{\"type\":8,\"sequenceId\":1}}\u{1e}{call}"))).await.unwrap();
    let failure = text(&mut socket).await;
    assert!(failure.contains("no upstream"), "{failure}");
    assert_eq!(text(&mut socket).await, "{\"type\":8,\"sequenceId\":1}\u{1e}");

    // The connection breaks, and a message is sent in the meantime.
    drop(socket);
    broadcast(&sandbox, 3).await;
    let mut socket = dial(&sandbox, &target, &token).await.unwrap();
    assert_eq!(text(&mut socket).await, "{\"type\":9,\"sequenceId\":2}\u{1e}");
    assert_eq!(text(&mut socket).await, invocation(2));
    assert_eq!(text(&mut socket).await, failure);
    // The client repeats its invocation, which the server ignores.
    socket.send(Message::text(format!("{{\"type\":9,\"sequenceId\":1}}\u{1e}{call}"))).await.unwrap();
    let mut rest = [text(&mut socket).await, text(&mut socket).await];
    rest.sort();
    assert_eq!(rest, [invocation(3), String::from("{\"type\":8,\"sequenceId\":1}\u{1e}")]);

    // A second WebSocket replaces one that is still open.
    let mut other = dial(&sandbox, &target, &token).await.unwrap();
    assert_eq!(text(&mut other).await, "{\"type\":9,\"sequenceId\":2}\u{1e}");
    // An orderly close removes the connection.
    other.send(Message::text("{\"type\":7}\u{1e}")).await.unwrap();
    while other.next().await.is_some_and(|message| message.is_ok()) {}
    assert!(dial(&sandbox, &target, &token).await.is_err());
}

#[tokio::test]
async fn removes_a_stateful_client_that_does_not_return_in_time() {
    let client_times = ClientTimes { away: Duration::from_millis(50), ..ClientTimes::default() };
    let sandbox = Sandbox::start(SandboxSettings { client_times, ..SandboxSettings::default() }).await.unwrap();
    let (socket, _, _) = stateful(&sandbox).await;
    drop(socket);
    let gone = async {
        while east(&sandbox).hubs.connection_counts().get("chat") != Some(&0) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, gone).await.unwrap();
}

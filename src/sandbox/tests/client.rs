//! Clients over each transport.

use futures_util::{SinkExt, StreamExt};
use serde_json::json;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, Message};

use super::*;
use crate::sandbox::ClientTimeouts;

pub(super) type Socket = WebSocketStream<tokio_rustls::client::TlsStream<TcpStream>>;

const HANDSHAKE: &str = "{\"protocol\":\"json\",\"version\":1}\u{1e}";

pub(super) async fn client_token(sandbox: &Sandbox, hub: &str, user: &str) -> String {
    let target = format!("/api/hubs/{hub}/:generateToken?api-version=2024-12-01&userId={user}");
    rest(sandbox, "POST", &target).await.send().await.json()["token"].as_str().unwrap().to_owned()
}

pub(super) async fn negotiate(sandbox: &Sandbox, token: &str) -> Value {
    let target = "/client/negotiate?hub=chat&negotiateVersion=1";
    request(sandbox, Method::POST, &east(sandbox).url(), target).bearer(token).send().await.json()
}

pub(super) async fn open_websocket(sandbox: &Sandbox, target: &str, token: &str) -> Result<Socket, tungstenite::Error> {
    let authority = east(sandbox).server.address().to_string();
    let stream = TcpStream::connect(&authority).await.unwrap();
    let name = ServerName::try_from(String::from("127.0.0.1")).unwrap();
    let stream = tls_connector(sandbox.ca_pem()).connect(name, stream).await.unwrap();
    let mut request = format!("wss://{authority}{target}").into_client_request().unwrap();
    request.headers_mut().insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    tokio_tungstenite::client_async(request, stream).await.map(|(socket, _)| socket)
}

/// Opens a WebSocket as user `ann` of the hub `chat` and completes its handshake.
pub(super) async fn connect_client(sandbox: &Sandbox) -> Socket {
    let token = client_token(sandbox, "chat", "ann").await;
    let mut socket = open_websocket(sandbox, "/client/?hub=chat", &token).await.unwrap();
    socket.send(Message::text(HANDSHAKE)).await.unwrap();
    assert_eq!(next_text(&mut socket).await, "{}\u{1e}");
    socket
}

/// Opens a WebSocket with stateful reconnect and completes its handshake. Returns it with the target and the token for
/// reconnecting.
pub(super) async fn connect_stateful_client(sandbox: &Sandbox) -> (Socket, String, String) {
    let token = client_token(sandbox, "chat", "ann").await;
    let target = "/client/negotiate?hub=chat&negotiateVersion=1&useStatefulReconnect=true";
    let negotiated = request(sandbox, Method::POST, &east(sandbox).url(), target).bearer(&token).send().await.json();
    assert_eq!(negotiated["useStatefulReconnect"], true);
    let target = format!("/client/?hub=chat&id={}", negotiated["connectionToken"].as_str().unwrap());
    let mut socket = open_websocket(sandbox, &target, &token).await.unwrap();
    socket.send(Message::text("{\"protocol\":\"json\",\"version\":2}\u{1e}")).await.unwrap();
    assert_eq!(next_text(&mut socket).await, "{}\u{1e}");
    (socket, target, token)
}

pub(super) async fn next_text(socket: &mut Socket) -> String {
    let message = tokio::time::timeout(TIMEOUT, socket.next()).await.unwrap().unwrap().unwrap();
    message.into_text().unwrap().to_string()
}

pub(super) async fn broadcast(sandbox: &Sandbox, number: u32) {
    let target = "/api/hubs/chat/:send?api-version=2024-12-01";
    let response =
        rest(sandbox, "POST", target).await.json(&json!({"target": "t", "arguments": [number]})).send().await;
    assert_eq!(response.status, StatusCode::ACCEPTED);
}

pub(super) fn invocation(number: u32) -> String {
    format!("{{\"type\":1,\"target\":\"t\",\"arguments\":[{number}]}}\u{1e}")
}

#[tokio::test]
async fn negotiated_client_has_a_token_that_names_its_connection() {
    let sandbox = start().await;
    let token = client_token(&sandbox, "chat", "ann").await;
    let negotiated = negotiate(&sandbox, &token).await;
    let connection = negotiated["connectionToken"].as_str().unwrap();
    let target = format!("/client/?hub=chat&id={connection}");
    let mut socket = open_websocket(&sandbox, &target, &token).await.unwrap();
    socket.send(Message::text(HANDSHAKE)).await.unwrap();
    assert_eq!(next_text(&mut socket).await, "{}\u{1e}");
    let target = "/api/hubs/chat/connections/claims?api-version=2026-07-01";
    let body = json!({ "connectionToken": connection });
    let claims = rest(&sandbox, "QUERY", target).await.json(&body).send().await.json();
    assert_eq!(claims, json!({ "claims": [{ "type": "nameid", "value": "ann" }] }));
}

#[tokio::test]
async fn a_websocket_of_a_negotiated_connection_has_its_id() {
    let sandbox = start().await;
    let token = client_token(&sandbox, "chat", "ann").await;
    let negotiated = negotiate(&sandbox, &token).await;
    let id = negotiated["connectionId"].as_str().unwrap();
    let secret = negotiated["connectionToken"].as_str().unwrap();
    let target = format!("/client/?hub=chat&id={secret}");
    let mut socket = open_websocket(&sandbox, &target, &token).await.unwrap();
    socket.send(Message::text(HANDSHAKE)).await.unwrap();
    assert_eq!(next_text(&mut socket).await, "{}\u{1e}");

    let send = format!("/api/hubs/chat/connections/{id}/:send?api-version=2024-12-01");
    rest(&sandbox, "POST", &send).await.json(&json!({"target": "t", "arguments": [1]})).send().await;
    assert_eq!(next_text(&mut socket).await, invocation(1));
    for (target, status) in [(target.as_str(), 409), ("/client/?hub=chat&id=other", 404)] {
        let Err(tungstenite::Error::Http(rejected)) = open_websocket(&sandbox, target, &token).await else {
            panic!("{target} was accepted");
        };
        assert_eq!(rejected.status(), status);
    }
    let post = request(&sandbox, Method::POST, &east(&sandbox).url(), &target).bearer(&token).send().await;
    assert_eq!(post.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[tokio::test]
async fn sends_messagepack_in_binary_frames() {
    let sandbox = start().await;
    let token = client_token(&sandbox, "chat", "ann").await;
    let mut socket = open_websocket(&sandbox, "/client/?hub=chat", &token).await.unwrap();
    socket.send(Message::binary(&b"{\"protocol\":\"messagepack\",\"version\":1}\x1e"[..])).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(&b"{}\x1e"[..]));
    broadcast(&sandbox, 300).await;
    let record = [0, 0x96, 1, 0x80, 0xc0, 0xa1, b't', 0x91, 0xcd, 0x01, 0x2c, 0x90];
    let record = [&[u8::try_from(record.len() - 1).unwrap()][..], &record[1..]].concat();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::binary(record));
}

#[tokio::test]
async fn a_closed_client_receives_the_reason_and_a_close_frame() {
    let sandbox = start().await;
    let mut socket = connect_client(&sandbox).await;
    let target = "/api/hubs/chat/users/ann/:closeConnections?api-version=2024-12-01&reason=so%20long";
    rest(&sandbox, "POST", target).await.send().await;
    assert_eq!(next_text(&mut socket).await, "{\"type\":7,\"error\":\"so long\",\"allowReconnect\":true}\u{1e}");
    let Some(Ok(Message::Close(Some(close)))) = socket.next().await else { panic!("the socket is not closed") };
    assert_eq!(u16::from(close.code), 1000);
    assert!(!matches!(socket.next().await, Some(Ok(_))), "nothing follows the close");
    wait_until_empty(&sandbox).await;
}

#[tokio::test]
async fn a_client_can_complete_invocations_but_not_invoke_the_hub() {
    let sandbox = Arc::new(start().await);
    let token = client_token(&sandbox, "chat", "ann").await;
    let negotiated = negotiate(&sandbox, &token).await;
    let target = format!("/client/?hub=chat&id={}", negotiated["connectionToken"].as_str().unwrap());
    let mut socket = open_websocket(&sandbox, &target, &token).await.unwrap();
    let call = "{\"type\":1,\"invocationId\":\"7\",\"target\":\"x\",\"arguments\":[]}\u{1e}";
    // The first invocation arrives with the handshake.
    socket.send(Message::text(format!("{HANDSHAKE}{call}"))).await.unwrap();
    assert_eq!(next_text(&mut socket).await, "{}\u{1e}");
    let failed = next_text(&mut socket).await;
    assert!(failed.contains("\"invocationId\":\"7\"") && failed.contains("no upstream"), "{failed}");

    let invoke = format!(
        "/api/hubs/chat/connections/{}/:invoke?api-version=2024-12-01",
        negotiated["connectionId"].as_str().unwrap()
    );
    let for_caller = Arc::clone(&sandbox);
    let caller = tokio::spawn(async move {
        rest(&for_caller, "POST", &invoke).await.json(&json!({"target": "add", "arguments": [1, 2]})).send().await
    });
    let invoked: Value = serde_json::from_str(next_text(&mut socket).await.trim_end_matches('\u{1e}')).unwrap();
    let completion = json!({"type": 3, "invocationId": invoked["invocationId"], "result": 3});
    socket.send(Message::text(format!("{completion}\u{1e}"))).await.unwrap();
    assert_eq!(caller.await.unwrap().json(), json!({"result": 3}));
}

#[tokio::test]
async fn the_first_poll_returns_at_once_and_later_polls_wait_for_records() {
    let sandbox = Arc::new(start().await);
    let token = client_token(&sandbox, "chat", "ann").await;
    let id = negotiate(&sandbox, &token).await["connectionToken"].as_str().unwrap().to_owned();
    let target = format!("/client/?hub=chat&id={id}");
    let request = |method: Method| request(&sandbox, method, &east(&sandbox).url(), &target).bearer(&token);
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
    let get = request(&sandbox, Method::GET, &url, &target).header(http::header::ACCEPT, "text/event-stream");
    let mut stream = get.send_for_head().await.into_body();
    let mut read = Bytes::new();
    let post = request(&sandbox, Method::POST, &url, &target).body("text/plain", HANDSHAKE).send().await;
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
    tokio::time::timeout(TIMEOUT, async {
        while east(sandbox).hubs.connection_counts().get("chat") != Some(&1) {
            tokio::task::yield_now().await;
        }
    })
    .await
    .unwrap();
    broadcast(sandbox, 5).await;
}

async fn wait_until_empty(sandbox: &Sandbox) {
    tokio::time::timeout(TIMEOUT, async {
        while east(sandbox).hubs.connection_counts()["chat"] > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn an_invalid_record_closes_only_its_sender() {
    let sandbox = start().await;
    let (mut bad, mut large, mut good) =
        (connect_client(&sandbox).await, connect_client(&sandbox).await, connect_client(&sandbox).await);
    bad.send(Message::text("garbage\u{1e}")).await.unwrap();
    let close = next_text(&mut bad).await;
    assert!(close.starts_with("{\"type\":7,\"error\":\"a record is invalid"), "{close}");
    large.send(Message::text("x".repeat(2 * 1024 * 1024))).await.unwrap();
    let close = next_text(&mut large).await;
    assert!(close.starts_with("{\"type\":7,\"error\":\"a record is larger than"), "{close}");
    broadcast(&sandbox, 9).await;
    assert_eq!(next_text(&mut good).await, invocation(9));
}

#[tokio::test]
async fn pings_an_idle_connection_and_closes_a_client_that_sends_nothing() {
    let timeouts = ClientTimeouts {
        handshake: Duration::from_millis(200),
        keep_alive: Duration::from_millis(50),
        silence: Duration::from_millis(500),
        ..ClientTimeouts::default()
    };
    let sandbox =
        Sandbox::start(SandboxSettings { client_timeouts: timeouts, ..SandboxSettings::default() }).await.unwrap();
    let mut silent = connect_client(&sandbox).await;
    assert_eq!(next_text(&mut silent).await, "{\"type\":6}\u{1e}");
    let close = loop {
        let record = next_text(&mut silent).await;
        if !record.contains("\"type\":6") {
            break record;
        }
    };
    assert!(close.contains("the client sent nothing for"), "{close}");

    let token = client_token(&sandbox, "chat", "ann").await;
    let mut without_handshake = open_websocket(&sandbox, "/client/?hub=chat", &token).await.unwrap();
    assert!(next_text(&mut without_handshake).await.contains("no handshake arrived"));
}

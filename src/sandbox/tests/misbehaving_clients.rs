//! Clients that violate the protocol or do not read. The sandbox closes each, with a reason where possible. Other clients are
//! not affected.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::frame::{
    Frame,
    coding::{Data, OpCode},
};
use tokio_tungstenite::tungstenite::{self, Message};

use super::client::{
    Socket, broadcast, client_token, connect_client, connect_stateful_client, invocation, negotiate, next_text,
    open_websocket,
};
use super::*;
use crate::sandbox::{ClientTimeouts, Fault, FaultKind};

/// The close record for a client with stateful reconnect that sends no acknowledgements.
const NOT_ACKNOWLEDGED: &str =
    "{\"type\":7,\"error\":\"the client sends no acknowledgements\",\"allowReconnect\":false}\u{1e}";

/// Reads a WebSocket until it closes. Returns the data and the close code, or `None` if the connection is lost.
async fn read_to_close(socket: &mut Socket) -> (Vec<u8>, Option<CloseCode>) {
    let mut data = Vec::new();
    loop {
        match tokio::time::timeout(TIMEOUT, socket.next()).await.unwrap() {
            Some(Ok(Message::Close(close))) => return (data, close.map(|close| close.code)),
            Some(Ok(message)) => data.extend_from_slice(&message.into_data()),
            Some(Err(_)) | None => return (data, None),
        }
    }
}

/// Opens a WebSocket and sends no handshake.
async fn open_websocket_without_handshake(sandbox: &Sandbox) -> Socket {
    let token = client_token(sandbox, "chat", "ann").await;
    open_websocket(sandbox, "/client/?hub=chat", &token).await.unwrap()
}

async fn wait_for_connection_count(sandbox: &Sandbox, count: usize) {
    tokio::time::timeout(TIMEOUT, async {
        while east(sandbox).hubs.connection_counts()["chat"] != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn removes_a_connection_whose_upgrade_response_is_lost() {
    let sandbox = start().await;
    let token = client_token(&sandbox, "chat", "ann").await;
    for more in ["", "&useStatefulReconnect=true"] {
        let target = format!("/client/negotiate?hub=chat&negotiateVersion=1{more}");
        let negotiated =
            request(&sandbox, Method::POST, &east(&sandbox).url(), &target).bearer(&token).send().await.json();
        let target = format!("/client/?hub=chat&id={}", negotiated["connectionToken"].as_str().unwrap());
        east(&sandbox).server.faults().set(Fault::times(1, FaultKind::LoseAnswer));
        assert!(open_websocket(&sandbox, &target, &token).await.is_err());
        let Err(tungstenite::Error::Http(rejected)) = open_websocket(&sandbox, &target, &token).await else {
            panic!("the connection is open");
        };
        assert_eq!(rejected.status(), StatusCode::NOT_FOUND, "the connection was removed");
    }
}

#[tokio::test]
async fn closes_a_client_with_an_invalid_handshake() {
    let sandbox = start().await;
    for (handshake, expected) in [
        ("{\"protocol\":\"xml\",\"version\":1}\u{1e}".to_owned(), "'xml' is not supported"),
        ("{\"protocol\":\"json\",\"version\":9}\u{1e}".to_owned(), "version 9 of the hub protocol"),
        ("GET / HTTP/1.1\r\n\u{1e}".to_owned(), "the first record is not a handshake"),
        ("{}\u{1e}".to_owned(), "the first record is not a handshake"),
        (" ".repeat(2 * 1024 * 1024), "a record is larger than"),
    ] {
        let mut socket = open_websocket_without_handshake(&sandbox).await;
        socket.send(Message::text(handshake)).await.unwrap();
        let (data, code) = read_to_close(&mut socket).await;
        let data = String::from_utf8(data).unwrap();
        assert!(data.starts_with("{\"error\":") && data.contains(expected), "{data}");
        assert_eq!(code, Some(CloseCode::Normal), "{expected}");
    }
    assert_eq!(east(&sandbox).hubs.connection_counts().get("chat").copied().unwrap_or(0), 0);
}

#[tokio::test]
async fn invalid_messagepack_closes_only_its_sender() {
    let sandbox = start().await;
    let mut good = connect_client(&sandbox).await;
    // The last body has arrays that are nested ten thousand deep.
    let deep = [&[0x90 | 0x80, 0xce, 0][..], &[0x91; 9_999], &[0x90]].concat();
    let bodies = [
        (vec![0xff; 6], "the length has more than five bytes"),
        (vec![0xff, 0xff, 0xff, 0xff, 0x7f], "a record is larger than"),
        (vec![0x02, 0xc1, 0xc1], "a record is invalid"),
        (vec![0x01, 0xa0], "not an array"),
        ([&[0x90, 0x4e][..], &deep[3..]].concat(), "a record is invalid"),
    ];
    for (body, expected) in bodies {
        let mut bad = open_websocket_without_handshake(&sandbox).await;
        bad.send(Message::binary(&b"{\"protocol\":\"messagepack\",\"version\":1}\x1e"[..])).await.unwrap();
        bad.send(Message::binary(body)).await.unwrap();
        let (data, code) = read_to_close(&mut bad).await;
        let data = String::from_utf8_lossy(&data);
        assert!(data.contains(expected), "no `{expected}` in {data}");
        assert_eq!(code, Some(CloseCode::Normal));
    }
    broadcast(&sandbox, 3).await;
    assert_eq!(next_text(&mut good).await, invocation(3));
    wait_for_connection_count(&sandbox, 1).await;
}

#[tokio::test]
async fn invalid_or_endless_json_closes_only_its_sender() {
    let sandbox = start().await;
    let mut good = connect_client(&sandbox).await;
    for (record, expected) in [
        (format!("{}{}\u{1e}", "[".repeat(10_000), "]".repeat(10_000)), "a record is invalid"),
        ("{\"type\":3}\u{1e}".to_owned(), "a completion has no 'invocationId'"),
        ("\u{1e}".to_owned(), "a record is invalid"),
    ] {
        let mut bad = connect_client(&sandbox).await;
        bad.send(Message::text(record)).await.unwrap();
        let data = String::from_utf8(read_to_close(&mut bad).await.0).unwrap();
        assert!(data.starts_with("{\"type\":7,\"error\":") && data.contains(expected), "{data}");
    }
    // An endless record in small frames.
    let mut bad = connect_client(&sandbox).await;
    for _ in 0..3 {
        // The socket may be closed already.
        let _ = bad.send(Message::text("x".repeat(512 * 1024))).await;
    }
    let data = String::from_utf8(read_to_close(&mut bad).await.0).unwrap();
    assert!(data.contains("a record is larger than"), "{data}");
    broadcast(&sandbox, 4).await;
    assert_eq!(next_text(&mut good).await, invocation(4));
    wait_for_connection_count(&sandbox, 1).await;
}

#[tokio::test]
async fn a_protocol_violation_closes_the_websocket_with_its_code() {
    let sandbox = start().await;
    let mut good = connect_client(&sandbox).await;
    let not_text = Frame::message(&b"\xff\xfe"[..], OpCode::Data(Data::Text), true);
    let reserved = Frame::message(&b"x"[..], OpCode::Data(Data::Reserved(5)), true);
    let large = Frame::message(vec![b'x'; 5 * 1024 * 1024], OpCode::Data(Data::Binary), true);
    for (frame, expected) in [(not_text, CloseCode::Invalid), (reserved, CloseCode::Protocol), (large, CloseCode::Size)]
    {
        let mut bad = connect_client(&sandbox).await;
        // The server closes before the whole frame has arrived.
        let _ = bad.send(Message::Frame(frame)).await;
        let (_, code) = read_to_close(&mut bad).await;
        assert!(
            code == Some(expected) || (code.is_none() && expected == CloseCode::Size),
            "{code:?}, not {expected:?}"
        );
    }
    broadcast(&sandbox, 5).await;
    assert_eq!(next_text(&mut good).await, invocation(5));
    wait_for_connection_count(&sandbox, 1).await;
}

#[tokio::test]
async fn rejects_the_token_of_another_hub() {
    let sandbox = start().await;
    let of_other_hub = client_token(&sandbox, "other", "ann").await;
    for target in ["/client/?hub=chat", "/client/?hub=chat&id=x"] {
        let Err(tungstenite::Error::Http(rejected)) = open_websocket(&sandbox, target, &of_other_hub).await else {
            panic!("{target} was accepted");
        };
        assert_eq!(rejected.status(), 401);
        let body = String::from_utf8(rejected.into_body().unwrap_or_default()).unwrap();
        assert!(body.is_empty() || body.contains("hub=other"), "{body}");
    }
    assert!(!east(&sandbox).hubs.connection_counts().contains_key("chat"));
}

#[tokio::test]
async fn a_client_that_never_reads_is_closed_and_others_receive_everything() {
    // 32 MB: more than the socket buffers and the client's queue hold.
    const MESSAGES: usize = 32;
    let timeouts = ClientTimeouts { write: Duration::from_millis(500), ..ClientTimeouts::default() };
    let sandbox =
        Sandbox::start(SandboxSettings { client_timeouts: timeouts, ..SandboxSettings::default() }).await.unwrap();
    let stuck = connect_client(&sandbox).await;
    let mut good = connect_client(&sandbox).await;
    let reader = tokio::spawn(async move {
        let mut received = Vec::new();
        while received.len() < MESSAGES {
            let record = next_text(&mut good).await;
            let number = record.split_once("\"arguments\":[").unwrap().1.split(',').next().unwrap().to_owned();
            received.push(number.parse::<usize>().unwrap());
        }
        (good, received)
    });
    let padding = "x".repeat(1_000_000);
    let token = token(&sandbox).await;
    for number in 0..MESSAGES {
        let body = format!("{{\"target\":\"t\",\"arguments\":[{number},\"{padding}\"]}}");
        let target = "/api/hubs/chat/:send?api-version=2024-12-01";
        let send = request(&sandbox, Method::POST, &east(&sandbox).url(), target).bearer(&token);
        assert_eq!(send.body("application/json", body).send().await.status, StatusCode::ACCEPTED);
    }
    let (_good, received) = tokio::time::timeout(TIMEOUT, reader).await.unwrap().unwrap();
    assert_eq!(received, (0..MESSAGES).collect::<Vec<_>>());
    wait_for_connection_count(&sandbox, 1).await;
    drop(stuck);
}

#[tokio::test]
async fn closes_a_stateful_client_that_acknowledges_no_message() {
    let timeouts = ClientTimeouts {
        keep_alive: Duration::from_millis(50),
        write: Duration::from_secs(1),
        ..ClientTimeouts::default()
    };
    let sandbox =
        Sandbox::start(SandboxSettings { client_timeouts: timeouts, ..SandboxSettings::default() }).await.unwrap();
    // The client reads everything.
    let (mut client, _, _) = connect_stateful_client(&sandbox).await;
    let token = token(&sandbox).await;
    let body = format!("{{\"target\":\"t\",\"arguments\":[\"{}\"]}}", "x".repeat(1_000_000));
    for _ in 0..2 {
        let target = "/api/hubs/chat/users/ann/:send?api-version=2024-12-01";
        let send = request(&sandbox, Method::POST, &east(&sandbox).url(), target).bearer(&token);
        assert_eq!(send.body("application/json", body.clone()).send().await.status, StatusCode::ACCEPTED);
    }
    let data = String::from_utf8(read_to_close(&mut client).await.0).unwrap();
    assert!(data.ends_with(NOT_ACKNOWLEDGED), "{} bytes", data.len());
    wait_for_connection_count(&sandbox, 0).await;
}

#[tokio::test]
async fn closes_a_stateful_client_that_acknowledges_no_response() {
    let sandbox = start().await;
    let mut good = connect_client(&sandbox).await;
    let (caller, _, _) = connect_stateful_client(&sandbox).await;
    let (mut sink, stream) = caller.split();
    // The response is as long as the id.
    let id = "x".repeat(500_000);
    let record = format!("{{\"type\":1,\"invocationId\":\"{id}\",\"target\":\"x\",\"arguments\":[]}}\u{1e}");
    let sending = async move { while sink.send(Message::text(record.clone())).await.is_ok() {} };
    let receiving = stream.filter_map(|message| async { message.ok().map(Message::into_data) }).collect::<Vec<_>>();
    let ((), data) = tokio::time::timeout(TIMEOUT, async { tokio::join!(sending, receiving) }).await.unwrap();
    let data = String::from_utf8(data.concat()).unwrap();
    assert!(data.ends_with(NOT_ACKNOWLEDGED), "{} bytes", data.len());
    broadcast(&sandbox, 6).await;
    assert_eq!(next_text(&mut good).await, invocation(6));
    wait_for_connection_count(&sandbox, 1).await;
}

#[tokio::test]
async fn resets_an_event_stream_whose_client_does_not_read() {
    let timeouts = ClientTimeouts { write: Duration::from_millis(500), ..ClientTimeouts::default() };
    let sandbox =
        Sandbox::start(SandboxSettings { client_timeouts: timeouts, ..SandboxSettings::default() }).await.unwrap();
    let token_of_client = client_token(&sandbox, "chat", "ann").await;
    let negotiated = negotiate(&sandbox, &token_of_client).await;
    let target = format!("/client/?hub=chat&id={}", negotiated["connectionToken"].as_str().unwrap());
    let mut stuck = TcpStream::connect(sandbox.control().address()).await.unwrap();
    let head = format!(
        "GET /endpoints/east{target} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\nAuthorization: Bearer {token_of_client}\r\n\r\n",
        sandbox.control().address()
    );
    stuck.write_all(head.as_bytes()).await.unwrap();
    stuck.read_exact(&mut [0; 12]).await.unwrap();
    let handshake = request(&sandbox, Method::POST, &east(&sandbox).url(), &target).bearer(&token_of_client);
    let handshake = handshake.body("text/plain", "{\"protocol\":\"json\",\"version\":1}\u{1e}").send().await;
    assert_eq!(handshake.status, StatusCode::OK);
    wait_for_connection_count(&sandbox, 1).await;
    let token = token(&sandbox).await;
    let body = format!("{{\"target\":\"t\",\"arguments\":[\"{}\"]}}", "x".repeat(1_000_000));
    for _ in 0..32 {
        let send = "/api/hubs/chat/:send?api-version=2024-12-01";
        let send = request(&sandbox, Method::POST, &east(&sandbox).url(), send).bearer(&token);
        assert_eq!(send.body("application/json", body.clone()).send().await.status, StatusCode::ACCEPTED);
    }
    let reset = async {
        while stuck.take_error().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, reset).await.unwrap();
    wait_for_connection_count(&sandbox, 0).await;
}

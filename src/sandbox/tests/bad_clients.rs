//! Clients that do what they should not: each is closed, told why where it can be told, and harms no other.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::frame::{
    Frame,
    coding::{Data, OpCode},
};
use tokio_tungstenite::tungstenite::{self, Message};

use super::client::{Socket, broadcast, client_token, connected, dial, invocation, negotiate, stateful, text};
use super::*;
use crate::sandbox::{ClientTimes, Fault, FaultKind};

/// The last record of a client that asked for stateful reconnect and does not do its part.
const NOT_ACKNOWLEDGED: &str =
    "{\"type\":7,\"error\":\"the client does not acknowledge what it receives\",\"allowReconnect\":false}\u{1e}";

/// What a socket is sent until it is closed, and the code of the close; `None` if the connection just ended.
async fn last_words(socket: &mut Socket) -> (Vec<u8>, Option<CloseCode>) {
    let mut words = Vec::new();
    loop {
        match tokio::time::timeout(LONG, socket.next()).await.unwrap() {
            Some(Ok(Message::Close(close))) => return (words, close.map(|close| close.code)),
            Some(Ok(message)) => words.extend_from_slice(&message.into_data()),
            Some(Err(_)) | None => return (words, None),
        }
    }
}

/// A WebSocket that has said nothing yet.
async fn silent(sandbox: &Sandbox) -> Socket {
    let token = client_token(sandbox, "chat", "ann").await;
    dial(sandbox, "/client/?hub=chat", &token).await.unwrap()
}

async fn wait_for_count(sandbox: &Sandbox, count: usize) {
    tokio::time::timeout(LONG, async {
        while east(sandbox).hubs.connection_counts()["chat"] != count {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_connection_that_is_never_told_that_it_is_open_is_forgotten() {
    let sandbox = start().await;
    let token = client_token(&sandbox, "chat", "ann").await;
    for more in ["", "&useStatefulReconnect=true"] {
        let target = format!("/client/negotiate?hub=chat&negotiateVersion=1{more}");
        let negotiated =
            call(&sandbox, Method::POST, &east(&sandbox).url(), &target).bearer(&token).send().await.json();
        let target = format!("/client/?hub=chat&id={}", negotiated["connectionToken"].as_str().unwrap());
        east(&sandbox).server.faults().set(Fault::times(1, FaultKind::LoseAnswer));
        assert!(dial(&sandbox, &target, &token).await.is_err());
        let Err(tungstenite::Error::Http(refused)) = dial(&sandbox, &target, &token).await else {
            panic!("what was lost is open");
        };
        assert_eq!(refused.status(), StatusCode::NOT_FOUND, "it is not open, and no longer there");
    }
}

#[tokio::test]
async fn a_handshake_that_cannot_be_is_told_and_closed() {
    let sandbox = start().await;
    for (handshake, expected) in [
        ("{\"protocol\":\"xml\",\"version\":1}\u{1e}".to_owned(), "'xml' is not supported"),
        ("{\"protocol\":\"json\",\"version\":9}\u{1e}".to_owned(), "version 9 of the hub protocol"),
        ("GET / HTTP/1.1\r\n\u{1e}".to_owned(), "the first record is not a handshake"),
        ("{}\u{1e}".to_owned(), "the first record is not a handshake"),
        (" ".repeat(2 * 1024 * 1024), "a record is larger than"),
    ] {
        let mut socket = silent(&sandbox).await;
        socket.send(Message::text(handshake)).await.unwrap();
        let (words, code) = last_words(&mut socket).await;
        let words = String::from_utf8(words).unwrap();
        assert!(words.starts_with("{\"error\":") && words.contains(expected), "{words}");
        assert_eq!(code, Some(CloseCode::Normal), "{expected}");
    }
    assert_eq!(east(&sandbox).hubs.connection_counts().get("chat").copied().unwrap_or(0), 0);
}

#[tokio::test]
async fn what_is_no_messagepack_closes_that_client_alone() {
    let sandbox = start().await;
    let mut good = connected(&sandbox).await;
    // The last is an array in an array and so on, ten thousand deep.
    let deep = [&[0x90 | 0x80, 0xce, 0][..], &[0x91; 9_999], &[0x90]].concat();
    let bodies = [
        (vec![0xff; 6], "the length has more than five bytes"),
        (vec![0xff, 0xff, 0xff, 0xff, 0x7f], "a record is larger than"),
        (vec![0x02, 0xc1, 0xc1], "a record is invalid"),
        (vec![0x01, 0xa0], "not an array"),
        ([&[0x90, 0x4e][..], &deep[3..]].concat(), "a record is invalid"),
    ];
    for (body, expected) in bodies {
        let mut bad = silent(&sandbox).await;
        bad.send(Message::binary(&b"{\"protocol\":\"messagepack\",\"version\":1}\x1e"[..])).await.unwrap();
        bad.send(Message::binary(body)).await.unwrap();
        let (words, code) = last_words(&mut bad).await;
        let words = String::from_utf8_lossy(&words);
        assert!(words.contains(expected), "no `{expected}` in {words}");
        assert_eq!(code, Some(CloseCode::Normal));
    }
    broadcast(&sandbox, 3).await;
    assert_eq!(text(&mut good).await, invocation(3));
    wait_for_count(&sandbox, 1).await;
}

#[tokio::test]
async fn json_without_end_or_bottom_closes_that_client_alone() {
    let sandbox = start().await;
    let mut good = connected(&sandbox).await;
    for (record, expected) in [
        (format!("{}{}\u{1e}", "[".repeat(10_000), "]".repeat(10_000)), "a record is invalid"),
        ("{\"type\":3}\u{1e}".to_owned(), "a completion has no 'invocationId'"),
        ("\u{1e}".to_owned(), "a record is invalid"),
    ] {
        let mut bad = connected(&sandbox).await;
        bad.send(Message::text(record)).await.unwrap();
        let words = String::from_utf8(last_words(&mut bad).await.0).unwrap();
        assert!(words.starts_with("{\"type\":7,\"error\":") && words.contains(expected), "{words}");
    }
    // Without end: in pieces that are small each.
    let mut bad = connected(&sandbox).await;
    for _ in 0..3 {
        // The last one may find the socket closed.
        let _ = bad.send(Message::text("x".repeat(512 * 1024))).await;
    }
    let words = String::from_utf8(last_words(&mut bad).await.0).unwrap();
    assert!(words.contains("a record is larger than"), "{words}");
    broadcast(&sandbox, 4).await;
    assert_eq!(text(&mut good).await, invocation(4));
    wait_for_count(&sandbox, 1).await;
}

#[tokio::test]
async fn what_is_no_websocket_is_closed_with_its_code() {
    let sandbox = start().await;
    let mut good = connected(&sandbox).await;
    let not_text = Frame::message(&b"\xff\xfe"[..], OpCode::Data(Data::Text), true);
    let reserved = Frame::message(&b"x"[..], OpCode::Data(Data::Reserved(5)), true);
    let large = Frame::message(vec![b'x'; 5 * 1024 * 1024], OpCode::Data(Data::Binary), true);
    for (frame, expected) in [(not_text, CloseCode::Invalid), (reserved, CloseCode::Protocol), (large, CloseCode::Size)]
    {
        let mut bad = connected(&sandbox).await;
        // What is too large is refused before it is all there.
        let _ = bad.send(Message::Frame(frame)).await;
        let (_, code) = last_words(&mut bad).await;
        assert!(
            code == Some(expected) || (code.is_none() && expected == CloseCode::Size),
            "{code:?}, not {expected:?}"
        );
    }
    broadcast(&sandbox, 5).await;
    assert_eq!(text(&mut good).await, invocation(5));
    wait_for_count(&sandbox, 1).await;
}

#[tokio::test]
async fn a_token_of_another_hub_opens_nothing() {
    let sandbox = start().await;
    let of_other = client_token(&sandbox, "other", "ann").await;
    for target in ["/client/?hub=chat", "/client/?hub=chat&id=x"] {
        let Err(tungstenite::Error::Http(refused)) = dial(&sandbox, target, &of_other).await else {
            panic!("{target} was let in");
        };
        assert_eq!(refused.status(), 401);
        let body = String::from_utf8(refused.into_body().unwrap_or_default()).unwrap();
        assert!(body.is_empty() || body.contains("hub=other"), "{body}");
    }
    assert!(!east(&sandbox).hubs.connection_counts().contains_key("chat"));
}

/// More than the system's buffers and what may wait in the sandbox hold together.
#[tokio::test]
async fn a_client_that_never_reads_is_closed_and_the_others_get_everything() {
    const MESSAGES: usize = 32;
    let times = ClientTimes { write: Duration::from_millis(500), ..ClientTimes::default() };
    let sandbox = Sandbox::start(SandboxSettings { client_times: times, ..SandboxSettings::default() }).await.unwrap();
    let stuck = connected(&sandbox).await;
    let mut good = connected(&sandbox).await;
    let reader = tokio::spawn(async move {
        let mut got = Vec::new();
        while got.len() < MESSAGES {
            let record = text(&mut good).await;
            let number = record.split_once("\"arguments\":[").unwrap().1.split(',').next().unwrap().to_owned();
            got.push(number.parse::<usize>().unwrap());
        }
        (good, got)
    });
    let padding = "x".repeat(1_000_000);
    let token = token(&sandbox).await;
    for number in 0..MESSAGES {
        let body = format!("{{\"target\":\"t\",\"arguments\":[{number},\"{padding}\"]}}");
        let target = "/api/hubs/chat/:send?api-version=2024-12-01";
        let send = call(&sandbox, Method::POST, &east(&sandbox).url(), target).bearer(&token);
        assert_eq!(send.body("application/json", body).send().await.status, StatusCode::ACCEPTED);
    }
    let (_good, got) = tokio::time::timeout(LONG, reader).await.unwrap().unwrap();
    assert_eq!(got, (0..MESSAGES).collect::<Vec<_>>());
    wait_for_count(&sandbox, 1).await;
    drop(stuck);
}

#[tokio::test]
async fn who_asked_for_stateful_reconnect_and_acknowledges_nothing_is_closed() {
    let times =
        ClientTimes { keep_alive: Duration::from_millis(50), write: Duration::from_secs(1), ..ClientTimes::default() };
    let sandbox = Sandbox::start(SandboxSettings { client_times: times, ..SandboxSettings::default() }).await.unwrap();
    // It reads all that it is sent.
    let (mut deaf, _, _) = stateful(&sandbox).await;
    let token = token(&sandbox).await;
    let body = format!("{{\"target\":\"t\",\"arguments\":[\"{}\"]}}", "x".repeat(1_000_000));
    for _ in 0..2 {
        let target = "/api/hubs/chat/users/ann/:send?api-version=2024-12-01";
        let send = call(&sandbox, Method::POST, &east(&sandbox).url(), target).bearer(&token);
        assert_eq!(send.body("application/json", body.clone()).send().await.status, StatusCode::ACCEPTED);
    }
    let words = String::from_utf8(last_words(&mut deaf).await.0).unwrap();
    assert!(words.ends_with(NOT_ACKNOWLEDGED), "{} bytes", words.len());
    wait_for_count(&sandbox, 0).await;
}

#[tokio::test]
async fn who_calls_without_end_and_acknowledges_no_answer_is_closed() {
    let sandbox = start().await;
    let mut good = connected(&sandbox).await;
    let (caller, _, _) = stateful(&sandbox).await;
    let (mut sink, stream) = caller.split();
    // The answer is as long as the id.
    let id = "x".repeat(500_000);
    let record = format!("{{\"type\":1,\"invocationId\":\"{id}\",\"target\":\"x\",\"arguments\":[]}}\u{1e}");
    let calling = async move { while sink.send(Message::text(record.clone())).await.is_ok() {} };
    let hearing = stream.filter_map(|message| async { message.ok().map(Message::into_data) }).collect::<Vec<_>>();
    let ((), words) = tokio::time::timeout(LONG, async { tokio::join!(calling, hearing) }).await.unwrap();
    let words = String::from_utf8(words.concat()).unwrap();
    assert!(words.ends_with(NOT_ACKNOWLEDGED), "{} bytes", words.len());
    broadcast(&sandbox, 6).await;
    assert_eq!(text(&mut good).await, invocation(6));
    wait_for_count(&sandbox, 1).await;
}

#[tokio::test]
async fn an_event_stream_that_nobody_reads_is_cut() {
    let times = ClientTimes { write: Duration::from_millis(500), ..ClientTimes::default() };
    let sandbox = Sandbox::start(SandboxSettings { client_times: times, ..SandboxSettings::default() }).await.unwrap();
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
    let handshake = call(&sandbox, Method::POST, &east(&sandbox).url(), &target).bearer(&token_of_client);
    let handshake = handshake.body("text/plain", "{\"protocol\":\"json\",\"version\":1}\u{1e}").send().await;
    assert_eq!(handshake.status, StatusCode::OK);
    wait_for_count(&sandbox, 1).await;
    let token = token(&sandbox).await;
    let body = format!("{{\"target\":\"t\",\"arguments\":[\"{}\"]}}", "x".repeat(1_000_000));
    for _ in 0..32 {
        let send = "/api/hubs/chat/:send?api-version=2024-12-01";
        let send = call(&sandbox, Method::POST, &east(&sandbox).url(), send).bearer(&token);
        assert_eq!(send.body("application/json", body.clone()).send().await.status, StatusCode::ACCEPTED);
    }
    let cut = async {
        while stuck.take_error().unwrap().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, cut).await.unwrap();
    wait_for_count(&sandbox, 0).await;
}

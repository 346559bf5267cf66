//! Sizes and framing of requests: what is too large, malformed or incomplete, and what is forwarded nevertheless.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use signalr_gateway::sandbox::Entry;

use crate::support::{BROADCAST_BODY, BROADCAST_PATH, Caller, Harness, RawConnection, broadcast_request, request};

const MIB: usize = 1024 * 1024;

fn assert_nothing_arrived(harness: &Harness) {
    assert!(harness.arrivals("east").is_empty() && harness.arrivals("west").is_empty());
}

#[tokio::test]
async fn answers_431_to_heads_above_the_limit() {
    let harness = Harness::start(|_| {}).await;
    let mut caller = harness.caller().await;
    caller.send(broadcast_request().header("x-long", "x".repeat(12 * 1024)), BROADCAST_BODY).await.assert_status(202);
    caller
        .send(broadcast_request().header("x-long", "x".repeat(17 * 1024)), BROADCAST_BODY)
        .await
        .assert_gateway_error(431, "headers_too_large");
    let long_target = format!("{BROADCAST_PATH}&x={}", "x".repeat(17 * 1024));
    caller.post(&long_target, "application/json", BROADCAST_BODY).await.assert_gateway_error(431, "headers_too_large");
    assert_eq!(harness.arrivals("east").len(), 1);
    // Near the limit, the length of the added token decides: the endpoint never rejects a head.
    for size in (12 * 1024..16 * 1024).step_by(200) {
        let response = caller.send(broadcast_request().header("x-long", "x".repeat(size)), BROADCAST_BODY).await;
        if response.status == 202 {
            response.assert_status(202)
        } else {
            response.assert_gateway_error(431, "headers_too_large")
        };
    }
    // Far larger heads are not read completely.
    let mut raw = harness.raw_connection().await;
    raw.write("POST / HTTP/1.1\r\nhost: localhost\r\nx: ").await.write("x".repeat(MIB)).await;
    raw.response().await.unwrap().assert_gateway_error(431, "headers_too_large");
}

#[tokio::test]
async fn answers_413_to_bodies_above_one_mebibyte() {
    let harness = Harness::start(|_| {}).await;
    let octets = || request("POST", BROADCAST_PATH).header(CONTENT_TYPE, "application/octet-stream");
    let pieces = |size: usize| vec![b'x'; size].chunks(10_000).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    let mut caller = harness.caller().await;
    caller.send(octets(), vec![b'x'; MIB]).await;
    caller.send_chunked(octets(), pieces(MIB)).await;
    let arrivals = harness.arrivals("east");
    assert_eq!(arrivals.iter().map(|entry| (entry.body_length, entry.complete)).collect::<Vec<_>>(), [(MIB, true); 2]);
    harness.clear_arrivals();

    let mut caller = harness.caller().await;
    caller.send(octets(), vec![b'x'; MIB + 1]).await.assert_gateway_error(413, "body_too_large");
    assert_reusable_or_closed(&harness, caller).await;

    let mut caller = harness.caller().await;
    let response = caller.send_chunked(octets(), pieces(MIB + 1)).await;
    response.assert_gateway_error(413, "body_too_large");
    assert!(response.text().contains("1048576"), "{}", response.text());
    assert_reusable_or_closed(&harness, caller).await;

    // A caller that writes much more than the limit before it reads still receives the response.
    let mut raw = harness.raw_connection().await;
    raw.write(format!("POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", 3 * MIB))
        .await;
    raw.write(vec![b'x'; 3 * MIB]).await;
    raw.response().await.expect("the response was lost in a reset").assert_gateway_error(413, "body_too_large");
}

/// Returns the complete requests at `east`. It also receives incomplete ones, from callers whose body is malformed.
fn complete_arrivals(harness: &Harness) -> Vec<Entry> {
    harness.arrivals("east").into_iter().filter(|entry| entry.complete).collect()
}

/// Asserts that the connection can be reused, or was closed before the next request was sent.
async fn assert_reusable_or_closed(harness: &Harness, mut caller: Caller) {
    harness.clear_arrivals();
    match caller.try_send(broadcast_request(), BROADCAST_BODY).await {
        Ok(response) => {
            response.assert_status(202);
            assert_eq!(complete_arrivals(harness).len(), 1);
            assert_eq!(complete_arrivals(harness)[0].body.as_deref(), Some(BROADCAST_BODY.as_bytes()));
        }
        Err(_closed) => assert!(complete_arrivals(harness).is_empty()),
    }
    harness.clear_arrivals();
}

#[tokio::test]
async fn body_limit_is_configurable() {
    let harness = Harness::start(|options| {
        options.set("limits.max_body", "100");
    })
    .await;
    let mut caller = harness.caller().await;
    caller
        .post(BROADCAST_PATH, "application/octet-stream", vec![b'x'; 101])
        .await
        .assert_gateway_error(413, "body_too_large");
    harness.broadcast().await.assert_status(202);
}

/// The fault in the framing, and the bytes after the request line and `Host`.
const MALFORMED: [(&str, &str); 15] = [
    ("two lengths", "content-length: 5\r\ncontent-length: 6\r\n\r\nhello!"),
    ("a list of lengths", "content-length: 5, 6\r\n\r\nhello!"),
    ("a signed length", "content-length: +5\r\n\r\nhello"),
    ("a negative length", "content-length: -1\r\n\r\n"),
    ("a hexadecimal length", "content-length: 0x5\r\n\r\nhello"),
    ("an unknown coding", "transfer-encoding: gzip\r\n\r\nhello"),
    ("a coding after chunked", "transfer-encoding: chunked, identity\r\n\r\n0\r\n\r\n"),
    ("a misspelt coding", "transfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
    ("a coding after a vertical tab", "transfer-encoding:\x0bchunked\r\n\r\n0\r\n\r\n"),
    ("a space before the colon", "content-length : 5\r\n\r\nhello"),
    ("a folded line", "x-folded: a\r\n b\r\ncontent-length: 0\r\n\r\n"),
    ("a folded coding", "transfer-encoding:\r\n chunked\r\n\r\n0\r\n\r\n"),
    ("a chunk size that is not a number", "transfer-encoding: chunked\r\n\r\nzz\r\nhello\r\n0\r\n\r\n"),
    ("a chunk longer than its size", "transfer-encoding: chunked\r\n\r\n3\r\nhello\r\n0\r\n\r\n"),
    ("a chunk size of more than 64 bits", "transfer-encoding: chunked\r\n\r\nffffffffffffffff1\r\nhello\r\n0\r\n\r\n"),
];

/// A request that an attacker tries to smuggle.
const SMUGGLED: &str = "POST /api/hubs/chat/:send?smuggled HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n";

#[tokio::test]
async fn rejects_malformed_framing_and_forwards_no_smuggled_request() {
    let harness = Harness::start(|_| {}).await;
    for (what, rest) in MALFORMED {
        let mut raw = harness.raw_connection().await;
        raw.write(format!("POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\n{rest}"))
            .await
            .write(SMUGGLED)
            .await
            .finish()
            .await;
        let (status, kind) = raw.response().await.unwrap_or_else(|| panic!("{what}: no response")).gateway_error();
        assert!(status == 400 && ["malformed", "body_broken"].contains(&kind.as_str()), "{what}: {status} {kind}");
        assert_eq!(String::from_utf8_lossy(&raw.rest().await), "", "{what}");
        for entry in harness.arrivals("east") {
            assert!(!entry.complete, "{what}: {entry:#?}");
        }
        harness.clear_arrivals();
    }
    harness.broadcast().await.assert_status(202);
    assert_eq!(harness.arrival("east").target, BROADCAST_PATH);
}

#[tokio::test]
async fn forwards_pipelined_requests_separately() {
    let harness = Harness::start(|_| {}).await;
    let mut raw = harness.raw_connection().await;
    // The first body looks like a request. The last chunk has an extension and a trailer.
    let first = format!(
        "POST {BROADCAST_PATH}&n=1 HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\ncontent-length: {}\r\n\r\n{SMUGGLED}",
        SMUGGLED.len()
    );
    let second = format!(
        "POST {BROADCAST_PATH}&n=2 HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/octet-stream\r\ntransfer-encoding: chunked\r\n\r\n\
         5;ext=1\r\nhello\r\n0;x\r\nx-trailer: 1\r\nauthorization: Bearer forged\r\n\r\n"
    );
    raw.write(format!("{first}{second}GET /api/health HTTP/1.1\r\nhost: localhost\r\n\r\n")).await;
    for _ in 0..3 {
        let status = raw.response().await.unwrap().status;
        assert!(status == 202 || status == 400 || status == 200, "{status}");
    }
    let arrivals = harness.arrivals("east");
    let seen: Vec<_> = arrivals.iter().map(|entry| (entry.target.as_str(), entry.body.as_deref().unwrap())).collect();
    let (one, two) = (format!("{BROADCAST_PATH}&n=1"), format!("{BROADCAST_PATH}&n=2"));
    assert_eq!(seen, [(&*one, SMUGGLED.as_bytes()), (&*two, b"hello")]);
    for entry in &arrivals {
        assert!(entry.header("x-trailer").is_none() && entry.authorization.as_ref().unwrap().claim("tid").is_some());
    }
}

#[tokio::test]
async fn absolute_targets_and_http_1_0_cannot_reach_another_host() {
    let harness = Harness::start(|_| {}).await;
    let mut raw = harness.raw_connection().await;
    raw.write("POST http://evil.example/api/hubs/chat/:send HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
        .await;
    raw.response().await.unwrap().assert_gateway_error(403, "host_not_allowed");
    let mut raw = harness.raw_connection().await;
    raw.write("POST /api/hubs/chat/:send HTTP/1.1\r\nhost: localhost\r\nhost: localhost\r\ncontent-length: 0\r\n\r\n")
        .await;
    raw.response().await.unwrap().assert_gateway_error(400, "malformed");
    let mut raw = harness.raw_connection().await;
    raw.write("POST /api/hubs/chat/:send HTTP/1.1\r\ncontent-length: 0\r\n\r\n").await;
    raw.response().await.unwrap().assert_gateway_error(400, "malformed");
    let mut raw = harness.raw_connection().await;
    raw.write("CONNECT evil.example:443 HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let response = raw.response().await.unwrap();
    assert!(response.status.is_client_error(), "{response:?}");
    assert_nothing_arrived(&harness);

    let mut raw = harness.raw_connection().await;
    let absolute = format!(
        "POST http://localhost{BROADCAST_PATH} HTTP/1.1\r\nhost: ignored.example\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{BROADCAST_BODY}",
        BROADCAST_BODY.len()
    );
    raw.write(absolute).await;
    raw.response().await.unwrap().assert_status(202);
    assert_eq!(harness.arrival("east").target, BROADCAST_PATH);
}

#[tokio::test]
async fn answers_408_when_the_body_does_not_arrive() {
    let harness = Harness::start(|options| {
        options.set("timeouts.request", "1s").set("timeouts.try", "1s");
    })
    .await;
    let mut raw = harness.raw_connection().await;
    raw.write(format!("POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\nhello")).await;
    raw.response().await.unwrap().assert_gateway_error(408, "slow_request");
    assert!(harness.arrivals("east").iter().all(|entry| !entry.complete));
}

#[tokio::test]
async fn incomplete_body_reaches_no_endpoint_as_complete() {
    let harness = Harness::start(|_| {}).await;
    let head = format!("POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\n");
    for rest in ["content-length: 10\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n"] {
        let mut raw = harness.raw_connection().await;
        raw.write(format!("{head}{rest}")).await.finish().await;
        raw.rest().await;
    }
    harness.broadcast().await.assert_status(202);
    let complete: Vec<_> = harness.arrivals("east").into_iter().filter(|entry| entry.complete).collect();
    assert_eq!(complete.len(), 1, "{complete:#?}");
}

#[tokio::test]
async fn answers_expect_100_continue() {
    let harness = Harness::start(|_| {}).await;
    let mut raw: RawConnection = harness.raw_connection().await;
    raw.write(format!(
        "POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        BROADCAST_BODY.len()
    ))
    .await;
    assert_eq!(raw.response().await.unwrap().status, 100);
    raw.write(BROADCAST_BODY).await;
    raw.response().await.unwrap().assert_status(202);
    assert_eq!(harness.arrival("east").header("expect"), None);
}

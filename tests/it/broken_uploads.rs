//! A message arrives completely or not at all: an incomplete or malformed body never becomes a complete request at an
//! endpoint, not even in a retry.

use signalr_gateway::sandbox::{Entry, Fault, FaultKind};

use crate::support::{BROADCAST_BODY, BROADCAST_PATH, Harness, RawConnection, RawEndpoint, broadcast_request, request};

/// Returns the head of a broadcast with a chunked body.
fn chunked_head(mark: &str) -> String {
    format!(
        "POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\nx-mark: {mark}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n"
    )
}

/// What follows the head, and whether the caller then disconnects.
const BROKEN: [(&str, bool); 9] = [
    ("zz\r\n", false),
    ("+2\r\nhi\r\n0\r\n\r\n", false),
    ("2\nhi\n0\n\n", false),
    ("2\r\nhi\n0\r\n\r\n", false),
    ("2\r\nhi\r\nzz\r\n", false),
    ("2\r\nhi\r\n-1\r\n\r\n", false),
    ("", true),
    ("5\r\nhel", true),
    ("5\r\nhello\r\n", true),
];

fn is_complete(entry: &Entry) -> bool {
    entry.complete && entry.header("x-mark") == Some("broken")
}

#[tokio::test]
async fn incomplete_upload_is_never_complete_at_an_endpoint() {
    for (version, route) in [("1.1", "first"), ("2", "first"), ("1.1", "all")] {
        let harness = Harness::start(|options| {
            options.set("endpoints.east.http_version", version).set("retry.messages", "sdk");
            options.append_toml(&format!(
                "[[routes]]\nname = \"r\"\npick = \"{route}\"\nendpoints = [\"east\", \"west\"]\n"
            ));
        })
        .await;
        for (is_reused, in_one_write) in [(false, false), (false, true), (true, false), (true, true)] {
            for (tail, disconnects) in BROKEN {
                let mut raw = harness.raw_connection().await;
                if is_reused {
                    // The worker of this connection then has a connection to the endpoint.
                    let length = BROADCAST_BODY.len();
                    raw.write(format!(
                        "POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                         content-length: {length}\r\n\r\n"
                    ))
                    .await
                    .write(BROADCAST_BODY)
                    .await;
                    raw.response().await.unwrap().assert_status(202);
                }
                // In one write, the fault is known before anything is sent to the endpoint.
                if in_one_write {
                    raw.write(chunked_head("broken") + tail).await;
                } else {
                    raw.write(chunked_head("broken")).await.write(tail).await;
                }
                if disconnects {
                    drop(raw);
                } else {
                    raw.response().await.unwrap().assert_gateway_error(400, "body_broken");
                }
                harness
                    .caller()
                    .await
                    .send(broadcast_request().header("x-mark", "complete"), BROADCAST_BODY)
                    .await
                    .assert_status(202);
                for endpoint in ["east", "west"] {
                    let arrived = harness.arrivals(endpoint);
                    let wrong: Vec<_> = arrived.iter().filter(|entry| is_complete(entry)).collect();
                    assert!(
                        wrong.is_empty(),
                        "{version} {route} reused: {is_reused}, one write: {in_one_write}, {tail:?}: {wrong:#?}"
                    );
                }
            }
        }
    }
}

/// Encodes an HTTP/2 frame whose length fits one byte.
fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
    let length = u8::try_from(payload.len()).unwrap();
    [&[0, 0, length, kind, flags, 0, 0, 0, stream], payload].concat()
}

/// Returns the first frames of a call over HTTP/2: its head, and a part of its body.
fn http2_call() -> Vec<u8> {
    let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
    let field = |(name, value): (&str, &str)| [vec![0], text(name), text(value)].concat();
    let fields = [
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "localhost"),
        (":path", BROADCAST_PATH),
        ("x-mark", "broken"),
    ];
    let head: Vec<u8> = fields.into_iter().flat_map(field).collect();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    [preface, frame(4, 0, 0, &[]), frame(1, 4, 1, &head), frame(0, 0, 1, b"hello")].concat()
}

#[tokio::test]
async fn upload_whose_stream_is_reset_is_never_complete_at_an_endpoint() {
    let endpoint = RawEndpoint::start().await;
    let harness = Harness::start(|options| endpoint.replace_endpoint("east", options)).await;
    for (name, code) in [("NO_ERROR", 0), ("INTERNAL_ERROR", 2), ("CANCEL", 8)] {
        let mut caller = harness.raw_connection().await;
        caller.write(http2_call()).await;
        let mut connection = started_call(&endpoint).await;
        caller.write(frame(3, 0, 1, &[0, 0, 0, code])).await;
        assert_eq!(String::from_utf8_lossy(&connection.rest().await), "", "{name}: more was sent");
    }
}

#[tokio::test]
async fn late_rest_of_an_abandoned_body_does_not_complete_it() {
    for version in ["1.1", "2"] {
        let harness = Harness::start(|options| {
            options.set("endpoints.east.http_version", version).set("timeouts.request", "2s").set("timeouts.try", "2s");
        })
        .await;
        let mut raw = harness.raw_connection().await;
        raw.write(chunked_head("broken")).await.write("5\r\nhello\r\n").await;
        raw.response().await.unwrap().assert_gateway_error(408, "slow_request");
        raw.write("5\r\nworld\r\n5\r\nagain\r\n0\r\n\r\n").await;
        harness.broadcast().await.assert_status(202);
        let arrived = harness.arrivals("east");
        let wrong: Vec<_> = arrived.iter().filter(|entry| is_complete(entry)).collect();
        assert!(wrong.is_empty(), "{version}: {wrong:#?}");
    }
}

/// Waits for a call whose body starts with `hello`.
async fn started_call(endpoint: &RawEndpoint) -> RawConnection {
    let (head, mut connection) = endpoint.call().await;
    assert!(head.contains("x-mark: broken") && head.contains("transfer-encoding: chunked"), "{head}");
    connection.read_to(b"hello\r\n").await.unwrap();
    connection
}

/// The endpoint answers early, with 401 or with a status that the SDK's policy retries, and the body fails during the
/// retry.
#[tokio::test]
async fn body_that_fails_during_a_retry_is_not_complete() {
    for response in ["401 Unauthorized", "503 Service Unavailable"] {
        let endpoint = RawEndpoint::start().await;
        let harness = Harness::start(|options| {
            endpoint.replace_endpoint("east", options);
            options.set("retry.messages", "sdk");
        })
        .await;
        let mut caller = harness.raw_connection().await;
        caller.write(chunked_head("broken")).await.write("5\r\nhello\r\n").await;
        let mut first = started_call(&endpoint).await;
        first.write(format!("HTTP/1.1 {response}\r\ncontent-length: 0\r\n\r\n")).await;
        let mut retry = started_call(&endpoint).await;
        caller.write("zz\r\n").await;
        caller.response().await.unwrap().assert_gateway_error(400, "body_broken");
        for connection in [&mut first, &mut retry] {
            assert_eq!(String::from_utf8_lossy(&connection.rest().await), "", "{response}: more was sent");
        }
    }
}

/// The body fails while the gateway waits for another token.
#[tokio::test]
async fn body_that_fails_while_waiting_for_a_token_is_not_complete() {
    let endpoint = RawEndpoint::start().await;
    let harness = Harness::start(|options| endpoint.replace_endpoint("east", options)).await;
    let entra = harness.sandbox.entra();
    entra.faults().set(Fault::times(1, FaultKind::Delay { delay_ms: 300 }));
    let before = entra.journal().received();
    let mut caller = harness.raw_connection().await;
    caller.write(chunked_head("broken")).await.write("5\r\nhello\r\n").await;
    let mut first = started_call(&endpoint).await;
    first.write("HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\n\r\n").await;
    crate::support::wait_until("another token is requested", async || {
        (entra.journal().received() > before).then_some(())
    })
    .await;
    caller.write("zz\r\n").await;
    caller.response().await.unwrap().assert_gateway_error(400, "body_broken");
    assert_eq!(String::from_utf8_lossy(&first.rest().await), "");
    // Anything sent by the retry arrives before this call.
    let sent = tokio::spawn(async move {
        harness.caller().await.send(request("POST", BROADCAST_PATH).header("x-mark", "complete"), BROADCAST_BODY).await
    });
    loop {
        let (head, mut connection) = endpoint.call().await;
        if head.contains("x-mark: complete") {
            connection.write("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
            break;
        }
        let rest = connection.rest().await;
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{head}{}", String::from_utf8_lossy(&rest));
    }
    sent.await.unwrap().assert_status(202);
}

//! Memory for large bodies: it is bounded, released, and does not delay other calls.

use bytes::Bytes;
use futures_util::future::join_all;
use futures_util::stream::unfold;
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use signalr_gateway::sandbox::{Fault, FaultKind};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::{BROADCAST_PATH, Caller, Harness, RawConnection, broadcast_request, wait_until, with_timeout};

const KIB: usize = 1024;

/// Returns a message of `size` bytes.
fn message(size: usize) -> String {
    let (head, tail) = (r#"{"target":"hello","arguments":[""#, r#""]}"#);
    format!("{head}{}{tail}", "x".repeat(size - head.len() - tail.len()))
}

async fn memory(harness: &Harness) -> f64 {
    harness.metrics().await.sum("request_body_memory_bytes", &[])
}

async fn not_kept(harness: &Harness) -> f64 {
    harness.metrics().await.sum("request_bodies_not_kept_total", &[])
}

async fn wait_until_memory_is_released(harness: &Harness) {
    wait_until("the memory is released", async || (memory(harness).await < 0.5).then_some(())).await;
}

/// Sends a message of 1,020 KiB except for its last bytes, which uses up a budget of 1 MiB. Returns the rest.
async fn use_up_the_budget(harness: &Harness) -> (RawConnection, String) {
    let mut caller = harness.raw_connection().await;
    let body = message(1020 * KIB);
    let (sent, rest) = body.split_at(1015 * KIB);
    caller
        .write(format!(
            "POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{sent}",
            body.len()
        ))
        .await;
    wait_until("the memory is used up", async || (memory(harness).await >= 1024.0 * 1024.0).then_some(())).await;
    (caller, rest.to_owned())
}

#[tokio::test]
async fn bodies_above_the_memory_budget_are_forwarded_but_cannot_be_retried() {
    let harness = Harness::start(|options| {
        options.set("limits.body_memory", "1MiB").set("limits.queue_time", "50ms");
        options.append_toml(
            "[[routes]]\nname = \"west\"\nmatch = { hub = \"west\" }\nendpoints = [\"west\"]\n\
             [[routes]]\nname = \"east\"\nendpoints = [\"east\"]\n",
        );
    })
    .await;
    let (mut slow, rest) = use_up_the_budget(&harness).await;
    let mut caller = harness.caller().await;
    caller.send(broadcast_request(), message(200 * KIB)).await.assert_status(202);
    assert!((not_kept(&harness).await - 1.0).abs() < 0.5);
    // After a rejected token, the large body cannot be sent again. Small bodies are always kept.
    let reject_one_token = |endpoint: &str| {
        let fault = Fault::times(1, FaultKind::status(401)).on_path("/api/hubs");
        harness.endpoint(endpoint).server.faults().set(fault);
    };
    reject_one_token("east");
    caller.send(broadcast_request(), message(200 * KIB)).await.assert_gateway_error(503, "overload");
    reject_one_token("west");
    let west = broadcast_request().uri("/api/hubs/west/:send?api-version=2022-11-01");
    caller.send(west, message(10 * KIB)).await.assert_status(202);
    slow.write(rest).await;
    slow.response().await.unwrap().assert_status(202);
    wait_until_memory_is_released(&harness).await;
    assert!((not_kept(&harness).await - 2.0).abs() < 0.5);
    harness.caller().await.send(broadcast_request(), message(200 * KIB)).await.assert_status(202);
    assert!((not_kept(&harness).await - 2.0).abs() < 0.5, "it was kept");
    harness.shutdown().await.unwrap();
}

#[tokio::test]
async fn fan_out_waits_for_memory_and_is_rejected_before_anything_is_sent() {
    let harness = Harness::start(|options| {
        options.set("limits.body_memory", "1MiB").set("limits.queue_time", "50ms");
        options.append_toml(
            "[[routes]]\nname = \"both\"\nmatch = { hub = \"both\" }\npick = \"all\"\nendpoints = [\"east\", \"west\"]\n\
             [[routes]]\nname = \"one\"\nendpoints = [\"east\"]\n",
        );
    })
    .await;
    let (mut slow, rest) = use_up_the_budget(&harness).await;
    let target = "/api/hubs/both/:send?api-version=2022-11-01";
    let mut caller = harness.caller().await;
    let rejected = caller.post(target, "application/json", message(200 * KIB)).await;
    assert_eq!(rejected.assert_gateway_error(503, "overload").header("retry-after"), Some("1"));
    assert!(rejected.text().contains("no memory for the request body"), "{}", rejected.text());
    assert!(harness.arrivals("west").is_empty());
    let chunks = || message(200 * KIB).into_bytes().chunks(8 * KIB).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    let chunked = || crate::support::request("POST", target).header("content-type", "application/json");
    harness.caller().await.send_chunked(chunked(), chunks()).await.assert_gateway_error(503, "overload");
    harness.caller().await.post(target, "application/json", message(10 * KIB)).await.assert_status(202);
    slow.write(rest).await;
    slow.response().await.unwrap().assert_status(202);
    wait_until_memory_is_released(&harness).await;
    Caller::connect(harness.listener("default"))
        .await
        .post(target, "application/json", message(200 * KIB))
        .await
        .assert_status(202);
    harness.caller().await.send_chunked(chunked(), chunks()).await.assert_status(202);
    harness.shutdown().await.unwrap();
}

#[tokio::test]
async fn uploads_of_one_http2_connection_stay_within_the_memory_budget() {
    const UPLOADS: usize = 24;
    let harness = Harness::start(|options| {
        options.set("limits.body_memory", "4MiB");
    })
    .await;
    let stream = TcpStream::connect(harness.listener("default")).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let body = message(900 * KIB);
    let mut uploads = Vec::new();
    let mut responses = Vec::new();
    for _ in 0..UPLOADS {
        let (pieces, source) = mpsc::channel::<Bytes>(1);
        let source = Box::pin(unfold(source, async |mut source| {
            let piece = source.recv().await?;
            Some((Ok::<_, std::io::Error>(Frame::data(piece)), source))
        }));
        let (mut head, ()) = broadcast_request().body(()).unwrap().into_parts();
        head.uri = format!("http://localhost{BROADCAST_PATH}").parse().unwrap();
        let mut sender = sender.clone();
        let request = http::Request::from_parts(head, StreamBody::new(source));
        responses.push(tokio::spawn(async move { sender.send_request(request).await.unwrap().status() }));
        uploads.push(pieces);
    }
    let (sent, rest) = body.split_at(890 * KIB);
    let sending = uploads.iter().map(async |pieces| {
        for piece in sent.as_bytes().chunks(16 * KIB) {
            pieces.send(Bytes::copy_from_slice(piece)).await.unwrap();
        }
    });
    with_timeout("the uploads", join_all(sending)).await;
    wait_until("some are not kept", async || (not_kept(&harness).await > 10.0).then_some(())).await;
    let peak = memory(&harness).await;
    assert!(peak <= 4.2 * 1024.0 * 1024.0, "{peak}");
    // All uploads succeed, and small calls are not delayed.
    harness.broadcast().await.assert_status(202);
    for pieces in uploads {
        pieces.send(Bytes::copy_from_slice(rest.as_bytes())).await.unwrap();
    }
    let responses = with_timeout("the responses", join_all(responses)).await;
    assert!(responses.iter().all(|response| matches!(response, Ok(status) if *status == 202)), "{responses:?}");
    wait_until_memory_is_released(&harness).await;
    let complete = harness.arrivals("east").iter().filter(|entry| entry.complete).count();
    assert_eq!(complete, UPLOADS + 1);
    harness.shutdown().await.unwrap();
}

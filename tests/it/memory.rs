//! Memory that callers take by large bodies: it is bounded, given back, and not taken from others' calls.

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

use crate::support::{Caller, Lab, Raw, SEND, hello, in_time, wait_until};

const KIB: usize = 1024;

/// A message of so many bytes.
fn message(size: usize) -> String {
    let (head, tail) = (r#"{"target":"hello","arguments":[""#, r#""]}"#);
    format!("{head}{}{tail}", "x".repeat(size - head.len() - tail.len()))
}

async fn memory(lab: &Lab) -> f64 {
    lab.metrics().await.sum("request_body_memory_bytes", &[])
}

async fn not_kept(lab: &Lab) -> f64 {
    lab.metrics().await.sum("request_bodies_not_kept_total", &[])
}

async fn wait_until_memory_is_given_back(lab: &Lab) {
    wait_until("the memory is given back", async || (memory(lab).await < 0.5).then_some(())).await;
}

/// Sends a message of 1,020 KiB but for its last bytes, which takes a budget of 1 MiB. Returns what is still to be sent.
async fn take_everything(lab: &Lab) -> (Raw, String) {
    let mut caller = lab.raw().await;
    let body = message(1020 * KIB);
    let (sent, rest) = body.split_at(1015 * KIB);
    caller
        .write(format!(
            "POST {SEND} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{sent}",
            body.len()
        ))
        .await;
    wait_until("all memory is taken", async || (memory(lab).await >= 1024.0 * 1024.0).then_some(())).await;
    (caller, rest.to_owned())
}

#[tokio::test]
async fn bodies_beyond_the_budget_pass_and_only_cannot_be_sent_again() {
    let lab = Lab::start(|plan| {
        plan.set("limits.body_memory", "1MiB").set("limits.queue_time", "50ms");
        plan.more(
            "[[routes]]\nname = \"west\"\nmatch = { hub = \"west\" }\nendpoints = [\"west\"]\n\
             [[routes]]\nname = \"east\"\nendpoints = [\"east\"]\n",
        );
    })
    .await;
    let (mut slow, rest) = take_everything(&lab).await;
    let mut caller = lab.caller().await;
    caller.send(hello(), message(200 * KIB)).await.is(202);
    assert!((not_kept(&lab).await - 1.0).abs() < 0.5);
    // A refused token leaves nothing that could be sent again. Small bodies are always kept.
    let refuse_one = |endpoint: &str| {
        let fault = Fault::times(1, FaultKind::status(401)).on_path("/api/hubs");
        lab.endpoint(endpoint).server.faults().set(fault);
    };
    refuse_one("east");
    caller.send(hello(), message(200 * KIB)).await.is_refused(503, "overload");
    refuse_one("west");
    let west = hello().uri("/api/hubs/west/:send?api-version=2022-11-01");
    caller.send(west, message(10 * KIB)).await.is(202);
    slow.write(rest).await;
    slow.answer().await.unwrap().is(202);
    wait_until_memory_is_given_back(&lab).await;
    assert!((not_kept(&lab).await - 2.0).abs() < 0.5);
    lab.caller().await.send(hello(), message(200 * KIB)).await.is(202);
    assert!((not_kept(&lab).await - 2.0).abs() < 0.5, "it was kept");
    lab.shutdown().await.unwrap();
}

#[tokio::test]
async fn call_to_several_endpoints_waits_for_memory_and_is_refused_before_anything_is_sent() {
    let lab = Lab::start(|plan| {
        plan.set("limits.body_memory", "1MiB").set("limits.queue_time", "50ms");
        plan.more(
            "[[routes]]\nname = \"both\"\nmatch = { hub = \"both\" }\npick = \"all\"\nendpoints = [\"east\", \"west\"]\n\
             [[routes]]\nname = \"one\"\nendpoints = [\"east\"]\n",
        );
    })
    .await;
    let (mut slow, rest) = take_everything(&lab).await;
    let target = "/api/hubs/both/:send?api-version=2022-11-01";
    let mut caller = lab.caller().await;
    let refused = caller.post(target, "application/json", message(200 * KIB)).await;
    assert_eq!(refused.is_refused(503, "overload").header("retry-after"), Some("1"));
    assert!(lab.arrivals("west").is_empty());
    let chunks = || message(200 * KIB).into_bytes().chunks(8 * KIB).map(Bytes::copy_from_slice).collect::<Vec<_>>();
    let chunked = || crate::support::request("POST", target).header("content-type", "application/json");
    lab.caller().await.send_chunked(chunked(), chunks()).await.is_refused(503, "overload");
    lab.caller().await.post(target, "application/json", message(10 * KIB)).await.is(202);
    slow.write(rest).await;
    slow.answer().await.unwrap().is(202);
    wait_until_memory_is_given_back(&lab).await;
    Caller::connect(lab.listener("default")).await.post(target, "application/json", message(200 * KIB)).await.is(202);
    lab.caller().await.send_chunked(chunked(), chunks()).await.is(202);
    lab.shutdown().await.unwrap();
}

#[tokio::test]
async fn uploads_of_one_http2_connection_take_no_more_than_the_budget() {
    const UPLOADS: usize = 24;
    let lab = Lab::start(|plan| {
        plan.set("limits.body_memory", "4MiB");
    })
    .await;
    let stream = TcpStream::connect(lab.listener("default")).await.unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let body = message(900 * KIB);
    let mut uploads = Vec::new();
    let mut answers = Vec::new();
    for _ in 0..UPLOADS {
        let (pieces, source) = mpsc::channel::<Bytes>(1);
        let source = Box::pin(unfold(source, async |mut source| {
            let piece = source.recv().await?;
            Some((Ok::<_, std::io::Error>(Frame::data(piece)), source))
        }));
        let (mut head, ()) = hello().body(()).unwrap().into_parts();
        head.uri = format!("http://localhost{SEND}").parse().unwrap();
        let mut sender = sender.clone();
        let request = http::Request::from_parts(head, StreamBody::new(source));
        answers.push(tokio::spawn(async move { sender.send_request(request).await.unwrap().status() }));
        uploads.push(pieces);
    }
    let (sent, rest) = body.split_at(890 * KIB);
    let sending = uploads.iter().map(async |pieces| {
        for piece in sent.as_bytes().chunks(16 * KIB) {
            pieces.send(Bytes::copy_from_slice(piece)).await.unwrap();
        }
    });
    in_time("the uploads", join_all(sending)).await;
    wait_until("some are not kept", async || (not_kept(&lab).await > 10.0).then_some(())).await;
    let most = memory(&lab).await;
    assert!(most <= 4.2 * 1024.0 * 1024.0, "{most}");
    // All of them end well, and small calls were never in the way.
    lab.hello().await.is(202);
    for pieces in uploads {
        pieces.send(Bytes::copy_from_slice(rest.as_bytes())).await.unwrap();
    }
    let answers = in_time("the answers", join_all(answers)).await;
    assert!(answers.iter().all(|answer| matches!(answer, Ok(status) if *status == 202)), "{answers:?}");
    wait_until_memory_is_given_back(&lab).await;
    let complete = lab.arrivals("east").iter().filter(|entry| entry.complete).count();
    assert_eq!(complete, UPLOADS + 1);
    lab.shutdown().await.unwrap();
}

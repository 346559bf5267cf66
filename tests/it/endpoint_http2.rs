//! Endpoints that are spoken to in HTTP/2: what they refuse to process is sent elsewhere or once more, and what they may have
//! processed is not.

use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::{BROADCAST_BODY, BROADCAST_PATH, Harness, Http2Endpoint, Reply, request, wait_until};

const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;

/// A gateway whose endpoint `east` is this one; `west` is the sandbox's. One worker, so one connection.
async fn harness(east: &Http2Endpoint) -> Harness {
    let url = format!("http://{}", east.address);
    Harness::start(|options| {
        options.set("endpoints.east.url", &url).set("endpoints.east.http_version", "2").set("process.workers", "1");
    })
    .await
}

#[tokio::test]
async fn message_that_was_refused_before_it_was_processed_is_sent_once_more() {
    for refusal in [
        Reply::Reset(REFUSED_STREAM),
        Reply::GoAway { streams_before: 1, answered: false },
        Reply::GoAway { streams_before: 2, answered: false },
    ] {
        let east = Http2Endpoint::start().await;
        let harness = harness(&east).await;
        harness.broadcast().await.assert_status(202);
        harness.broadcast().await.assert_status(202);
        east.reply(&[refusal]);
        harness.broadcast().await.assert_status(202);
        let is_same = matches!(refusal, Reply::Reset(_));
        assert_eq!(east.requests(), [0, 0, 0, usize::from(!is_same)], "{refusal:?}");
        assert!(harness.arrivals("west").is_empty(), "{refusal:?}");
    }
}

#[tokio::test]
async fn message_that_is_refused_again_and_again_goes_to_the_next_endpoint() {
    for refusal in [Reply::Reset(REFUSED_STREAM), Reply::GoAway { streams_before: 1, answered: false }] {
        let east = Http2Endpoint::start().await;
        let harness = harness(&east).await;
        harness.broadcast().await.assert_status(202);
        east.reply(&[refusal; 2]);
        harness.broadcast().await.assert_status(202);
        assert_eq!((east.requests().len(), harness.arrivals("west").len()), (3, 1), "{refusal:?}");
        // A first request on a new connection is no exception.
        let east = Http2Endpoint::start().await;
        let harness = self::harness(&east).await;
        east.reply(&[refusal; 2]);
        harness.broadcast().await.assert_status(202);
        assert_eq!(harness.arrivals("west").len(), 1, "{refusal:?}");
    }
}

#[tokio::test]
async fn message_that_may_have_been_processed_is_sent_once() {
    for reply in [Reply::Reset(INTERNAL_ERROR), Reply::Reset(0)] {
        let east = Http2Endpoint::start().await;
        let harness = harness(&east).await;
        east.reply(&[reply]);
        harness.broadcast().await.assert_gateway_error(502, "upstream_broken");
        assert_eq!((east.requests().len(), harness.arrivals("west").len()), (1, 0), "{reply:?}");
    }
}

#[tokio::test]
async fn first_calls_share_one_connection() {
    let east = Http2Endpoint::start().await;
    let harness = harness(&east).await;
    futures_util::future::join_all((0..40).map(|_| async { harness.broadcast().await.assert_status(202).status }))
        .await;
    assert_eq!(east.requests(), [0; 40]);
    let connects = harness.metrics().await.sum("upstream_connects_total", &[("endpoint", "east")]);
    assert!((connects - 1.0).abs() < f64::EPSILON, "{connects} connects");
}

#[tokio::test]
async fn health_is_probed_in_the_version_that_the_endpoint_speaks() {
    let east = Http2Endpoint::start().await;
    let harness = harness(&east).await;
    wait_until("a probe was answered", async || {
        (harness.metrics().await.sum("endpoint_up", &[("endpoint", "east")]) > 0.5).then_some(())
    })
    .await;
    assert_eq!(east.connections(), 0, "the probe counts as a call");
}

#[tokio::test]
async fn connection_that_is_going_away_gets_no_more_requests() {
    let east = Http2Endpoint::start().await;
    let harness = harness(&east).await;
    east.reply(&[Reply::Accept, Reply::GoAway { streams_before: 0, answered: true }]);
    for _ in 0..4 {
        harness.broadcast().await.assert_status(202);
    }
    assert_eq!(east.requests(), [0, 0, 1, 1]);
    assert_eq!(east.connections(), 2);
    assert!(harness.arrivals("west").is_empty());
}

#[tokio::test]
async fn answer_with_an_empty_piece_in_its_middle_arrives_whole() {
    let east = Http2Endpoint::start().await;
    let harness = harness(&east).await;
    east.reply(&[Reply::EmptyFrame; 2]);
    assert_eq!(harness.broadcast().await.assert_status(202).text(), "before");
    let stream = TcpStream::connect(harness.listener("default")).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    // Ends with the test's runtime.
    tokio::spawn(connection);
    let call = request("POST", &format!("http://localhost{BROADCAST_PATH}")).header("content-type", "application/json");
    let answer = sender.send_request(call.body(Full::<bytes::Bytes>::from(BROADCAST_BODY)).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 202);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "before");
}

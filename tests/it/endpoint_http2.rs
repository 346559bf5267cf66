//! Endpoints over HTTP/2: requests that they refuse to process are retried, and requests that they may have processed
//! are not.

use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::{BROADCAST_BODY, BROADCAST_PATH, Harness, Http2Endpoint, Reply, request, wait_until};

const INTERNAL_ERROR: u32 = 2;
const REFUSED_STREAM: u32 = 7;

/// Starts a gateway with this endpoint as `east` and the sandbox's `west`. One worker, so one connection.
async fn harness(east: &Http2Endpoint) -> Harness {
    let url = format!("http://{}", east.address);
    Harness::start(|options| {
        options.set("endpoints.east.url", &url).set("endpoints.east.http_version", "2").set("process.workers", "1");
    })
    .await
}

#[tokio::test]
async fn retries_a_message_that_the_endpoint_refused_to_process() {
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
async fn sends_a_message_to_the_next_endpoint_after_repeated_refusals() {
    for refusal in [Reply::Reset(REFUSED_STREAM), Reply::GoAway { streams_before: 1, answered: false }] {
        let east = Http2Endpoint::start().await;
        let harness = harness(&east).await;
        harness.broadcast().await.assert_status(202);
        east.reply(&[refusal; 2]);
        harness.broadcast().await.assert_status(202);
        assert_eq!((east.requests().len(), harness.arrivals("west").len()), (3, 1), "{refusal:?}");
        // The same holds for the first request on a connection.
        let east = Http2Endpoint::start().await;
        let harness = self::harness(&east).await;
        east.reply(&[refusal; 2]);
        harness.broadcast().await.assert_status(202);
        assert_eq!(harness.arrivals("west").len(), 1, "{refusal:?}");
    }
}

#[tokio::test]
async fn does_not_retry_a_message_that_may_have_been_processed() {
    for reply in [Reply::Reset(INTERNAL_ERROR), Reply::Reset(0)] {
        let east = Http2Endpoint::start().await;
        let harness = harness(&east).await;
        east.reply(&[reply]);
        harness.broadcast().await.assert_gateway_error(502, "upstream_broken");
        assert_eq!((east.requests().len(), harness.arrivals("west").len()), (1, 0), "{reply:?}");
    }
}

#[tokio::test]
async fn concurrent_first_calls_share_one_connection() {
    let east = Http2Endpoint::start().await;
    let harness = harness(&east).await;
    futures_util::future::join_all((0..40).map(|_| async { harness.broadcast().await.assert_status(202).status }))
        .await;
    assert_eq!(east.requests(), [0; 40]);
    let connects = harness.metrics().await.sum("upstream_connects_total", &[("endpoint", "east")]);
    assert!((connects - 1.0).abs() < f64::EPSILON, "{connects} connects");
}

#[tokio::test]
async fn probes_health_over_http2_at_an_http2_endpoint() {
    let east = Http2Endpoint::start().await;
    let harness = harness(&east).await;
    wait_until("a probe was answered", async || {
        (harness.metrics().await.sum("endpoint_up", &[("endpoint", "east")]) > 0.5).then_some(())
    })
    .await;
    assert_eq!(east.connections(), 0, "the probe counts as a call");
}

#[tokio::test]
async fn sends_no_request_on_a_connection_after_goaway() {
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
async fn forwards_a_response_with_an_empty_data_frame_completely() {
    let east = Http2Endpoint::start().await;
    let harness = harness(&east).await;
    east.reply(&[Reply::EmptyFrame; 2]);
    assert_eq!(harness.broadcast().await.assert_status(202).text(), "before");
    let stream = TcpStream::connect(harness.listener("default")).await.unwrap();
    let (mut sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    // Ends with the test's runtime.
    tokio::spawn(connection);
    let call = request("POST", &format!("http://localhost{BROADCAST_PATH}")).header("content-type", "application/json");
    let response = sender.send_request(call.body(Full::<bytes::Bytes>::from(BROADCAST_BODY)).unwrap()).await.unwrap();
    assert_eq!(response.status(), 202);
    assert_eq!(response.into_body().collect().await.unwrap().to_bytes(), "before");
}

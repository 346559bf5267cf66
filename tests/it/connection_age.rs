//! Connections of callers that reach `timeouts.connection_age`: they are closed, and no request is lost.

use std::time::{Duration, Instant};

use signalr_gateway::sandbox::{Fault, FaultKind};

use crate::support::frames::{END_STREAM, Frames, GOAWAY, HEADERS, PING, frame, headers, pseudo};
use crate::support::{BROADCAST_BODY, BROADCAST_PATH, Harness, broadcast_request, wait_until};

/// The flag of a PING acknowledgement.
const ACK: u8 = 1;
async fn harness(age: &str) -> Harness {
    Harness::start(|options| {
        options.set("timeouts.connection_age", age);
    })
    .await
}

/// Returns how many connections were closed because of their age.
async fn closed(harness: &Harness) -> f64 {
    harness.metrics().await.sum("connections_closed_total", &[("reason", "age")])
}

#[tokio::test]
async fn busy_connection_is_asked_to_close_and_loses_no_call() {
    let harness = harness("1s").await;
    let began = Instant::now();
    let mut caller = harness.caller().await;
    let mut calls = 0;
    loop {
        let response = caller.send(broadcast_request(), BROADCAST_BODY).await;
        response.assert_status(202);
        calls += 1;
        if response.header("connection") == Some("close") {
            break;
        }
    }
    assert!(began.elapsed() >= Duration::from_millis(900), "closed early");
    assert!(closed(&harness).await > 0.5);
    wait_until("the connection is closed", async || caller.is_closed().then_some(())).await;
    assert_eq!(harness.arrivals("east").len(), calls);
}

#[tokio::test]
async fn idle_connection_is_closed_at_its_age() {
    // Long enough for the first call on a busy machine.
    let harness = harness("3s").await;
    let began = Instant::now();
    let mut raw = harness.raw_connection().await;
    raw.write("HEAD /api/health HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n").await;
    let response = raw.response_to("HEAD").await.unwrap();
    assert_eq!(response.header("connection"), None);
    assert!(raw.rest().await.is_empty());
    // An age is within 10 %.
    assert!(began.elapsed() >= Duration::from_millis(2700), "closed early");
    assert!(closed(&harness).await > 0.5);
}

#[tokio::test]
async fn http2_connection_goes_away_and_answers_calls_that_were_on_their_way() {
    let harness = harness("1s").await;
    // In flight when the connection reaches its age.
    let delay = Fault::times(1, FaultKind::Delay { delay_ms: 2500 }).on_path("/api/hubs");
    harness.endpoint("east").server.faults().set(delay);
    let mut caller = Frames::connect(harness.listener("default"), &[]).await;
    let call = |stream| headers(stream, END_STREAM, &pseudo("POST", BROADCAST_PATH));
    caller.write(&call(1)).await;
    let (mut answered, mut last_streams) = (Vec::new(), Vec::new());
    while let Some(next) = caller.next().await {
        match next.kind {
            HEADERS => answered.push(next.stream),
            GOAWAY => last_streams.push(u32::from_be_bytes(next.payload[..4].try_into().unwrap())),
            // A caller that has not received GOAWAY yet starts another call. Its acknowledgement ends that time.
            PING => caller.write(&[call(3), frame(PING, ACK, 0, &next.payload)].concat()).await,
            _ => {}
        }
    }
    answered.sort_unstable();
    assert_eq!((answered, last_streams), (vec![1, 3], vec![u32::MAX >> 1, 3]));
    assert!(closed(&harness).await > 0.5);
}

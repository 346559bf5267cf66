//! Random faults of the store and of an endpoint while callers repeat their messages, through nginx in front of two replicas.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::join_all;
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use signalr_gateway::sandbox::{Fault, FaultKind};
use tokio::net::TcpStream;

use super::{Redis, Replicas, signal};
use crate::nginx::nginx;
use crate::support::broadcast_request;

/// What a caller knows of its message in the end.
#[derive(Debug, PartialEq, Eq)]
enum Known {
    Accepted,
    Unknown,
}

/// Sends a message through nginx once. Returns the status and the kind of error, unless nobody answers an impatient caller.
async fn send_once(ingress: SocketAddr, message: &str) -> Option<(u16, Option<String>)> {
    let body = format!(r#"{{"target":"{message}","arguments":[]}}"#);
    let head = broadcast_request().header("host", "localhost").header("idempotency-key", message);
    let request = head.body(Full::<Bytes>::from(body)).unwrap();
    let answer = tokio::time::timeout(Duration::from_millis(1500), async {
        let stream = TcpStream::connect(ingress).await.ok()?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.ok()?;
        tokio::spawn(connection);
        let response = sender.send_request(request).await.ok()?;
        let kind = response.headers().get("signalr-gateway-error").map(|kind| kind.to_str().unwrap().to_owned());
        Some((response.status().as_u16(), kind))
    });
    answer.await.ok().flatten()
}

/// Sends a message until its outcome is known, each time through nginx.
async fn send_until_known(ingress: SocketAddr, message: &str) -> Known {
    let until = Instant::now() + Duration::from_secs(60);
    let mut unknown = 0;
    loop {
        assert!(Instant::now() < until, "{message} has no outcome");
        let Some((status, kind)) = send_once(ingress, message).await else { continue };
        match (status, kind.as_deref()) {
            (202, None) => return Known::Accepted,
            // It is not sent again. It may still be recorded, though.
            (504, Some("outcome_unknown")) if unknown == 3 => return Known::Unknown,
            (504, Some("outcome_unknown")) => unknown += 1,
            (422, _) => panic!("{message} is taken for another call"),
            _ => {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_message_is_delivered_twice_and_none_is_lost_that_was_answered_202() {
    let time = std::env::var("CHAOS_SECONDS").ok().and_then(|seconds| seconds.parse().ok()).unwrap_or(10);
    let end = Instant::now() + Duration::from_secs(time);
    let mut redis = Redis::start(&[]).await;
    let idempotency = format!("store = \"{}\"\nstore_timeout = \"400ms\"", redis.url());
    let more = "[health]\nfailures = 1000000\n[timeouts]\nrequest = \"4s\"\ntry = \"2s\"\n";
    let mut replicas = Replicas::start(2, "first", &idempotency, more).await;
    let (ingress, _folder) = nginx(&[replicas.listener(0), replicas.listener(1)], "proxy_next_upstream off;").await;
    let address = ingress.address();
    let is_over = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let is_over = Arc::clone(&is_over);
            tokio::spawn(async move {
                let mut known = Vec::new();
                for number in 0.. {
                    if is_over.load(Ordering::Relaxed) {
                        break;
                    }
                    let message = format!("m{caller}x{number}");
                    known.push((send_until_known(address, &message).await, message));
                    // One caller in eight repeats what it knows, at the other replica.
                    if number % 8 == 0
                        && let Some((Known::Accepted, message)) = known.last()
                    {
                        let known_again = send_until_known(address, message).await;
                        assert_eq!(known_again, Known::Accepted, "{message}");
                    }
                }
                known
            })
        })
        .collect();
    let (mut paused, mut killed) = (0, 0);
    while Instant::now() < end {
        let fault = match fastrand::u8(..5) {
            0 => Some(FaultKind::LoseAnswer),
            1 => Some(FaultKind::Reset),
            2 => Some(FaultKind::Delay { delay_ms: 800 }),
            3 => Some(FaultKind::status(403)),
            _ => None,
        };
        if let Some(fault) = fault {
            replicas.faults("east", Fault::times(2, fault));
        }
        if fastrand::bool() {
            paused += 1;
            signal(redis.server.id(), "-STOP");
            tokio::time::sleep(Duration::from_millis(fastrand::u64(50..900))).await;
            signal(redis.server.id(), "-CONT");
        } else {
            killed += 1;
            redis.restart().await;
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(100..600))).await;
    }
    is_over.store(true, Ordering::Relaxed);
    let known: Vec<_> = join_all(callers).await.into_iter().flat_map(Result::unwrap).collect();
    // Nothing is sent any more once the replicas have ended.
    let logs = replicas.stop().await.join("\n--\n");

    let processed: Vec<String> = ["east", "west"]
        .iter()
        .flat_map(|endpoint| replicas.arrivals(endpoint))
        .filter_map(|entry| {
            let is_refused = entry.status.is_some_and(|status| status != 202);
            let body = entry.body.filter(|_| !is_refused)?;
            let body: serde_json::Value = serde_json::from_slice(&body).ok()?;
            Some(body["target"].as_str()?.to_owned())
        })
        .collect();
    let count = |message: &str| processed.iter().filter(|one| *one == message).count();
    let accepted = known.iter().filter(|(known, _)| *known == Known::Accepted).count();
    println!("{accepted} of {} messages accepted, store paused {paused} times and killed {killed} times", known.len());
    assert!(accepted > 0 && known.len() > 8 && paused + killed > 0, "{logs}");
    for (known, message) in &known {
        let times = count(message);
        assert!(times <= 1, "{message} was sent {times} times ({known:?})");
        assert!(*known == Known::Unknown || times == 1, "{message} was answered 202 and lost");
    }
}

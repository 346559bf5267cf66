//! What every test here works with: a laboratory (sandbox and gateway in one process), a caller, the real binary, and
//! waiting for conditions. Knows no behaviour.

mod answering_endpoint;
mod caller;
pub(crate) mod frames;
mod http2_endpoint;
mod lab;
mod leaks;
mod metrics;
mod process;
mod raw_endpoint;

use std::time::{Duration, Instant};

pub(crate) use answering_endpoint::{AnsweringEndpoint, Written};
pub(crate) use caller::{Answer, Caller, Raw, request};
pub(crate) use http2_endpoint::{Http2Endpoint, Reply};
pub(crate) use lab::{Lab, Plan, Stage};
pub(crate) use leaks::Leaks;
pub(crate) use metrics::Samples;
pub(crate) use process::{Finished, Process, run, run_in};
pub(crate) use raw_endpoint::RawEndpoint;

/// The time after which a test gives up. Nothing takes as long; it bounds a test that would hang.
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// Every set of operations there is.
pub(crate) const ALL_OPERATIONS: [&str; 6] = ["messages", "execute", "groups", "queries", "close", "credentials"];

/// A broadcast, as callers send it most.
pub(crate) const SEND: &str = "/api/hubs/chat/:send?api-version=2022-11-01";

/// The body of a broadcast.
pub(crate) const HELLO: &str = r#"{"target":"hello","arguments":["world"]}"#;

/// The head of a broadcast, for [`HELLO`].
pub(crate) fn hello() -> http::request::Builder {
    request("POST", SEND).header(http::header::CONTENT_TYPE, "application/json")
}

/// Looks again and again until there is something, and panics with `what` was waited for if it takes too long.
pub(crate) async fn wait_until<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(began.elapsed() < LONG, "waited in vain until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Ends a test that would hang.
pub(crate) async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(LONG, future).await;
    ended.unwrap_or_else(|_late| panic!("took too long: {what}"))
}

//! Support for all tests: the harness (sandbox and gateway in one process), callers, the real binary, endpoints with
//! scripted responses, and waiting for conditions. Asserts no behaviour of the gateway.

mod caller;
mod connect_proxy;
pub(crate) mod frames;
mod harness;
mod http2_endpoint;
mod leaks;
mod metrics;
pub(crate) mod pki;
mod process;
mod raw_endpoint;
mod scripted_endpoint;
mod tenant_group;

use std::time::{Duration, Instant};

pub(crate) use caller::{Caller, RawConnection, Response, request};
pub(crate) use connect_proxy::{ConnectProxy, ProxyAnswer};
pub(crate) use harness::{GatewayOptions, Harness, HarnessBuilder};
pub(crate) use http2_endpoint::{Http2Endpoint, Reply};
pub(crate) use leaks::Leaks;
pub(crate) use metrics::Samples;
pub(crate) use process::{Process, Program, ProgramOutput, run, run_in, run_with_stdin};
pub(crate) use raw_endpoint::RawEndpoint;
pub(crate) use scripted_endpoint::{ScriptedEndpoint, ScriptedResponse};
pub(crate) use tenant_group::{GROUP_APP, GROUP_IDENTITY, tenant_group};

/// How long a test waits for a condition. It is far longer than any step takes, even on a busy machine, so that only a hang
/// reaches it.
pub(crate) const TEST_TIMEOUT: Duration = Duration::from_secs(120);

/// Every operation set.
pub(crate) const ALL_OPERATIONS: [&str; 7] =
    ["messages", "execute", "groups", "queries", "close", "credentials", "claims"];

/// The path of a broadcast.
pub(crate) const BROADCAST_PATH: &str = "/api/hubs/chat/:send?api-version=2022-11-01";

/// The body of a broadcast.
pub(crate) const BROADCAST_BODY: &str = r#"{"target":"hello","arguments":["world"]}"#;

/// Builds the head of a broadcast with a JSON body.
pub(crate) fn broadcast_request() -> http::request::Builder {
    request("POST", BROADCAST_PATH).header(http::header::CONTENT_TYPE, "application/json")
}

/// Polls until `condition` returns a value. Panics with `what` after [`TEST_TIMEOUT`].
pub(crate) async fn wait_until<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = condition().await {
            return found;
        }
        assert!(began.elapsed() < TEST_TIMEOUT, "timed out waiting until {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Waits for a future. Panics with `what` after [`TEST_TIMEOUT`].
pub(crate) async fn with_timeout<T>(what: &str, future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(TEST_TIMEOUT, future).await;
    ended.unwrap_or_else(|_late| panic!("timed out: {what}"))
}

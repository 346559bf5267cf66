//! Shutdown: accepted requests complete, new connections are refused once the delay has passed, and requests that exceed
//! the deadline are cut off.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signalr_gateway::gateway::GatewayError;
use signalr_gateway::sandbox::{Fault, FaultKind};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::support::{
    BROADCAST_BODY, BROADCAST_PATH, Caller, Harness, HarnessBuilder, ScriptedEndpoint, ScriptedResponse,
    broadcast_request, wait_until, with_timeout,
};

#[tokio::test]
async fn sigterm_under_load_loses_no_accepted_request() {
    let builder = HarnessBuilder::start().await;
    let east = &builder.sandbox.endpoint("east").unwrap().server;
    east.faults().set(Fault::always(FaultKind::Delay { delay_ms: 20 }));
    // Long enough for a call after the gateway is not ready, on a busy machine as well.
    let process = builder.start_process(&["process.workers=2", "shutdown.delay=5s", "shutdown.timeout=60s"]).await;
    let (listener, admin) = (process.listener(), process.admin());
    let is_terminated = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for number in 0..8 {
        let is_terminated = Arc::clone(&is_terminated);
        callers.push(tokio::spawn(async move {
            let mut accepted = Vec::new();
            // Half of the callers reuse their connection as long as possible, half open a new one for each call.
            let mut caller: Option<Caller> = None;
            loop {
                if caller.as_ref().is_none_or(Caller::is_closed) {
                    let Ok(stream) = TcpStream::connect(listener).await else {
                        assert!(is_terminated.load(Ordering::Relaxed), "refused before shutdown");
                        return accepted;
                    };
                    caller = Some(Caller::on(stream).await);
                }
                let id = format!("{number}-{}", accepted.len());
                let response = caller
                    .as_mut()
                    .unwrap()
                    .try_send(broadcast_request().header("x-request-id", &id), BROADCAST_BODY)
                    .await;
                let response = response.unwrap_or_else(|err| panic!("request {id} was lost: {err:?}"));
                response.assert_status(202);
                if response.header("connection") == Some("close") || number % 2 == 0 {
                    caller = None;
                }
                accepted.push(id);
            }
        }));
    }
    // Enough calls to be under load.
    east.journal().wait_for(100, |entry| entry.path() != "/api/health").await;
    is_terminated.store(true, Ordering::Relaxed);
    process.terminate().await;
    wait_until("the gateway is not ready", async || {
        let response = Caller::connect(admin).await.call("GET", "/readyz").await;
        (response.status == 503).then(|| assert!(response.text().contains("stopping"), "{response:?}"))
    })
    .await;
    // It is not ready, and still serves new connections.
    Caller::connect(listener)
        .await
        .send(broadcast_request().header("x-request-id", "late"), BROADCAST_BODY)
        .await
        .assert_status(202);
    let (status, log) = process.wait().await;
    assert_eq!(status.code(), Some(0), "{log}");

    let mut accepted: BTreeSet<String> = ["late".to_owned()].into();
    for caller in callers {
        accepted.extend(with_timeout("the end of a caller", caller).await.unwrap());
    }
    assert!(accepted.len() > 100, "{}", accepted.len());
    let arrived = east.journal().entries().into_iter().filter(|entry| entry.path() != "/api/health");
    let arrived: Vec<String> = arrived.map(|entry| entry.header("x-request-id").unwrap().to_owned()).collect();
    assert_eq!(arrived.len(), arrived.iter().collect::<BTreeSet<_>>().len(), "a message was sent twice");
    assert_eq!(arrived.into_iter().collect::<BTreeSet<_>>(), accepted);
}

#[tokio::test]
async fn drain_waits_for_calls_in_flight_and_closes_idle_connections() {
    let endpoint = ScriptedEndpoint::start().await;
    let mut harness = Harness::start(|options| endpoint.replace_endpoint("east", Path::new(""), options)).await;
    let accepted = || vec![b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n".to_vec()];
    let _written = endpoint.queue(ScriptedResponse { writes: accepted(), ..ScriptedResponse::default() });
    let mut idle = harness.caller().await;
    idle.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    let after = Arc::new(Notify::new());
    let response = ScriptedResponse { writes: accepted(), after: Some(Arc::clone(&after)), closes: false };
    let _written = endpoint.queue(response);
    let mut busy = harness.caller().await;
    let request = tokio::spawn(async move { busy.send(broadcast_request(), BROADCAST_BODY).await });
    wait_until("the endpoint has the request", async || (endpoint.heads().len() > 1).then_some(())).await;
    harness.begin_shutdown();
    wait_until("new connections are refused", async || TcpStream::connect(harness.listener("default")).await.err())
        .await;
    after.notify_one();
    let response = request.await.unwrap();
    assert_eq!(response.assert_status(202).header("connection"), Some("close"));
    harness.shutdown().await.unwrap();
    wait_until("the idle connection is closed", async || idle.is_closed().then_some(())).await;
}

#[tokio::test]
async fn drain_cuts_off_requests_at_the_deadline() {
    let harness = Harness::start(|options| {
        options.set("shutdown.timeout", "300ms");
    })
    .await;
    let east = harness.endpoint("east").server.clone();
    east.faults().set(Fault::times(1, FaultKind::Hang));
    let mut caller = harness.caller().await;
    let request = tokio::spawn(async move { caller.try_send(broadcast_request(), BROADCAST_BODY).await });
    east.journal().wait_for(1, |entry| entry.path() == "/api/hubs/chat/:send").await;
    let began = Instant::now();
    let ended = harness.shutdown().await;
    assert!(matches!(ended, Err(GatewayError::CutOff)), "{ended:?}");
    assert!(began.elapsed() >= Duration::from_millis(300), "it was cut off before the deadline");
    assert!(request.await.unwrap().is_err());
}

#[tokio::test]
async fn drain_deadline_holds_in_the_real_binary() {
    let builder = HarnessBuilder::start().await;
    let east = &builder.sandbox.endpoint("east").unwrap().server;
    east.faults().set(Fault::always(FaultKind::Hang).on_path("/api/hubs"));
    let process = builder.start_process(&["shutdown.timeout=300ms"]).await;
    let mut caller = Caller::connect(process.listener()).await;
    let request = tokio::spawn(async move { caller.try_send(broadcast_request(), BROADCAST_BODY).await });
    east.journal().wait_for(1, |entry| entry.target == BROADCAST_PATH).await;
    process.terminate().await;
    let (status, log) = process.wait().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("cut off"), "not logged: {log}");
    assert!(request.await.unwrap().is_err());
}

//! More connections than allowed: no listener starves another, and the admin listener always responds.

use std::time::Duration;

use signalr_gateway::sandbox::{Fault, FaultKind, GatewayConfig};
use tokio::net::TcpStream;

use crate::support::frames::{END_STREAM, Frames, headers, pseudo};
use crate::support::{
    BROADCAST_BODY, BROADCAST_PATH, Caller, Harness, HarnessBuilder, Program, RawConnection, broadcast_request,
    wait_until, with_timeout,
};

#[tokio::test]
async fn every_listener_is_served_under_a_limit_of_one_connection() {
    let harness = HarnessBuilder::start().await.start_gateway(|options| {
        options.set("limits.max_connections", "1");
        options.append_toml("[listeners.other]\nbind = \"127.0.0.1:0\"\n[listeners.third]\nbind = \"127.0.0.1:0\"\n");
    });
    let harness = harness.await;
    for round in 0..20 {
        for name in ["default", "other", "third"] {
            let mut caller = Caller::connect(harness.listener(name)).await;
            let response = caller.send(broadcast_request(), BROADCAST_BODY).await;
            assert_eq!(response.status, 202, "round {round}, listener {name}");
        }
    }
    harness.shutdown().await.unwrap();
}

#[tokio::test]
async fn connections_above_the_limit_wait() {
    let harness = Harness::start(|options| {
        options.set("limits.max_connections", "1");
        options.append_toml("[listeners.other]\nbind = \"127.0.0.1:0\"\n");
    })
    .await;
    let mut first = harness.caller().await;
    first.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    let other = harness.listener("other");
    let waiting =
        tokio::spawn(async move { Caller::connect(other).await.send(broadcast_request(), BROADCAST_BODY).await });
    // Callers that disconnect while they wait do not count.
    for _ in 0..5 {
        drop(harness.raw_connection().await);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    drop(first);
    with_timeout("the waiting call", waiting).await.unwrap().assert_status(202);
    harness.broadcast().await.assert_status(202);
    // A connection that still waits does not delay shutdown.
    let mut last = harness.caller().await;
    last.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    let _waiting = RawConnection::connect(other).await;
    harness.shutdown().await.unwrap();
}

#[tokio::test]
async fn admin_listener_responds_when_callers_use_all_their_file_descriptors() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let process = Program::with_open_files(180, &files.config).start(builder.folder.path()).await;
    process.wait_until_credentials_are("ready").await;
    let mut callers = Vec::new();
    for _ in 0..300 {
        callers.push(TcpStream::connect(process.listener()).await.unwrap());
    }
    for target in ["/livez", "/readyz", "/metrics", "/status"] {
        assert_eq!(Caller::connect(process.admin()).await.call("GET", target).await.status, 200, "{target}");
    }
    drop(callers);

    // One caller connection is enough if each of its calls opens one to an endpoint.
    let east = &builder.sandbox.endpoint("east").unwrap().server;
    east.faults().set(Fault::always(FaultKind::Hang).on_path("/api/hubs"));
    let mut caller = Frames::connect(process.listener(), &[]).await;
    for stream in (1..500).step_by(2) {
        caller.write(&headers(stream, END_STREAM, &pseudo("POST", BROADCAST_PATH))).await;
    }
    east.journal().wait_for(50, |entry| entry.target == BROADCAST_PATH).await;
    for target in ["/livez", "/readyz", "/metrics", "/status"] {
        assert_eq!(Caller::connect(process.admin()).await.call("GET", target).await.status, 200, "{target}");
    }
    drop(caller);
    east.faults().clear().await;
    wait_until("callers are served again", async || {
        let response = Caller::connect(process.listener()).await.try_send(broadcast_request(), BROADCAST_BODY).await;
        response.is_ok_and(|response| response.status == 202).then_some(())
    })
    .await;
    process.terminate().await;
    let (status, log) = process.wait().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("limit of open files"), "{log}");
}

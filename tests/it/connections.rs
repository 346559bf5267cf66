//! More connections than may be open: no listener takes them from another, and an operator is always answered.

use std::time::Duration;

use signalr_gateway::sandbox::{Fault, FaultKind, GatewayConfig};
use tokio::net::TcpStream;

use crate::support::frames::{END_STREAM, Frames, headers, pseudo};
use crate::support::{Caller, HELLO, Lab, Process, Raw, SEND, Stage, hello, in_time, wait_until};

#[tokio::test]
async fn one_connection_at_a_time_is_enough_for_every_worker_and_listener() {
    let lab = Stage::start().await.gateway(|plan| {
        plan.set("limits.max_connections", "1");
        plan.more("[listeners.other]\nbind = \"127.0.0.1:0\"\n[listeners.third]\nbind = \"127.0.0.1:0\"\n");
    });
    let lab = lab.await;
    for round in 0..20 {
        for name in ["default", "other", "third"] {
            let mut caller = Caller::connect(lab.listener(name)).await;
            let answer = caller.send(hello(), HELLO).await;
            assert_eq!(answer.status, 202, "round {round}, listener {name}");
        }
    }
    lab.shutdown().await.unwrap();
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_their_turn() {
    let lab = Lab::start(|plan| {
        plan.set("limits.max_connections", "1");
        plan.more("[listeners.other]\nbind = \"127.0.0.1:0\"\n");
    })
    .await;
    let mut first = lab.caller().await;
    first.send(hello(), HELLO).await.is(202);
    let other = lab.listener("other");
    let waiting = tokio::spawn(async move { Caller::connect(other).await.send(hello(), HELLO).await });
    // Those who go away while they wait take nothing.
    for _ in 0..5 {
        drop(lab.raw().await);
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!waiting.is_finished());
    drop(first);
    in_time("the one that waited", waiting).await.unwrap().is(202);
    lab.hello().await.is(202);
    // Nor does one that still waits hold up the end.
    let mut last = lab.caller().await;
    last.send(hello(), HELLO).await.is(202);
    let _waiting = Raw::connect(other).await;
    lab.shutdown().await.unwrap();
}

#[tokio::test]
async fn operator_is_answered_when_callers_take_all_descriptors_they_may() {
    let stage = Stage::start().await;
    let files = stage.sandbox.write_files(stage.folder.path(), &GatewayConfig::default()).unwrap();
    let config = files.config.to_str().unwrap();
    let arguments = ["run", "--config", config, "--set", "process.workers=2"];
    let process = Process::start_limited(180, &arguments, stage.folder.path()).await;
    process.wait_until_credentials_are("ready").await;
    let mut callers = Vec::new();
    for _ in 0..300 {
        callers.push(TcpStream::connect(process.listener()).await.unwrap());
    }
    for target in ["/livez", "/readyz", "/metrics", "/status"] {
        assert_eq!(Caller::connect(process.admin()).await.call("GET", target).await.status, 200, "{target}");
    }
    drop(callers);

    // One connection is enough, if each of its calls takes one to an endpoint.
    let east = &stage.sandbox.endpoint("east").unwrap().server;
    east.faults().set(Fault::always(FaultKind::Hang).on_path("/api/hubs"));
    let mut caller = Frames::connect(process.listener(), &[]).await;
    for stream in (1..500).step_by(2) {
        caller.write(&headers(stream, END_STREAM, &pseudo("POST", SEND))).await;
    }
    east.journal().wait_for(50, |entry| entry.target == SEND).await;
    for target in ["/livez", "/readyz", "/metrics", "/status"] {
        assert_eq!(Caller::connect(process.admin()).await.call("GET", target).await.status, 200, "{target}");
    }
    drop(caller);
    east.faults().clear().await;
    wait_until("callers are served again", async || {
        let answer = Caller::connect(process.listener()).await.try_send(hello(), HELLO).await;
        answer.is_ok_and(|answer| answer.status == 202).then_some(())
    })
    .await;
    process.terminate().await;
    let (status, log) = process.wait().await;
    assert_eq!(status.code(), Some(0), "{log}");
    assert!(log.contains("limit of open files"), "{log}");
}

//! Who is to blame for a call that failed, and what its caller is told of what was sent.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::json;
use signalr_gateway::sandbox::{Fault, FaultKind, GatewayConfig, TENANT_B, TENANT_C};

use crate::support::{
    ALL_OPERATIONS, BROADCAST_BODY, BROADCAST_PATH, Caller, Harness, HarnessBuilder, Process, RawConnection,
    RawEndpoint, broadcast_request, wait_until,
};

/// A harness whose circuits open at the first failure and stay open.
async fn strict_harness(change: impl FnOnce(&mut crate::support::GatewayOptions)) -> Harness {
    Harness::start(|options| {
        options.set("health.failures", "1").set("health.failure_ratio", "0.0001").set("health.pause", "1h");
        options.allow(&ALL_OPERATIONS);
        change(options);
    })
    .await
}

async fn is_closed(harness: &Harness, endpoint: &str) -> bool {
    harness.metrics().await.sum("breaker_state", &[("endpoint", endpoint), ("state", "closed")]) > 0.5
}

/// What a server sends that waited for a request, or the rest of one, for too long.
const IDLE_TIMEOUT: &str = "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

const BOTH: &str = "[[routes]]\nname = \"both\"\npick = \"all\"\nendpoints = [\"east\", \"west\"]\n";
const EAST: &str = "[[routes]]\nname = \"east\"\nendpoints = [\"east\"]\n";
const EXISTS: &str = "/api/hubs/chat/users/ann?api-version=2024-12-01";

/// A gateway whose token requests to these tenants are not answered.
async fn harness_without_tokens(tenants: &[&str]) -> Harness {
    let builder = HarnessBuilder::start().await;
    for tenant in tenants {
        builder.sandbox.entra().faults().set(Fault::always(FaultKind::Hang).on_path(&format!("/{tenant}")));
    }
    let harness = builder
        .start_gateway(|options| {
            options.wait_until_ready = false;
            options.set("health.failures", "1").set("health.failure_ratio", "0.0001").set("health.pause", "1h");
            options.set("timeouts.request", "3s").set("timeouts.try", "3s");
        })
        .await;
    let ready_tenants = 2 - tenants.len();
    wait_until("the other tenant's token is there", async || {
        let status = harness.admin("/status").await.json();
        let ready = status["credentials"].as_array()?.iter().filter(|one| one["state"] == "ready").count();
        (ready == ready_tenants).then_some(())
    })
    .await;
    harness
}

#[tokio::test]
async fn token_that_hangs_leaves_time_for_the_next_endpoint_and_blames_none() {
    let harness = harness_without_tokens(&[TENANT_B]).await;
    let began = Instant::now();
    harness.broadcast().await.assert_status(202);
    assert!(began.elapsed() < Duration::from_secs(3), "it had half of the time: {:?}", began.elapsed());
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (0, 1));
    assert!(is_closed(&harness, "east").await && is_closed(&harness, "west").await);
}

#[tokio::test]
async fn tokens_that_hang_are_a_503_and_blame_no_endpoint() {
    let harness = harness_without_tokens(&[TENANT_B, TENANT_C]).await;
    harness.broadcast().await.assert_gateway_error(503, "token_unavailable");
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (0, 0));
    assert!(is_closed(&harness, "east").await && is_closed(&harness, "west").await);
}

#[tokio::test]
async fn slow_upload_is_not_the_endpoints_time() {
    let harness = strict_harness(|options| {
        options.set("timeouts.try", "250ms").set("timeouts.request", "2s");
    })
    .await;
    let head = format!(
        "POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let (first, rest) = BROADCAST_BODY.split_at(10);
    let mut raw = harness.raw_connection().await;
    raw.write(&head).await.write(format!("{:x}\r\n{first}\r\n", first.len())).await;
    // Longer than an attempt may take.
    tokio::time::sleep(Duration::from_millis(700)).await;
    raw.write(format!("{:x}\r\n{rest}\r\n0\r\n\r\n", rest.len())).await;
    raw.answer().await.unwrap().assert_status(202);
    assert!(harness.arrival("east").complete);

    let mut raw = harness.raw_connection().await;
    raw.write(&head).await.write(format!("{:x}\r\n{first}\r\n", first.len())).await;
    raw.answer().await.unwrap().assert_gateway_error(408, "slow_request");
    assert!(is_closed(&harness, "east").await);
    harness.broadcast().await.assert_status(202);
    assert_eq!(harness.arrivals("west").len(), 0);
}

#[tokio::test]
async fn endpoint_that_gives_up_a_slow_upload_is_not_at_fault() {
    let endpoint = RawEndpoint::start().await;
    let harness = strict_harness(|options| {
        endpoint.replace_endpoint("east", options);
        options.append_toml(EAST);
    })
    .await;
    for answer in [IDLE_TIMEOUT, ""] {
        let mut caller = harness.raw_connection().await;
        let head = format!("POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n");
        caller.write(head).await.write("5\r\nhello\r\n").await;
        let (_head, mut connection) = endpoint.call().await;
        connection.read_to(b"hello\r\n").await.unwrap();
        connection.write(answer).await;
        drop(connection);
        let answered = caller.answer().await.unwrap();
        if answer.is_empty() {
            answered.assert_gateway_error(502, "upstream_broken");
        } else {
            answered.assert_status(408);
        }
    }
    assert!(is_closed(&harness, "east").await);
}

#[tokio::test]
async fn shortage_of_descriptors_here_is_not_the_endpoints_fault() {
    let builder = HarnessBuilder::start().await;
    let more = "[health]\nfailures = 1\nfailure_ratio = 0.001\npause = \"1h\"\n".to_owned();
    let config = GatewayConfig { more, ..GatewayConfig::default() };
    let files = builder.sandbox.write_files(builder.folder.path(), &config).unwrap();
    let gateway =
        Process::start(&["run", "--config", files.config.to_str().unwrap()], &[], builder.folder.path()).await;
    gateway.wait_until_credentials_are("ready").await;
    // Its connection has been accepted before, and none to the endpoint is open.
    let mut caller = Caller::connect(gateway.listener()).await;
    caller.call("GET", "/api/health").await.assert_status(200);
    gateway.allow_open_files(false);
    caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_gateway_error(503, "overload");
    gateway.allow_open_files(true);
    caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.assert_status(202);
    let journal = builder.sandbox.endpoint("east").unwrap().server.journal();
    assert!(journal.entries().iter().any(|entry| entry.status == Some(202)), "the circuit of east opened");
}

#[tokio::test]
async fn clients_that_do_not_answer_an_invocation_say_nothing_of_the_endpoint() {
    let harness = strict_harness(|options| {
        options.set("timeouts.try", "250ms");
    })
    .await;
    let invoke = "/api/hubs/chat/connections/c/:invoke?api-version=2024-12-01";
    harness.endpoint("east").server.faults().set(Fault::always(FaultKind::Hang).on_path("/api/hubs/chat/connections"));
    let answers = join_all(
        (0..50).map(|_| async { harness.caller().await.post(invoke, "application/json", BROADCAST_BODY).await }),
    )
    .await;
    for answer in answers {
        answer.assert_gateway_error(504, "deadline");
    }
    assert!(is_closed(&harness, "east").await);
    harness.broadcast().await.assert_status(202);
    assert_eq!(harness.arrivals("west").len(), 0);
    // An endpoint that hangs otherwise is one that fails.
    harness.endpoint("east").server.faults().set(Fault::always(FaultKind::Hang).on_path("/api/hubs/chat/:send"));
    harness.broadcast().await.assert_gateway_error(504, "deadline");
    assert!(!is_closed(&harness, "east").await);
}

#[tokio::test]
async fn calls_of_one_kind_that_are_throttled_leave_the_others_where_they_are() {
    let harness = strict_harness(|_| {}).await;
    let tokens = "/api/hubs/chat/:generateToken?userId=ann&api-version=2024-12-01";
    let throttled = FaultKind::status_after(429, Duration::from_secs(100));
    harness.endpoint("east").server.faults().set(Fault::times(1, throttled).on_path("/api/hubs/chat/:generateToken"));
    assert_eq!(harness.call("POST", tokens).await.assert_status(429).header("retry-after"), Some("100"));
    harness.broadcast().await.assert_status(202);
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (2, 0), "messages stay at east");
    harness.call("POST", tokens).await.assert_status(200);
    assert_eq!(
        (harness.arrivals("east").len(), harness.arrivals("west").len()),
        (2, 1),
        "tokens come from west meanwhile"
    );
    assert!(is_closed(&harness, "east").await);
}

#[tokio::test]
async fn throttled_leg_is_named_as_such() {
    let harness = strict_harness(|options| {
        options.append_toml(BOTH);
    })
    .await;
    let throttled = FaultKind::status_after(429, Duration::from_secs(100));
    harness.endpoint("west").server.faults().set(Fault::times(1, throttled).on_path("/api/hubs"));
    let partial = harness.broadcast().await;
    assert_eq!(
        partial.assert_gateway_error(502, "partial_delivery").json()["endpoints"],
        json!([
            { "endpoint": "east", "outcome": "accepted", "status": 202 },
            { "endpoint": "west", "outcome": "throttled", "status": 429 },
        ])
    );
    // While it is throttled it gets nothing of this kind, and all the rest.
    assert_eq!(
        harness.broadcast().await.assert_gateway_error(502, "partial_delivery").json()["endpoints"][1]["outcome"],
        "not_sent"
    );
    harness.call("PUT", "/api/hubs/chat/users/ann/groups/g?api-version=2024-12-01").await.assert_status(200);
    assert_eq!(harness.arrivals("west").len(), 2);
}

#[tokio::test]
async fn repeat_that_cannot_connect_does_not_unsay_what_was_sent() {
    // A query that is broken off and repeated in vain.
    let endpoint = RawEndpoint::start().await;
    let harness = strict_harness(|options| {
        endpoint.replace_endpoint("east", options);
        options.append_toml(EAST).set("health.failures", "100");
    })
    .await;
    let mut caller = harness.caller().await;
    let asked = tokio::spawn(async move { caller.call("GET", EXISTS).await });
    let (_head, connection) = endpoint.call().await;
    drop(endpoint);
    drop(connection);
    asked.await.unwrap().assert_gateway_error(502, "upstream_broken");

    // One that is not answered.
    let endpoint = RawEndpoint::start().await;
    let harness = strict_harness(|options| {
        endpoint.replace_endpoint("east", options);
        options.append_toml(EAST).set("health.failures", "100").set("timeouts.try", "250ms");
    })
    .await;
    let mut caller = harness.caller().await;
    let asked = tokio::spawn(async move { caller.call("GET", EXISTS).await });
    let (_head, _open) = endpoint.call().await;
    drop(endpoint);
    asked.await.unwrap().assert_gateway_error(504, "deadline");

    // A message that the SDK's policy repeats.
    let endpoint = RawEndpoint::start().await;
    let harness = strict_harness(|options| {
        endpoint.replace_endpoint("east", options);
        options.append_toml(EAST).set("health.failures", "100").set("retry.messages", "sdk");
    })
    .await;
    let mut caller = harness.caller().await;
    let asked = tokio::spawn(async move { caller.send(broadcast_request(), BROADCAST_BODY).await });
    let (_head, mut connection) = endpoint.call().await;
    connection.read_to(BROADCAST_BODY.as_bytes()).await.unwrap();
    drop(endpoint);
    connection.write("HTTP/1.1 504 Gateway Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    drop(connection);
    asked.await.unwrap().assert_status(504);
}

#[tokio::test]
async fn delivery_that_nobody_accepted_is_no_partial_one() {
    let harness = Harness::start(|options| {
        options.append_toml(BOTH).set("timeouts.try", "300ms").set("health.failures", "1000").allow(&ALL_OPERATIONS);
    })
    .await;
    let (east, west) = (harness.endpoint("east").server.faults(), harness.endpoint("west").server.faults());
    // It may have been received by one.
    east.set(Fault::times(1, FaultKind::Hang).on_path("/api/hubs"));
    west.set(Fault::times(1, FaultKind::status(500)).on_path("/api/hubs"));
    harness.broadcast().await.assert_gateway_error(504, "deadline");
    // One refused it, the other did not get it.
    east.refuse().await;
    west.set(Fault::times(1, FaultKind::status(500)).on_path("/api/hubs"));
    harness.broadcast().await.assert_status(500);
    west.set(Fault::times(1, FaultKind::status_after(429, Duration::ZERO)).on_path("/api/hubs"));
    harness.broadcast().await.assert_status(429);
    // One does not have it, and whether the other has it cannot be known.
    harness.call("HEAD", EXISTS).await.assert_gateway_error(502, "upstream_broken");
    // Nobody got it.
    west.refuse().await;
    harness.broadcast().await.assert_gateway_error(503, "endpoint_unavailable");
}

#[tokio::test]
async fn repeats_do_not_pay_into_the_budget_they_are_taken_from() {
    let harness = Harness::start(|options| {
        options
            .append_toml(EAST)
            .set("health.failures", "100000")
            .set("process.workers", "1")
            .set("retry.budget_percent", "20");
    })
    .await;
    harness.endpoint("east").server.faults().set(Fault::always(FaultKind::status(500)).on_path("/api/hubs"));
    for _ in 0..100 {
        harness.call("GET", EXISTS).await.assert_status(500);
    }
    // Ten retries are saved up, and each call pays for a fifth of one.
    let arrived = harness.arrivals("east").len();
    assert!((125..=131).contains(&arrived), "{arrived}");
}

#[tokio::test]
async fn wait_for_a_place_at_the_listener_is_not_the_gateways_own_time() {
    let harness = Harness::start(|options| {
        options.append_toml(BOTH).set("listeners.default.max_requests", "1").set("limits.queue_time", "10s");
    })
    .await;
    let overhead = async || harness.metrics().await.sum("overhead_seconds_sum", &[]);
    let before = overhead().await;
    harness
        .endpoint("east")
        .server
        .faults()
        .set(Fault::times(1, FaultKind::Delay { delay_ms: 1500 }).on_path("/api/hubs"));
    let answers = join_all((0..2).map(|_| harness.broadcast())).await;
    for answer in answers {
        answer.assert_status(202);
    }
    let spent = overhead().await - before;
    assert!(spent < 0.75, "{spent} s of overhead");
}

/// Accepts a message on a connection and keeps it.
async fn accept(connection: &mut RawConnection) {
    connection.read_to(BROADCAST_BODY.as_bytes()).await.unwrap();
    connection.write("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
}

#[tokio::test]
async fn timeout_of_an_idle_connection_answers_no_request() {
    let endpoint = RawEndpoint::start().await;
    let harness = strict_harness(|options| {
        endpoint.replace_endpoint("east", options);
        options.append_toml(EAST).set("process.workers", "1");
    })
    .await;
    // It comes before the next message.
    let (first, mut kept) = tokio::join!(harness.broadcast(), async {
        let (_head, mut connection) = endpoint.call().await;
        accept(&mut connection).await;
        connection
    });
    first.assert_status(202);
    kept.write(IDLE_TIMEOUT).await;
    let (second, mut kept) = tokio::join!(harness.broadcast(), async {
        let (_head, mut connection) = endpoint.call().await;
        accept(&mut connection).await;
        connection
    });
    second.assert_status(202);
    // It crosses the next message.
    let (third, ()) = tokio::join!(harness.broadcast(), async {
        kept.read_to(b"\r\n\r\n").await.unwrap();
        kept.write(IDLE_TIMEOUT).await;
        drop(kept);
        let (_head, mut connection) = endpoint.call().await;
        accept(&mut connection).await;
    });
    third.assert_status(202);
    assert!(is_closed(&harness, "east").await);
    // One that answers the first message of a connection is an answer.
    let endpoint = RawEndpoint::start().await;
    let harness = strict_harness(|options| {
        endpoint.replace_endpoint("east", options);
        options.append_toml(EAST);
    })
    .await;
    let (answer, ()) = tokio::join!(harness.broadcast(), async {
        let (_head, mut connection) = endpoint.call().await;
        connection.write(IDLE_TIMEOUT).await;
    });
    answer.assert_status(408);
}

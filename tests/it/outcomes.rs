//! Failed calls: which side is at fault, and what the response says about what was sent.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use signalr_gateway::sandbox::{Fault, FaultKind, GatewayConfig, SandboxSettings, TENANT_B, TENANT_C};

use crate::support::{
    ALL_OPERATIONS, BROADCAST_BODY, BROADCAST_PATH, Caller, GatewayOptions, Harness, HarnessBuilder, Process,
    RawConnection, RawEndpoint, broadcast_request, wait_until,
};

/// Starts a gateway whose circuits open at the first failure and stay open.
async fn strict_harness(change: impl FnOnce(&mut GatewayOptions)) -> Harness {
    strict_harness_for(HarnessBuilder::start().await, change).await
}

async fn strict_harness_for(builder: HarnessBuilder, change: impl FnOnce(&mut GatewayOptions)) -> Harness {
    let harness = builder.start_gateway(|options| {
        options.set("health.failures", "1").set("health.failure_ratio", "0.0001").set("health.pause", "1h");
        options.allow(&ALL_OPERATIONS);
        change(options);
    });
    harness.await
}

async fn is_closed(harness: &Harness, endpoint: &str) -> bool {
    harness.metrics().await.sum("breaker_state", &[("endpoint", endpoint), ("state", "closed")]) > 0.5
}

/// The response of a server that waited too long for a request, or for the rest of one.
const IDLE_TIMEOUT: &str = "HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

const BOTH: &str = "[[routes]]\nname = \"both\"\npick = \"all\"\nendpoints = [\"east\", \"west\"]\n";
const EAST: &str = "[[routes]]\nname = \"east\"\nendpoints = [\"east\"]\n";
const EXISTS: &str = "/api/hubs/chat/users/ann?api-version=2024-12-01";

/// Starts a gateway whose token requests to these tenants are not answered.
async fn harness_without_tokens(tenants: &[&str]) -> Harness {
    let builder = HarnessBuilder::start().await;
    for tenant in tenants {
        builder.sandbox.entra().faults().set(Fault::always(FaultKind::Hang).on_path(&format!("/{tenant}")));
    }
    let harness = builder
        .start_gateway(|options| {
            options.wait_until_ready = false;
            options.set("health.failures", "1").set("health.failure_ratio", "0.0001").set("health.pause", "1h");
            options.set("timeouts.request", "10s").set("timeouts.try", "10s");
        })
        .await;
    let ready_tenants = 2 - tenants.len();
    wait_until("the other tenant has a token", async || {
        let status = harness.admin("/status").await.json();
        let ready = status["credentials"].as_array()?.iter().filter(|one| one["state"] == "ready").count();
        (ready == ready_tenants).then_some(())
    })
    .await;
    harness
}

#[tokio::test]
async fn hanging_token_request_leaves_time_for_the_next_endpoint() {
    let harness = harness_without_tokens(&[TENANT_B]).await;
    // It would be answered 504 if the token request took all of the time.
    harness.broadcast().await.assert_status(202);
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (0, 1));
    assert!(is_closed(&harness, "east").await && is_closed(&harness, "west").await);
}

#[tokio::test]
async fn hanging_token_requests_return_503_and_open_no_circuit() {
    let harness = harness_without_tokens(&[TENANT_B, TENANT_C]).await;
    harness.broadcast().await.assert_gateway_error(503, "token_unavailable");
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (0, 0));
    assert!(is_closed(&harness, "east").await && is_closed(&harness, "west").await);
}

#[tokio::test]
async fn slow_upload_does_not_count_as_endpoint_time() {
    let harness = strict_harness(|options| {
        options.set("timeouts.try", "2s").set("timeouts.request", "6s");
    })
    .await;
    let head = format!(
        "POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let (first, rest) = BROADCAST_BODY.split_at(10);
    let mut raw = harness.raw_connection().await;
    raw.write(&head).await.write(format!("{:x}\r\n{first}\r\n", first.len())).await;
    // Longer than the timeout of an attempt.
    tokio::time::sleep(Duration::from_millis(2500)).await;
    raw.write(format!("{:x}\r\n{rest}\r\n0\r\n\r\n", rest.len())).await;
    raw.response().await.unwrap().assert_status(202);
    assert!(harness.arrival("east").complete);

    let mut raw = harness.raw_connection().await;
    raw.write(&head).await.write(format!("{:x}\r\n{first}\r\n", first.len())).await;
    raw.response().await.unwrap().assert_gateway_error(408, "slow_request");
    assert!(is_closed(&harness, "east").await);
    harness.broadcast().await.assert_status(202);
    assert_eq!(harness.arrivals("west").len(), 0);
}

#[tokio::test]
async fn endpoint_that_aborts_a_slow_upload_is_not_at_fault() {
    let endpoint = RawEndpoint::start().await;
    let harness = strict_harness(|options| {
        endpoint.replace_endpoint("east", options);
        options.append_toml(EAST);
    })
    .await;
    for response in [IDLE_TIMEOUT, ""] {
        let mut caller = harness.raw_connection().await;
        let head = format!("POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n");
        caller.write(head).await.write("5\r\nhello\r\n").await;
        let (_head, mut connection) = endpoint.call().await;
        connection.read_to(b"hello\r\n").await.unwrap();
        connection.write(response).await;
        drop(connection);
        let answered = caller.response().await.unwrap();
        if response.is_empty() {
            answered.assert_gateway_error(502, "upstream_broken");
        } else {
            answered.assert_status(408);
        }
    }
    assert!(is_closed(&harness, "east").await);
}

#[tokio::test]
async fn running_out_of_descriptors_opens_no_circuit() {
    let builder = HarnessBuilder::start().await;
    let more = "[health]\nfailures = 1\nfailure_ratio = 0.001\npause = \"1h\"\n".to_owned();
    let config = GatewayConfig { more, ..GatewayConfig::default() };
    let files = builder.write_files(&config);
    let gateway = Process::start_gateway(&files.config, &[]).await;
    gateway.wait_until_credentials_are("ready").await;
    // The connection of the caller is open, and no connection to the endpoint is.
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
async fn unanswered_client_invocations_open_no_circuit_and_other_unanswered_calls_do() {
    // The kernel accepts connections without TLS, however busy the machine is, so every call is sent before its deadline.
    let mut settings = SandboxSettings::default();
    settings.endpoints.iter_mut().for_each(|endpoint| endpoint.tls = false);
    let harness = strict_harness_for(HarnessBuilder::with(settings).await, |options| {
        options.set("timeouts.try", "1s");
    })
    .await;
    harness.endpoint("east").server.faults().set(Fault::always(FaultKind::Hang).on_path("/api/hubs"));
    let invoke = "/api/hubs/chat/connections/c/:invoke?api-version=2024-12-01";
    let responses = join_all(
        (0..5).map(|_| async { harness.caller().await.post(invoke, "application/json", BROADCAST_BODY).await }),
    )
    .await;
    for response in responses {
        response.assert_gateway_error(504, "deadline");
    }
    assert!(is_closed(&harness, "east").await);
    harness.broadcast().await.assert_gateway_error(504, "deadline");
    assert!(!is_closed(&harness, "east").await);
    assert_eq!(harness.arrivals("west").len(), 0);
}

#[tokio::test]
async fn throttling_of_one_operation_does_not_move_others_to_another_endpoint() {
    let harness = strict_harness(|_| {}).await;
    let tokens = "/api/hubs/chat/:generateToken?userId=ann&api-version=2024-12-01";
    let throttled = FaultKind::status_after(429, Duration::from_secs(100));
    harness.endpoint("east").server.faults().set(Fault::times(1, throttled).on_path("/api/hubs/chat/:generateToken"));
    assert_eq!(harness.call("POST", tokens).await.assert_status(429).header("retry-after"), Some("100"));
    harness.broadcast().await.assert_status(202);
    assert_eq!(
        (harness.arrivals("east").len(), harness.arrivals("west").len()),
        (2, 0),
        "a message did not go to east"
    );
    harness.call("POST", tokens).await.assert_status(200);
    assert_eq!(
        (harness.arrivals("east").len(), harness.arrivals("west").len()),
        (2, 1),
        "a token request did not go to west"
    );
    assert!(is_closed(&harness, "east").await);
}

#[tokio::test]
async fn fan_out_reports_a_throttled_leg() {
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
    // While it is throttled, it receives only calls of other operations.
    assert_eq!(
        harness.broadcast().await.assert_gateway_error(502, "partial_delivery").json()["endpoints"][1]["outcome"],
        "not_sent"
    );
    harness.call("PUT", "/api/hubs/chat/users/ann/groups/g?api-version=2024-12-01").await.assert_status(200);
    assert_eq!(harness.arrivals("west").len(), 2);
}

#[tokio::test]
async fn failed_retry_still_reports_that_something_was_sent() {
    // A query whose connection closes, and whose retry fails.
    let endpoint = RawEndpoint::start().await;
    let harness = strict_harness(|options| {
        endpoint.replace_endpoint("east", options);
        options.append_toml(EAST).set("health.failures", "100");
    })
    .await;
    let mut caller = harness.caller().await;
    let call = tokio::spawn(async move { caller.call("GET", EXISTS).await });
    let (_head, connection) = endpoint.call().await;
    drop(endpoint);
    drop(connection);
    call.await.unwrap().assert_gateway_error(502, "upstream_broken");

    // A query without a response.
    let endpoint = RawEndpoint::start().await;
    let harness = strict_harness(|options| {
        endpoint.replace_endpoint("east", options);
        options.append_toml(EAST).set("health.failures", "100").set("timeouts.try", "1s");
    })
    .await;
    let mut caller = harness.caller().await;
    let call = tokio::spawn(async move { caller.call("GET", EXISTS).await });
    let (_head, _open) = endpoint.call().await;
    drop(endpoint);
    call.await.unwrap().assert_gateway_error(504, "deadline");

    // A message that the SDK's policy retries.
    let endpoint = RawEndpoint::start().await;
    let harness = strict_harness(|options| {
        endpoint.replace_endpoint("east", options);
        options.append_toml(EAST).set("health.failures", "100").set("retry.messages", "sdk");
    })
    .await;
    let mut caller = harness.caller().await;
    let call = tokio::spawn(async move { caller.send(broadcast_request(), BROADCAST_BODY).await });
    let (_head, mut connection) = endpoint.call().await;
    connection.read_to(BROADCAST_BODY.as_bytes()).await.unwrap();
    drop(endpoint);
    connection.write("HTTP/1.1 504 Gateway Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n").await;
    drop(connection);
    call.await.unwrap().assert_status(504);
}

#[tokio::test]
async fn delivery_accepted_by_no_endpoint_is_not_partial() {
    let harness = Harness::start(|options| {
        options.append_toml(BOTH).set("timeouts.try", "3s").set("health.failures", "1000").allow(&ALL_OPERATIONS);
    })
    .await;
    let (east, west) = (harness.endpoint("east").server.faults(), harness.endpoint("west").server.faults());
    // One endpoint may have received it.
    east.set(Fault::times(1, FaultKind::Hang).on_path("/api/hubs"));
    west.set(Fault::times(1, FaultKind::status(500)).on_path("/api/hubs"));
    harness.broadcast().await.assert_gateway_error(504, "deadline");
    // One endpoint rejected it, the other did not receive it.
    east.refuse().await;
    west.set(Fault::times(1, FaultKind::status(500)).on_path("/api/hubs"));
    harness.broadcast().await.assert_status(500);
    west.set(Fault::times(1, FaultKind::status_after(429, Duration::ZERO)).on_path("/api/hubs"));
    harness.broadcast().await.assert_status(429);
    // One endpoint did not receive it, and the other may have.
    harness.call("HEAD", EXISTS).await.assert_gateway_error(502, "upstream_broken");
    // No endpoint received it.
    west.refuse().await;
    harness.broadcast().await.assert_gateway_error(503, "endpoint_unavailable");
}

#[tokio::test]
async fn retries_do_not_refill_the_retry_budget() {
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
    // The budget holds ten retries, and each call adds a fifth of one.
    let arrived = harness.arrivals("east").len();
    assert!((125..=131).contains(&arrived), "{arrived}");
}

#[tokio::test]
async fn waiting_for_the_listeners_concurrency_limit_is_not_gateway_time() {
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
        .set(Fault::times(1, FaultKind::Delay { delay_ms: 5000 }).on_path("/api/hubs"));
    let responses = join_all((0..2).map(|_| harness.broadcast())).await;
    for response in responses {
        response.assert_status(202);
    }
    let spent = overhead().await - before;
    // The second call waited for five seconds.
    assert!(spent < 4.0, "{spent} s of overhead");
}

/// Answers 202 to a message and keeps the connection open.
async fn accept(connection: &mut RawConnection) {
    connection.read_to(BROADCAST_BODY.as_bytes()).await.unwrap();
    connection.write("HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\n\r\n").await;
}

#[tokio::test]
async fn endpoints_408_on_an_idle_connection_is_not_used_for_a_request() {
    let endpoint = RawEndpoint::start().await;
    let harness = strict_harness(|options| {
        endpoint.replace_endpoint("east", options);
        options.append_toml(EAST).set("process.workers", "1");
    })
    .await;
    // The 408 arrives before the next message.
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
    // The 408 arrives while the next message is sent.
    let (third, ()) = tokio::join!(harness.broadcast(), async {
        kept.read_to(b"\r\n\r\n").await.unwrap();
        kept.write(IDLE_TIMEOUT).await;
        drop(kept);
        let (_head, mut connection) = endpoint.call().await;
        accept(&mut connection).await;
    });
    third.assert_status(202);
    assert!(is_closed(&harness, "east").await);
    // A 408 to the first message of a connection is its response.
    let endpoint = RawEndpoint::start().await;
    let harness = strict_harness(|options| {
        endpoint.replace_endpoint("east", options);
        options.append_toml(EAST);
    })
    .await;
    let (response, ()) = tokio::join!(harness.broadcast(), async {
        let (_head, mut connection) = endpoint.call().await;
        connection.write(IDLE_TIMEOUT).await;
    });
    response.assert_status(408);
}

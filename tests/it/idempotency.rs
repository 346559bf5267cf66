//! Calls with an `Idempotency-Key`: a repeat gets the outcome of the first and is not sent again.

use std::time::Duration;

use futures_util::future::join_all;
use http::header::CONTENT_TYPE;
use serde_json::json;
use signalr_gateway::sandbox::{Delivery, Fault, FaultKind};

use crate::support::{
    ALL_OPERATIONS, BROADCAST_BODY, BROADCAST_PATH, GatewayOptions, Harness, Response, broadcast_request, request,
};

const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";
const PATH: &str = "/api/hubs";

async fn start(pick: &str, change: impl FnOnce(&mut GatewayOptions)) -> Harness {
    let harness = Harness::start(|options| {
        options.allow(&ALL_OPERATIONS);
        options.append_toml(&format!(
            "[[routes]]\nname = \"both\"\npick = \"{pick}\"\nendpoints = [\"east\", \"west\"]\n"
        ));
        change(options);
    })
    .await;
    harness.wait_until_credentials_are("ready").await;
    harness
}

async fn keyed(harness: &Harness, key: &str, body: &'static str) -> Response {
    harness.caller().await.send(broadcast_request().header("idempotency-key", key), body).await
}

async fn keyed_call(harness: &Harness, method: &str, target: &str) -> Response {
    harness.caller().await.send(request(method, target).header("idempotency-key", KEY), "").await
}

fn is_replay(response: &Response) -> bool {
    response.header("signalr-gateway-replayed").is_some()
}

fn arrivals(harness: &Harness) -> usize {
    harness.arrivals("east").len() + harness.arrivals("west").len()
}

#[tokio::test]
async fn repeat_gets_the_earlier_response_whichever_way_the_route_picks() {
    for (pick, sent) in [("first", 1), ("weighted", 1), ("hash", 1), ("all", 2)] {
        let harness = start(pick, |_| {}).await;
        let first = keyed(&harness, KEY, BROADCAST_BODY).await;
        assert!(!is_replay(first.assert_status(202)), "{pick}");
        // With and without quotes it is the same key.
        for key in [KEY, &format!("\"{KEY}\"")] {
            let again = keyed(&harness, key, BROADCAST_BODY).await;
            assert_eq!(again.assert_status(202).header("signalr-gateway-replayed"), Some("true"), "{pick}");
        }
        assert_eq!(arrivals(&harness), sent, "{pick}");
        assert!(!is_replay(keyed(&harness, "another", BROADCAST_BODY).await.assert_status(202)));
        assert_eq!(arrivals(&harness), 2 * sent, "{pick}");
        let replays = harness.metrics().await.sum("idempotency_replays_total", &[]);
        assert!((replays - 2.0).abs() < f64::EPSILON, "{replays}");
    }
}

#[tokio::test]
async fn every_operation_with_an_effect_is_carried_out_once_and_checks_are_not_remembered() {
    let harness = start("first", |_| {}).await;
    let hubs = &harness.endpoint("east").hubs;
    let _ann = hubs.connect("chat", Some("ann"));
    for (method, target, status, has_effect) in [
        ("PUT", "/api/hubs/chat/users/ann/groups/g", 200, true),
        ("DELETE", "/api/hubs/chat/users/ann/groups", 204, true),
        ("POST", "/api/hubs/chat/users/ann/:closeConnections", 204, true),
        ("HEAD", "/api/hubs/chat/users/bob", 404, false),
        ("POST", "/api/hubs/chat/:generateToken", 200, false),
    ] {
        harness.clear_arrivals();
        let target = format!("{target}?api-version=2024-12-01");
        let harness = &harness;
        let call = async || {
            let key = target.as_str();
            let response =
                harness.caller().await.send(request(method, &target).header("idempotency-key", key), "").await;
            response.assert_status(status);
            response
        };
        assert!(!is_replay(&call().await), "{target}");
        assert_eq!(is_replay(&call().await), has_effect, "{target}");
        assert_eq!(arrivals(harness), if has_effect { 1 } else { 2 }, "{target}");
    }
}

#[tokio::test]
async fn repeat_of_an_invocation_gets_the_clients_result() {
    for (length, replayed) in [(10, "true"), (20_000, "without-body")] {
        let harness = start("first", |_| {}).await;
        let mut ann = harness.endpoint("east").hubs.connect("chat", Some("ann"));
        let target = format!("/api/hubs/chat/connections/{}/:invoke?api-version=2024-12-01", ann.id());
        let result = "x".repeat(length);
        let invoke = async || {
            let head = request("POST", &target).header("idempotency-key", KEY).header(CONTENT_TYPE, "application/json");
            harness.caller().await.send(head, BROADCAST_BODY).await
        };
        let (first, ()) = tokio::join!(invoke(), async {
            let Some(Delivery::Invoke { id, .. }) = ann.recv().await else { panic!("the client was not invoked") };
            assert!(ann.complete(&id, Ok(result.clone().into())));
        });
        assert_eq!(first.assert_status(200).json(), json!({ "result": result }));
        let again = invoke().await;
        assert_eq!(again.assert_status(200).header("signalr-gateway-replayed"), Some(replayed));
        assert_eq!(again.text(), if replayed == "true" { first.text() } else { String::new() });
        assert_eq!(arrivals(&harness), 1);
    }
}

#[tokio::test]
async fn repeat_of_a_refused_call_gets_the_refusal_with_its_code() {
    let harness = start("first", |_| {}).await;
    let answer = FaultKind::body(404, "application/json", "{\"code\":1}");
    let answer = answer.with_header("x-ms-error-code", "Error.Connection.NotExisted");
    harness.endpoint("east").server.faults().set(Fault::times(1, answer).on_path(PATH));
    for replayed in [false, true] {
        let response = keyed(&harness, KEY, BROADCAST_BODY).await;
        assert_eq!(response.assert_status(404).header("x-ms-error-code"), Some("Error.Connection.NotExisted"));
        assert_eq!(
            (response.header("content-type"), response.text()),
            (Some("application/json"), "{\"code\":1}".into())
        );
        assert_eq!(is_replay(&response), replayed);
    }
    assert_eq!(arrivals(&harness), 1);
}

#[tokio::test]
async fn repeat_is_sent_if_the_first_was_not_processed() {
    for status in [401, 403, 429] {
        let harness = start("first", |options| {
            options.set("health.failures", "100");
        })
        .await;
        harness.endpoint("east").server.faults().set(Fault::times(2, FaultKind::status(status)).on_path(PATH));
        keyed(&harness, KEY, BROADCAST_BODY).await.assert_status(status);
        let before = arrivals(&harness);
        let again = keyed(&harness, KEY, BROADCAST_BODY).await;
        assert!(!is_replay(&again), "{status}: {again:?}");
        assert_eq!(arrivals(&harness), before + 1, "{status}: {again:?}");
    }
}

#[tokio::test]
async fn call_that_may_have_been_received_is_answered_504_and_never_sent_again() {
    for (fault, status, kind) in [
        (FaultKind::LoseAnswer, 502, "upstream_broken"),
        (FaultKind::Reset, 502, "upstream_broken"),
        (FaultKind::Hang, 504, "deadline"),
    ] {
        let harness = start("first", |options| {
            // Long enough for a busy machine to send the call.
            options.set("timeouts.try", "3s").set("health.failures", "100");
        })
        .await;
        harness.endpoint("east").server.faults().set(Fault::times(1, fault).on_path(PATH));
        keyed(&harness, KEY, BROADCAST_BODY).await.assert_gateway_error(status, kind);
        for _ in 0..3 {
            keyed(&harness, KEY, BROADCAST_BODY).await.assert_gateway_error(504, "outcome_unknown");
        }
        assert_eq!(arrivals(&harness), 1, "{kind}");
    }
}

#[tokio::test]
async fn message_that_an_endpoint_answered_500_is_not_sent_again_by_a_repeat() {
    let harness = start("first", |_| {}).await;
    harness.endpoint("east").server.faults().set(Fault::times(1, FaultKind::status(500)).on_path(PATH));
    assert!(!is_replay(keyed(&harness, KEY, BROADCAST_BODY).await.assert_status(500)));
    assert!(is_replay(keyed(&harness, KEY, BROADCAST_BODY).await.assert_status(500)));
    assert_eq!(arrivals(&harness), 1);
}

#[tokio::test]
async fn rejects_invalid_keys_and_keys_of_another_call() {
    let harness = start("first", |_| {}).await;
    keyed(&harness, KEY, BROADCAST_BODY).await.assert_status(202);
    keyed(&harness, KEY, r#"{"target":"other","arguments":[]}"#).await.assert_gateway_error(422, "key_reused");
    keyed_call(&harness, "POST", "/api/hubs/chat/:send?api-version=2024-12-01")
        .await
        .assert_gateway_error(422, "key_reused");
    keyed_call(&harness, "PUT", "/api/hubs/chat/users/ann/groups/g?api-version=2024-12-01")
        .await
        .assert_gateway_error(422, "key_reused");
    let typed = request("POST", BROADCAST_PATH).header("idempotency-key", KEY).header(CONTENT_TYPE, "text/plain");
    harness.caller().await.send(typed, BROADCAST_BODY).await.assert_gateway_error(422, "key_reused");
    for key in ["", "\"", "\"a", "\"a\"; b", &"x".repeat(256)] {
        keyed(&harness, key, BROADCAST_BODY).await.assert_gateway_error(400, "malformed");
    }
    let two = broadcast_request().header("idempotency-key", "a").header("idempotency-key", "b");
    harness.caller().await.send(two, BROADCAST_BODY).await.assert_gateway_error(400, "malformed");
    assert_eq!(arrivals(&harness), 1);
}

#[tokio::test]
async fn same_key_for_another_tenant_is_refused_and_gets_no_answer_of_the_first() {
    let harness = Harness::start(|options| {
        options.append_toml("[[routes]]\nname = \"named\"\nendpoint_header = true\nendpoints = [\"east\", \"west\"]\n");
    })
    .await;
    harness.wait_until_credentials_are("ready").await;
    let call = async |endpoint: &str| {
        let head = broadcast_request().header("idempotency-key", KEY).header("signalr-gateway-endpoint", endpoint);
        harness.caller().await.send(head, BROADCAST_BODY).await
    };
    call("east").await.assert_status(202);
    call("west").await.assert_gateway_error(422, "key_reused");
    assert!(is_replay(call("east").await.assert_status(202)));
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (1, 0));
}

#[tokio::test]
async fn repeats_wait_for_the_first_call_in_flight() {
    let harness = start("first", |_| {}).await;
    let east = &harness.endpoint("east").server;
    east.faults().set(Fault::times(1, FaultKind::Delay { delay_ms: 300 }).on_path(PATH));
    // Separate connections, so that they are on different workers.
    let responses = join_all((0..6).map(|_| keyed(&harness, KEY, BROADCAST_BODY))).await;
    let replays = responses.iter().filter(|response| is_replay(response.assert_status(202))).count();
    assert_eq!((replays, arrivals(&harness)), (5, 1));
}

#[tokio::test]
async fn repeat_that_cannot_wait_longer_for_the_first_call_is_answered_409() {
    let harness = start("first", |options| {
        options.set("timeouts.request", "6s").set("timeouts.try", "6s");
    })
    .await;
    let east = &harness.endpoint("east").server;
    east.faults().set(Fault::always(FaultKind::Hang).on_path(PATH));
    // The repeats' heads arrive before the first call, so that their deadlines pass before it ends. What has not arrived
    // entirely claims no key.
    let head = format!(
        "POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         idempotency-key: {KEY}\r\nexpect: 100-continue\r\ncontent-length: {}\r\n\r\n",
        BROADCAST_BODY.len()
    );
    let (half, rest) = BROADCAST_BODY.split_at(BROADCAST_BODY.len() / 2);
    let mut repeats = Vec::new();
    for _ in 0..4 {
        let mut repeat = harness.raw_connection().await;
        repeat.write(&head).await;
        assert_eq!(repeat.response().await.unwrap().status, 100);
        repeat.write(half).await;
        repeats.push(repeat);
    }
    // The time between the deadlines.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (first, ()) = tokio::join!(keyed(&harness, KEY, BROADCAST_BODY), async {
        east.journal().wait_for(1, |entry| entry.target.contains(":send")).await;
        for repeat in &mut repeats {
            repeat.write(rest).await;
        }
        for repeat in &mut repeats {
            repeat.response().await.unwrap().assert_gateway_error(409, "key_in_use");
        }
    });
    first.assert_gateway_error(504, "deadline");
    assert_eq!(arrivals(&harness), 1);
}

#[tokio::test]
async fn call_goes_on_when_its_caller_disconnects_and_a_repeat_gets_its_outcome() {
    for (pick, sent) in [("first", 1), ("all", 2)] {
        let harness = start(pick, |_| {}).await;
        let east = &harness.endpoint("east").server;
        east.faults().set(Fault::times(1, FaultKind::Delay { delay_ms: 600 }).on_path(PATH));
        let mut raw = harness.raw_connection().await;
        raw.write(format!(
            "POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\nidempotency-key: {KEY}\r\n\
             content-length: {}\r\n\r\n{BROADCAST_BODY}",
            BROADCAST_BODY.len()
        ))
        .await;
        east.journal().wait_for(1, |entry| entry.target.contains(":send")).await;
        // Its caller disconnects.
        drop(raw);
        let again = keyed(&harness, KEY, BROADCAST_BODY).await;
        assert!(is_replay(again.assert_status(202)), "{pick}");
        assert_eq!(arrivals(&harness), sent, "{pick}");
    }
}

#[tokio::test]
async fn repeat_is_a_new_call_once_its_key_has_expired() {
    let harness = start("first", |options| {
        options.set("idempotency.expires_after", "100ms");
    })
    .await;
    keyed(&harness, KEY, BROADCAST_BODY).await.assert_status(202);
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert!(!is_replay(keyed(&harness, KEY, BROADCAST_BODY).await.assert_status(202)));
    assert_eq!(arrivals(&harness), 2);
}

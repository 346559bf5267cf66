//! Calls to several endpoints, merged into one response.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use signalr_gateway::sandbox::{Fault, FaultKind};

use crate::support::{ALL_OPERATIONS, BROADCAST_BODY, Harness, HarnessBuilder, Response, broadcast_request, request};

/// Starts a gateway that sends every call to both endpoints.
async fn harness(policy: &str) -> Harness {
    let harness = Harness::start(|options| {
        options.allow(&ALL_OPERATIONS);
        options.append_toml(&format!(
            "[[routes]]\nname = \"both\"\npick = \"all\"\npolicy = \"{policy}\"\nendpoints = [\"east\", \"west\"]\n"
        ));
    })
    .await;
    harness.wait_until_credentials_are("ready").await;
    harness
}

#[tokio::test]
async fn fan_out_delivers_a_message_once_to_clients_of_every_endpoint() {
    let harness = harness("all").await;
    let mut clients: Vec<_> =
        ["east", "west"].map(|name| harness.endpoint(name).hubs.connect("chat", Some("ann"))).into_iter().collect();
    harness.broadcast().await.assert_status(202);
    for client in &mut clients {
        assert!(client.try_recv().is_some(), "a client received nothing");
        assert!(client.try_recv().is_none(), "a client received the message twice");
    }
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (1, 1));
}

#[tokio::test]
async fn partial_delivery_lists_the_outcome_of_each_endpoint() {
    let harness = harness("all").await;
    harness.endpoint("west").server.faults().set(Fault::always(FaultKind::status(500)).on_path("/api/hubs"));
    let response = harness.broadcast().await;
    response.assert_gateway_error(502, "partial_delivery");
    assert_eq!(
        response.json()["endpoints"],
        json!([
            { "endpoint": "east", "outcome": "accepted", "status": 202 },
            { "endpoint": "west", "outcome": "refused", "status": 500 },
        ])
    );
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (1, 1), "a message was sent twice");
    let partial = harness.metrics().await.sum("fanout_partial_total", &[("route", "both")]);
    assert!((partial - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn one_accepting_endpoint_is_enough_for_policy_any() {
    let harness = harness("any").await;
    harness.endpoint("west").server.faults().set(Fault::always(FaultKind::status(500)).on_path("/api/hubs"));
    harness.broadcast().await.assert_status(202);
}

#[tokio::test]
async fn existence_check_succeeds_if_any_endpoint_has_the_user_and_is_404_otherwise() {
    let harness = harness("all").await;
    let _client = harness.endpoint("west").hubs.connect("chat", Some("ann"));
    harness.call("HEAD", "/api/hubs/chat/users/ann?api-version=2024-12-01").await.assert_status(200);
    let not_found = harness.call("HEAD", "/api/hubs/chat/users/bob?api-version=2024-12-01").await;
    not_found.assert_status(404);
    assert_eq!(not_found.header("x-ms-error-code"), Some("Warning.User.NotExisted"));
    harness.endpoint("east").server.faults().set(Fault::always(FaultKind::status(403)).on_path("/api/hubs"));
    harness.call("HEAD", "/api/hubs/chat/users/ann?api-version=2024-12-01").await.assert_status(200);
    harness.call("HEAD", "/api/hubs/chat/users/bob?api-version=2024-12-01").await.assert_status(403);
}

#[tokio::test]
async fn lists_continue_from_endpoint_to_endpoint() {
    let harness = harness("all").await;
    let mut clients = Vec::new();
    for (endpoint, count) in [("east", 3), ("west", 2)] {
        for _ in 0..count {
            let client = harness.endpoint(endpoint).hubs.connect("chat", None);
            let target = format!("/api/hubs/chat/groups/g/connections/{}?api-version=2024-12-01", client.id());
            harness.call("PUT", &target).await.assert_status(200);
            clients.push(client);
        }
    }
    let origin = format!("http://{}", harness.listener("default"));
    let mut listed = Vec::new();
    let mut target = "/api/hubs/chat/groups/g/connections?maxpagesize=2&api-version=2024-12-01".to_owned();
    for _ in 0..6 {
        let mut caller = harness.caller().await;
        let page = caller.send(request("GET", &target), "").await;
        page.assert_status(200);
        let page = page.json();
        let ids =
            page["value"].as_array().unwrap().iter().map(|entry| entry["connectionId"].as_str().unwrap().to_owned());
        listed.extend(ids);
        let Some(next) = page.get("nextLink").and_then(Value::as_str) else { break };
        target = next.strip_prefix(&origin).expect("a link that bypasses the gateway").to_owned();
    }
    let mut expected: Vec<String> = clients.iter().map(|client| client.id().to_owned()).collect();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn requests_client_tokens_from_one_endpoint() {
    let harness = harness("all").await;
    harness.call("POST", "/api/hubs/chat/:generateToken?userId=ann&api-version=2024-12-01").await.assert_status(200);
    assert_eq!(harness.arrivals("east").len() + harness.arrivals("west").len(), 1);
}

#[tokio::test]
async fn fan_out_sends_the_unchanged_body_to_every_endpoint() {
    let harness = harness("all").await;
    let pieces = (0..10).map(|_| bytes::Bytes::from(vec![b' '; 4096])).chain([BROADCAST_BODY.into()]).collect();
    harness
        .caller()
        .await
        .send_chunked(broadcast_request().header(CONTENT_TYPE, "application/json"), pieces)
        .await
        .assert_status(202);
    let (east, west) = (harness.arrival("east"), harness.arrival("west"));
    assert_eq!(east.body_length, 10 * 4096 + BROADCAST_BODY.len());
    assert_eq!(east.body, west.body);
}

const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";

/// Sends a broadcast with an idempotency key.
async fn keyed(harness: &Harness, key: &str, body: &'static str) -> Response {
    let head = broadcast_request().header("idempotency-key", key);
    harness.caller().await.send(head, body).await
}

#[tokio::test]
async fn repeat_with_the_same_key_goes_only_to_endpoints_that_did_not_accept() {
    let harness = harness("all").await;
    let west = &harness.endpoint("west").server;
    west.faults().set(Fault::times(2, FaultKind::status(403)).on_path("/api/hubs"));
    keyed(&harness, KEY, BROADCAST_BODY).await.assert_gateway_error(502, "partial_delivery");
    let partial = keyed(&harness, KEY, BROADCAST_BODY).await;
    assert_eq!(partial.assert_gateway_error(502, "partial_delivery").json()["endpoints"][0]["outcome"], "accepted");
    keyed(&harness, KEY, BROADCAST_BODY).await.assert_status(202);
    keyed(&harness, KEY, BROADCAST_BODY).await.assert_status(202);
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (1, 3));
    assert!(
        harness.arrivals("west").iter().all(|entry| entry.header("idempotency-key").is_none()),
        "the key was forwarded"
    );
    let repeats = harness.metrics().await.sum("fanout_repeats_total", &[("route", "both")]);
    assert!((repeats - 3.0).abs() < f64::EPSILON, "{repeats}");
    // Another key means another call.
    keyed(&harness, "another", BROADCAST_BODY).await.assert_status(202);
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (2, 4));
}

#[tokio::test]
async fn repeat_waits_for_the_first_call_in_flight() {
    let harness = harness("all").await;
    let west = &harness.endpoint("west").server;
    west.faults().set(Fault::times(1, FaultKind::Delay { delay_ms: 300 }).on_path("/api/hubs"));
    // Separate connections, so that they are on different workers.
    let responses = futures_util::future::join_all((0..6).map(|_| keyed(&harness, KEY, BROADCAST_BODY))).await;
    for response in responses {
        response.assert_status(202);
    }
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (1, 1));
}

#[tokio::test]
async fn repeat_of_a_partial_delivery_is_not_sent_to_an_endpoint_that_may_have_received_it() {
    for (fault, outcome, status) in [
        (FaultKind::status(500), "refused", json!(500)),
        (FaultKind::LoseAnswer, "no_answer", Value::Null),
        (FaultKind::Reset, "no_answer", Value::Null),
    ] {
        let harness = harness("all").await;
        harness.endpoint("west").server.faults().set(Fault::times(1, fault).on_path("/api/hubs"));
        let first = keyed(&harness, KEY, BROADCAST_BODY).await;
        first.assert_gateway_error(502, "partial_delivery");
        assert_eq!(first.header("signalr-gateway-replayed"), None);
        for _ in 0..2 {
            let again = keyed(&harness, KEY, BROADCAST_BODY).await;
            again.assert_gateway_error(502, "partial_delivery");
            assert_eq!(again.header("signalr-gateway-replayed"), Some("true"));
            let expected = json!({ "endpoint": "west", "outcome": outcome, "status": status });
            assert_eq!(
                (&again.json()["endpoints"], &first.json()["endpoints"][1]),
                (&first.json()["endpoints"], &expected)
            );
        }
        assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (1, 1), "{outcome}");
    }
}

#[tokio::test]
async fn delivery_that_no_endpoint_accepted_is_never_partial_not_even_when_it_is_repeated() {
    let refusal = |status| Some(FaultKind::status(status));
    let kinds = [
        refusal(403),
        refusal(404),
        refusal(429),
        refusal(500),
        Some(FaultKind::Reset),
        Some(FaultKind::LoseAnswer),
        None,
    ];
    for policy in ["all", "any", "quorum"] {
        let harness = Harness::start(|options| {
            options.append_toml(&format!(
                "[[routes]]\nname = \"both\"\npick = \"all\"\npolicy = \"{policy}\"\nendpoints = [\"east\", \"west\"]\n"
            ));
            options.set("health.failures", "100000");
        })
        .await;
        let set = async |name: &str, kind: &Option<FaultKind>| {
            let faults = harness.endpoint(name).server.faults();
            faults.clear().await;
            match kind {
                Some(kind) => {
                    faults.set(Fault::always(kind.clone()).on_path("/api/hubs"));
                }
                None => faults.refuse().await,
            }
        };
        for (number, (east, west)) in
            kinds.iter().flat_map(|east| kinds.iter().map(move |west| (east, west))).enumerate()
        {
            set("east", east).await;
            set("west", west).await;
            let key = format!("{policy}-{number}");
            let responses = [
                harness.broadcast().await,
                keyed(&harness, &key, BROADCAST_BODY).await,
                keyed(&harness, &key, BROADCAST_BODY).await,
            ];
            for response in responses {
                let kind = response.header("signalr-gateway-error");
                assert_ne!(kind, Some("partial_delivery"), "{policy}: {east:?} and {west:?}: {}", response.text());
            }
        }
    }
}

#[tokio::test]
async fn existence_check_does_not_wait_for_an_endpoint_that_hangs() {
    let harness = harness("all").await;
    let _client = harness.endpoint("east").hubs.connect("chat", Some("ann"));
    harness.endpoint("west").server.faults().set(Fault::always(FaultKind::Hang).on_path("/api/hubs"));
    // An attempt times out after ten seconds.
    let call = harness.call("HEAD", "/api/hubs/chat/users/ann?api-version=2024-12-01");
    tokio::time::timeout(Duration::from_secs(5), call).await.unwrap().assert_status(200);
}

#[tokio::test]
async fn route_decides_whether_to_try_endpoints_when_every_circuit_is_open() {
    for (choice, is_tried) in [("send", true), ("fail", false)] {
        let harness = Harness::start(|options| {
            options.append_toml(&format!(
                "[[routes]]\nname = \"both\"\npick = \"all\"\nwhen_unavailable = \"{choice}\"\nendpoints = [\"east\", \"west\"]\n"
            ));
            options.set("health.failures", "2").set("health.pause", "1h");
        })
        .await;
        for endpoint in ["east", "west"] {
            harness
                .endpoint(endpoint)
                .server
                .faults()
                .set(Fault::times(2, FaultKind::status(500)).on_path("/api/hubs"));
        }
        for _ in 0..2 {
            harness.broadcast().await.assert_status(500);
        }
        let response = harness.broadcast().await;
        if is_tried {
            response.assert_status(202)
        } else {
            response.assert_gateway_error(503, "endpoint_unavailable")
        };
        assert_eq!(harness.arrivals("west").len(), if is_tried { 3 } else { 2 });
    }
}

#[tokio::test]
async fn lists_end_at_the_callers_maximum() {
    let harness = harness("all").await;
    let mut clients = Vec::new();
    for endpoint in ["east", "west"] {
        for _ in 0..3 {
            let client = harness.endpoint(endpoint).hubs.connect("chat", None);
            let target = format!("/api/hubs/chat/groups/g/connections/{}?api-version=2024-12-01", client.id());
            harness.call("PUT", &target).await.assert_status(200);
            clients.push(client);
        }
    }
    let origin = format!("http://{}", harness.listener("default"));
    for (query, expected) in
        [("TOP=5&MaxPageSize=2", 5), ("top=3", 3), ("maxPageSize=1", 6), ("Top=4&maxpagesize=200", 4)]
    {
        let mut target = format!("/api/hubs/chat/groups/g/connections?{query}&api-version=2024-12-01");
        let mut listed = std::collections::BTreeSet::new();
        loop {
            let page = harness.call("GET", &target).await;
            let page = page.assert_status(200).json();
            for entry in page["value"].as_array().unwrap() {
                assert!(listed.insert(entry["connectionId"].as_str().unwrap().to_owned()), "{query}: listed twice");
            }
            let Some(next) = page.get("nextLink").and_then(Value::as_str) else { break };
            target = next.strip_prefix(&origin).unwrap().to_owned();
        }
        assert_eq!(listed.len(), expected, "{query}");
    }
}

const CLAIMS: &str = "/api/hubs/chat/connections/claims?api-version=2026-07-01";
const REFRESH_AUTH: &str = "/api/hubs/chat/connections/:refreshAuth?api-version=2026-07-01";

async fn call_by_token(harness: &Harness, method: &str, target: &str, body: &Value) -> Response {
    let call = request(method, target).header(CONTENT_TYPE, "application/json");
    harness.caller().await.send(call, body.to_string()).await
}

#[tokio::test]
async fn claims_are_those_of_the_endpoint_that_has_the_connection() {
    let harness = harness("all").await;
    let ann = harness.endpoint("west").hubs.connect("chat", Some("ann"));
    let own = json!({ "connectionToken": ann.token() });
    for method in ["POST", "QUERY"] {
        let claims = call_by_token(&harness, method, CLAIMS, &own).await;
        assert_eq!(claims.assert_status(200).json()["claims"][0]["value"], "ann", "{method}");
        assert_eq!(harness.arrivals("west").last().unwrap().method, method);
    }
    call_by_token(&harness, "POST", REFRESH_AUTH, &own).await.assert_status(200);
    let unknown = call_by_token(&harness, "POST", REFRESH_AUTH, &json!({ "connectionToken": "none" })).await;
    unknown.assert_status(404);
    assert_eq!(unknown.header("x-ms-error-code"), Some("ConnectionNotFound"));

    // The owner's refusal is the response. It says nothing about the roles of the gateway.
    let others = json!({ "connectionToken": ann.token(), "claims": [{ "type": "nameid", "value": "ben" }] });
    let refused = call_by_token(&harness, "POST", REFRESH_AUTH, &others).await;
    assert_eq!(refused.assert_status(403).json()["code"], "ConnectionUserMismatch");
    assert!(harness.metrics().await.sum("unauthorized_total", &[]) < 0.5);

    // Without the owner, nobody knows whether the connection exists.
    harness.endpoint("west").server.faults().refuse().await;
    call_by_token(&harness, "POST", CLAIMS, &own).await.assert_gateway_error(502, "upstream_broken");
}

#[tokio::test]
async fn connection_that_two_endpoints_have_is_an_error() {
    let builder = HarnessBuilder::start().await;
    let url = builder.sandbox.endpoint("east").unwrap().url();
    let harness = builder
        .start_gateway(|options| {
            options.allow(&["claims"]);
            // Two names of one resource.
            options.append_toml(&format!(
                "[endpoints.twin]\nurl = \"{url}\"\ncredential = \"east\"\nca_file = \"ca.pem\"\n\
                 [[routes]]\nname = \"both\"\npick = \"all\"\nendpoints = [\"east\", \"twin\"]\n",
            ));
        })
        .await;
    let ann = harness.endpoint("east").hubs.connect("chat", Some("ann"));
    let answer = call_by_token(&harness, "POST", CLAIMS, &json!({ "connectionToken": ann.token() })).await;
    answer.assert_gateway_error(502, "several_owners");
    assert_eq!(answer.json()["endpoints"][1], json!({ "endpoint": "twin", "outcome": "accepted", "status": 200 }));
}

#[tokio::test]
async fn claims_of_clients_are_opted_into() {
    let harness = Harness::start(|options| {
        options.allow(&["messages", "groups", "queries"]);
    })
    .await;
    for (method, path) in
        [("POST", ":refreshAuth"), ("POST", "%3Arefreshauth/"), ("QUERY", "claims"), ("POST", "Claims")]
    {
        let target = format!("/api/hubs/chat/connections/{path}?api-version=2026-07-01");
        call_by_token(&harness, method, &target, &json!({})).await.assert_gateway_error(403, "operation_not_allowed");
    }
    let revoke = "/api/hubs/chat/connections/:revoke?api-version=2027-01-01";
    let unknown = call_by_token(&harness, "POST", revoke, &json!({})).await;
    unknown.assert_gateway_error(404, "unknown_path");
    assert!(unknown.json()["detail"].as_str().unwrap().contains("`:revoke`"), "{}", unknown.text());
    assert_eq!(harness.arrivals("east").len(), 0);
}

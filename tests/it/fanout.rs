//! One call to several endpoints, and one answer from them.

use std::time::Duration;

use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use signalr_gateway::sandbox::{Fault, FaultKind};

use crate::support::{ALL_OPERATIONS, Answer, HELLO, Lab, hello, request};

/// Sends every call to both endpoints.
async fn lab(policy: &str) -> Lab {
    let lab = Lab::start(|plan| {
        plan.allow(&ALL_OPERATIONS);
        plan.more(&format!(
            "[[routes]]\nname = \"both\"\npick = \"all\"\npolicy = \"{policy}\"\nendpoints = [\"east\", \"west\"]\n"
        ));
    })
    .await;
    lab.wait_until_credentials_are("ready").await;
    lab
}

#[tokio::test]
async fn message_reaches_the_clients_of_every_endpoint_once() {
    let lab = lab("all").await;
    let mut clients: Vec<_> =
        ["east", "west"].map(|name| lab.endpoint(name).hubs.connect("chat", Some("ann"))).into_iter().collect();
    lab.hello().await.is(202);
    for client in &mut clients {
        assert!(client.try_recv().is_some(), "a client got nothing");
        assert!(client.try_recv().is_none(), "a client got it twice");
    }
    assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (1, 1));
}

#[tokio::test]
async fn partial_delivery_names_each_endpoints_outcome() {
    let lab = lab("all").await;
    lab.endpoint("west").server.faults().set(Fault::always(FaultKind::status(500)).on_path("/api/hubs"));
    let answer = lab.hello().await;
    answer.is_refused(502, "partial_delivery");
    assert_eq!(
        answer.json()["endpoints"],
        json!([
            { "endpoint": "east", "outcome": "accepted", "status": 202 },
            { "endpoint": "west", "outcome": "refused", "status": 500 },
        ])
    );
    assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (1, 1), "a message was repeated");
    let partial = lab.metrics().await.sum("fanout_partial_total", &[("route", "both")]);
    assert!((partial - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn one_endpoint_is_enough_under_any() {
    let lab = lab("any").await;
    lab.endpoint("west").server.faults().set(Fault::always(FaultKind::status(500)).on_path("/api/hubs"));
    lab.hello().await.is(202);
}

#[tokio::test]
async fn any_yes_is_yes_and_nowhere_is_a_404_with_the_services_code() {
    let lab = lab("all").await;
    let _client = lab.endpoint("west").hubs.connect("chat", Some("ann"));
    lab.call("HEAD", "/api/hubs/chat/users/ann?api-version=2024-12-01").await.is(200);
    let nobody = lab.call("HEAD", "/api/hubs/chat/users/bob?api-version=2024-12-01").await;
    nobody.is(404);
    assert_eq!(nobody.header("x-ms-error-code"), Some("Warning.User.NotExisted"));
    lab.endpoint("east").server.faults().set(Fault::always(FaultKind::status(403)).on_path("/api/hubs"));
    lab.call("HEAD", "/api/hubs/chat/users/ann?api-version=2024-12-01").await.is(200);
    lab.call("HEAD", "/api/hubs/chat/users/bob?api-version=2024-12-01").await.is(403);
}

#[tokio::test]
async fn lists_go_on_from_endpoint_to_endpoint_through_the_gateway() {
    let lab = lab("all").await;
    let mut clients = Vec::new();
    for (endpoint, count) in [("east", 3), ("west", 2)] {
        for _ in 0..count {
            let client = lab.endpoint(endpoint).hubs.connect("chat", None);
            let target = format!("/api/hubs/chat/groups/g/connections/{}?api-version=2024-12-01", client.id());
            lab.call("PUT", &target).await.is(200);
            clients.push(client);
        }
    }
    let origin = format!("http://{}", lab.listener("default"));
    let mut listed = Vec::new();
    let mut target = "/api/hubs/chat/groups/g/connections?maxpagesize=2&api-version=2024-12-01".to_owned();
    for _ in 0..6 {
        let mut caller = lab.caller().await;
        let page = caller.send(request("GET", &target), "").await;
        page.is(200);
        let page = page.json();
        let ids =
            page["value"].as_array().unwrap().iter().map(|entry| entry["connectionId"].as_str().unwrap().to_owned());
        listed.extend(ids);
        let Some(next) = page.get("nextLink").and_then(Value::as_str) else { break };
        target = next.strip_prefix(&origin).expect("a link that leads around the gateway").to_owned();
    }
    let mut expected: Vec<String> = clients.iter().map(|client| client.id().to_owned()).collect();
    listed.sort();
    expected.sort();
    assert_eq!(listed, expected);
}

#[tokio::test]
async fn client_tokens_come_from_one_endpoint() {
    let lab = lab("all").await;
    lab.call("POST", "/api/hubs/chat/:generateToken?userId=ann&api-version=2024-12-01").await.is(200);
    assert_eq!(lab.arrivals("east").len() + lab.arrivals("west").len(), 1);
}

#[tokio::test]
async fn body_reaches_every_endpoint_as_it_came() {
    let lab = lab("all").await;
    let pieces = (0..10).map(|_| bytes::Bytes::from(vec![b' '; 4096])).chain([HELLO.into()]).collect();
    lab.caller().await.send_chunked(hello().header(CONTENT_TYPE, "application/json"), pieces).await.is(202);
    let (east, west) = (lab.arrival("east"), lab.arrival("west"));
    assert_eq!(east.body_length, 10 * 4096 + HELLO.len());
    assert_eq!(east.body, west.body);
}

const KEY: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";

/// A broadcast that may be repeated.
async fn keyed(lab: &Lab, key: &str, body: &'static str) -> Answer {
    let head = hello().header("idempotency-key", key);
    lab.caller().await.send(head, body).await
}

#[tokio::test]
async fn repeat_under_one_key_goes_only_to_those_that_did_not_accept() {
    let lab = lab("all").await;
    let west = &lab.endpoint("west").server;
    west.faults().set(Fault::times(2, FaultKind::status(500)).on_path("/api/hubs"));
    keyed(&lab, KEY, HELLO).await.is_refused(502, "partial_delivery");
    let partial = keyed(&lab, KEY, HELLO).await;
    assert_eq!(partial.is_refused(502, "partial_delivery").json()["endpoints"][0]["outcome"], "accepted");
    keyed(&lab, KEY, HELLO).await.is(202);
    keyed(&lab, KEY, HELLO).await.is(202);
    assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (1, 3));
    assert!(lab.arrivals("west").iter().all(|entry| entry.header("idempotency-key").is_none()), "the key leaves");
    let repeats = lab.metrics().await.sum("fanout_repeats_total", &[("route", "both")]);
    assert!((repeats - 3.0).abs() < f64::EPSILON, "{repeats}");
    // Another key is another call.
    keyed(&lab, "another", HELLO).await.is(202);
    assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (2, 4));
}

#[tokio::test]
async fn key_of_another_call_and_what_is_no_key_are_refused() {
    let lab = lab("all").await;
    keyed(&lab, KEY, HELLO).await.is(202);
    keyed(&lab, KEY, r#"{"target":"other","arguments":[]}"#).await.is_refused(400, "malformed");
    for key in ["", &"x".repeat(256)] {
        keyed(&lab, key, HELLO).await.is_refused(400, "malformed");
    }
    let two = hello().header("idempotency-key", "a").header("idempotency-key", "b");
    lab.caller().await.send(two, HELLO).await.is_refused(400, "malformed");
    assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (1, 1));
}

#[tokio::test]
async fn repeat_that_comes_while_the_first_is_under_way_waits_for_it() {
    let lab = lab("all").await;
    let west = &lab.endpoint("west").server;
    west.faults().set(Fault::times(1, FaultKind::Delay { delay_ms: 300 }).on_path("/api/hubs"));
    // On connections of their own, so on workers of their own.
    let answers = futures_util::future::join_all((0..6).map(|_| keyed(&lab, KEY, HELLO))).await;
    for answer in answers {
        answer.is(202);
    }
    assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (1, 1));
}

#[tokio::test]
async fn repeat_of_a_caller_that_gave_up_goes_on_where_it_was() {
    let lab = lab("all").await;
    let west = &lab.endpoint("west").server;
    west.faults().set(Fault::times(1, FaultKind::Hang).on_path("/api/hubs"));
    let gave_up = tokio::time::timeout(Duration::from_millis(300), keyed(&lab, KEY, HELLO)).await;
    assert!(gave_up.is_err());
    lab.endpoint("east").server.journal().wait_for(1, |entry| entry.status == Some(202)).await;
    keyed(&lab, KEY, HELLO).await.is(202);
    assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (1, 2));
}

#[tokio::test]
async fn keys_are_forgotten_in_time() {
    let lab = Lab::start(|plan| {
        plan.more("[[routes]]\nname = \"both\"\npick = \"all\"\nendpoints = [\"east\", \"west\"]\n");
        plan.set("idempotency.keep", "100ms");
    })
    .await;
    keyed(&lab, KEY, HELLO).await.is(202);
    tokio::time::sleep(Duration::from_millis(150)).await;
    keyed(&lab, KEY, HELLO).await.is(202);
    assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (2, 2));
}

#[tokio::test]
async fn first_yes_is_not_held_up_by_an_endpoint_that_hangs() {
    let lab = lab("all").await;
    let _client = lab.endpoint("east").hubs.connect("chat", Some("ann"));
    lab.endpoint("west").server.faults().set(Fault::always(FaultKind::Hang).on_path("/api/hubs"));
    // An attempt may take ten seconds.
    let asked = lab.call("HEAD", "/api/hubs/chat/users/ann?api-version=2024-12-01");
    tokio::time::timeout(Duration::from_secs(5), asked).await.unwrap().is(200);
}

#[tokio::test]
async fn while_every_endpoint_is_out_it_is_the_routes_choice_whether_they_are_tried() {
    for (choice, is_tried) in [("send", true), ("fail", false)] {
        let lab = Lab::start(|plan| {
            plan.more(&format!(
                "[[routes]]\nname = \"both\"\npick = \"all\"\nwhen_unavailable = \"{choice}\"\nendpoints = [\"east\", \"west\"]\n"
            ));
            plan.set("health.failures", "2").set("health.pause", "1h");
        })
        .await;
        for endpoint in ["east", "west"] {
            lab.endpoint(endpoint).server.faults().set(Fault::times(2, FaultKind::status(500)).on_path("/api/hubs"));
        }
        for _ in 0..2 {
            lab.hello().await.is(500);
        }
        let answer = lab.hello().await;
        if is_tried {
            answer.is(202)
        } else {
            answer.is_refused(503, "endpoint_unavailable")
        };
        assert_eq!(lab.arrivals("west").len(), if is_tried { 3 } else { 2 });
    }
}

#[tokio::test]
async fn lists_of_one_endpoint_and_of_several_end_where_the_caller_said() {
    let lab = lab("all").await;
    let mut clients = Vec::new();
    for endpoint in ["east", "west"] {
        for _ in 0..3 {
            let client = lab.endpoint(endpoint).hubs.connect("chat", None);
            let target = format!("/api/hubs/chat/groups/g/connections/{}?api-version=2024-12-01", client.id());
            lab.call("PUT", &target).await.is(200);
            clients.push(client);
        }
    }
    let origin = format!("http://{}", lab.listener("default"));
    for (query, expected) in
        [("TOP=5&MaxPageSize=2", 5), ("top=3", 3), ("maxPageSize=1", 6), ("Top=4&maxpagesize=200", 4)]
    {
        let mut target = format!("/api/hubs/chat/groups/g/connections?{query}&api-version=2024-12-01");
        let mut listed = std::collections::BTreeSet::new();
        loop {
            let page = lab.call("GET", &target).await;
            let page = page.is(200).json();
            for entry in page["value"].as_array().unwrap() {
                assert!(listed.insert(entry["connectionId"].as_str().unwrap().to_owned()), "{query}: listed twice");
            }
            let Some(next) = page.get("nextLink").and_then(Value::as_str) else { break };
            target = next.strip_prefix(&origin).unwrap().to_owned();
        }
        assert_eq!(listed.len(), expected, "{query}");
    }
}

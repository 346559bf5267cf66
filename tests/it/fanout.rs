//! One call to several endpoints, and one answer from them.

use http::header::CONTENT_TYPE;
use serde_json::{Value, json};
use signalr_gateway::sandbox::{Fault, FaultKind};

use crate::support::{HELLO, Lab, hello, request};

/// Sends every call to both endpoints.
async fn lab(policy: &str) -> Lab {
    let lab = Lab::start(|plan| {
        plan.allow(&["messages", "groups", "queries", "close", "credentials"]);
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

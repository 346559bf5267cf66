//! Routing: the conditions of routes, and what happens when an endpoint fails.

use std::collections::BTreeSet;

use http::header::CONTENT_TYPE;
use signalr_gateway::sandbox::{Fault, FaultKind};

use crate::support::{BROADCAST_BODY, Caller, Harness, broadcast_request, request};

/// Starts a gateway that sends matching calls to `west` and all others to `east`.
async fn harness_with_conditions_of_west(conditions: &str) -> Harness {
    Harness::start(|options| {
        options.append_toml(&format!(
            "[[routes]]\nname = \"special\"\nmatch = {{ {conditions} }}\nendpoints = [\"west\"]\n\
             [[routes]]\nname = \"rest\"\nendpoints = [\"east\"]\n\
             [listeners.second]\nbind = \"127.0.0.1:0\"\n"
        ));
    })
    .await
}

#[tokio::test]
async fn conditions_choose_the_route() {
    let yes = "west";
    let no = "east";
    for (conditions, calls) in [
        (
            "hub = [\"chat\", \"news_*\"]",
            vec![
                ("POST", "/api/hubs/chat/:send", yes),
                ("POST", "/api/hubs/CHAT/:send", yes),
                ("POST", "/api/v1/hubs/Chat", yes),
                ("POST", "/api/hubs/chats/:send", no),
            ],
        ),
        (
            "operation = [\"queries\", \"user_send\"]",
            vec![
                ("HEAD", "/api/hubs/chat/groups/g", yes),
                ("POST", "/api/hubs/chat/users/u/:send", yes),
                ("POST", "/api/hubs/chat/:send", no),
                ("PUT", "/api/hubs/chat/users/u/groups/g", no),
            ],
        ),
        (
            "group = \"room/*\", hub = \"chat\"",
            vec![
                ("POST", "/api/hubs/chat/groups/room%2F1/:send", yes),
                ("PUT", "/api/hubs/chat/groups/room%2f2/connections/c", yes),
                ("POST", "/api/hubs/chat/groups/Room%2F1/:send", no),
                ("POST", "/api/hubs/other/groups/room%2F1/:send", no),
                ("POST", "/api/hubs/chat/:send", no),
            ],
        ),
        (
            "user = \"ann\"",
            vec![
                ("POST", "/api/hubs/chat/users/ann/:send", yes),
                ("POST", "/api/hubs/chat/users/%61nn/:send", yes),
                ("POST", "/api/hubs/chat/users/Ann/:send", no),
            ],
        ),
        (
            "application = \"shop\"",
            vec![
                ("POST", "/api/hubs/chat/:send?application=Shop", yes),
                ("POST", "/api/hubs/chat/:send?Application=shop", yes),
                ("POST", "/api/hubs/chat/:send?application=shopping", no),
                ("POST", "/api/hubs/chat/:send", no),
            ],
        ),
        ("client = \"127.0.0.0/8\"", vec![("POST", "/api/hubs/chat/:send", yes)]),
        ("client = \"10.0.0.0/8\"", vec![("POST", "/api/hubs/chat/:send", no)]),
        ("listener = \"second\"", vec![("POST", "/api/hubs/chat/:send", no)]),
    ] {
        let harness = harness_with_conditions_of_west(conditions).await;
        let mut caller = harness.caller().await;
        for (method, target, endpoint) in calls {
            harness.clear_arrivals();
            caller.send(request(method, target).header(CONTENT_TYPE, "application/json"), BROADCAST_BODY).await;
            assert_eq!(harness.arrivals(endpoint).len(), 1, "{conditions}: {method} {target} did not go to {endpoint}");
        }
    }
}

#[tokio::test]
async fn headers_and_listeners_choose_the_route() {
    let harness = harness_with_conditions_of_west("header = { name = \"x-region\", value = \"west\" }").await;
    harness
        .caller()
        .await
        .send(broadcast_request().header("x-region", "west"), BROADCAST_BODY)
        .await
        .assert_status(202);
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (0, 1));
    harness
        .caller()
        .await
        .send(broadcast_request().header("x-region", "elsewhere"), BROADCAST_BODY)
        .await
        .assert_status(202);
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (1, 1));

    let harness = harness_with_conditions_of_west("listener = \"second\"").await;
    Caller::connect(harness.listener("second"))
        .await
        .send(broadcast_request(), BROADCAST_BODY)
        .await
        .assert_status(202);
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (0, 1));
}

#[tokio::test]
async fn answers_404_when_no_route_matches() {
    let harness = Harness::start(|options| {
        options.append_toml("[[routes]]\nname = \"chat\"\nmatch = { hub = \"chat\" }\nendpoints = [\"east\"]\n");
    })
    .await;
    harness.call("HEAD", "/api/hubs/other/groups/g").await.assert_gateway_error(404, "no_route");
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (0, 0));
}

#[tokio::test]
async fn weights_distribute_calls() {
    let harness = Harness::start(|options| {
        options.append_toml(
            "[[routes]]\nname = \"shared\"\npick = \"weighted\"\n\
             endpoints = [{ name = \"east\", weight = 1 }, { name = \"west\", weight = 4 }]\n",
        );
    })
    .await;
    let mut caller = harness.caller().await;
    for _ in 0..300 {
        caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    }
    let (east, west) = (harness.arrivals("east").len(), harness.arrivals("west").len());
    assert_eq!(east + west, 300);
    // 60 are expected; the bounds are exceeded once in 10^12 runs.
    assert!((15..=125).contains(&east), "{east} of 300 went to east, whose share is a fifth");
}

#[tokio::test]
async fn hash_keeps_a_group_at_one_endpoint_while_it_is_available() {
    let harness = Harness::start(|options| {
        options.set("process.workers", "2").append_toml(
            "[[routes]]\nname = \"spread\"\npick = \"hash\"\nhash_by = \"group\"\nendpoints = [\"east\", \"west\"]\n",
        );
    })
    .await;
    let spread = async |harness: &Harness| {
        let mut are_in_east = Vec::new();
        for number in 0..40 {
            harness.clear_arrivals();
            for target in [
                format!("/api/hubs/chat/groups/g{number}/:send?api-version=2024-12-01"),
                format!("/api/v1/hubs/news/groups/%67{number}"),
            ] {
                harness.caller().await.post(&target, "application/json", BROADCAST_BODY).await.assert_status(202);
            }
            let arrived = (harness.arrivals("east").len(), harness.arrivals("west").len());
            assert!(arrived == (2, 0) || arrived == (0, 2), "group {number} was split: {arrived:?}");
            are_in_east.push(arrived.0 == 2);
        }
        are_in_east
    };
    let are_in_east = spread(&harness).await;
    let in_east = are_in_east.iter().filter(|in_east| **in_east).count();
    assert!((8..=32).contains(&in_east), "{in_east} of 40 groups are assigned to east");
    harness.endpoint("east").server.faults().refuse().await;
    assert_eq!(spread(&harness).await, [false; 40]);
}

#[tokio::test]
async fn caller_selects_the_endpoint_if_the_route_allows_it() {
    let route = |name: &str, pick: &str, header: bool| {
        format!(
            "[[routes]]\nname = \"{name}\"\nmatch = {{ hub = \"{name}\" }}\npick = \"{pick}\"\n\
             endpoint_header = {header}\nendpoints = [\"east\", \"west\"]\n"
        )
    };
    let harness = Harness::start(|options| {
        options.append_toml(
            &[route("open", "first", true), route("all", "all", true), route("closed", "first", false)].concat(),
        );
    })
    .await;
    let send = async |hub: &str, endpoint: &str| {
        harness.clear_arrivals();
        let call = request("POST", &format!("/api/hubs/{hub}/:send?api-version=2024-12-01"))
            .header(CONTENT_TYPE, "application/json");
        let response =
            harness.caller().await.send(call.header("signalr-gateway-endpoint", endpoint), BROADCAST_BODY).await;
        (response, harness.arrivals("east").len(), harness.arrivals("west").len())
    };
    for hub in ["open", "all"] {
        let (response, east, west) = send(hub, "west").await;
        response.assert_status(202);
        assert_eq!((east, west), (0, 1), "{hub}");
        assert_eq!(harness.arrival("west").header("signalr-gateway-endpoint"), None);
    }
    // No other endpoint replaces the named one.
    harness.endpoint("west").server.faults().refuse().await;
    let (response, east, west) = send("open", "west").await;
    response.assert_gateway_error(503, "endpoint_unavailable");
    assert_eq!((east, west), (0, 0));
    for (hub, endpoint) in [("open", "north"), ("open", "WEST"), ("closed", "east")] {
        let (response, east, west) = send(hub, endpoint).await;
        response.assert_gateway_error(404, "no_endpoint");
        assert!(response.text().contains("signalr-gateway-endpoint"), "{}", response.text());
        assert_eq!((east, west), (0, 0), "{hub} {endpoint}");
    }
    // Unknown endpoint names do not become metric labels.
    assert!(!harness.admin("/metrics").await.text().contains("north"));
}

#[tokio::test]
async fn retries_on_the_next_endpoint_when_nothing_was_sent() {
    let harness = Harness::start(|_| {}).await;
    // First on idle connections that are closed, then without connections.
    harness.broadcast().await.assert_status(202);
    harness.endpoint("east").server.faults().refuse().await;
    harness.clear_arrivals();
    for _ in 0..3 {
        harness.broadcast().await.assert_status(202);
    }
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (0, 3));
}

#[tokio::test]
async fn retries_with_the_complete_body_on_the_next_endpoint() {
    let harness = Harness::start(|_| {}).await;
    harness.endpoint("east").server.faults().refuse().await;
    let long = vec![b'x'; 500_000];
    let pieces = long.chunks(7_000).map(bytes::Bytes::copy_from_slice).collect();
    harness.caller().await.send_chunked(broadcast_request(), pieces).await;
    assert_eq!(harness.arrival("west").body_length, long.len());
}

#[tokio::test]
async fn answers_503_when_no_endpoint_can_be_reached() {
    let harness = Harness::start(|_| {}).await;
    for endpoint in ["east", "west"] {
        harness.endpoint(endpoint).server.faults().refuse().await;
    }
    let response = harness.broadcast().await;
    response.assert_gateway_error(503, "endpoint_unavailable");
    assert!(response.header("retry-after").is_some());
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (0, 0));
}

#[tokio::test]
async fn never_resends_a_message_that_may_have_arrived() {
    for (fault, arrives) in [(FaultKind::Reset, 1), (FaultKind::LoseAnswer, 1)] {
        for is_first_on_its_connection in [true, false] {
            let harness = Harness::start(|options| {
                options.set("process.workers", "1");
            })
            .await;
            if !is_first_on_its_connection {
                harness.broadcast().await.assert_status(202);
                harness.clear_arrivals();
            }
            harness.endpoint("east").server.faults().set(Fault::times(1, fault.clone()));
            harness.broadcast().await.assert_gateway_error(502, "upstream_broken");
            assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (arrives, 0), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn does_not_resend_a_message_after_a_5xx() {
    for status in [408, 429, 500, 502, 503, 504] {
        let harness = Harness::start(|_| {}).await;
        harness.endpoint("east").server.faults().set(Fault::times(1, FaultKind::status(status)));
        harness.broadcast().await.assert_status(status);
        assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (1, 0), "{status}");
    }
}

#[tokio::test]
async fn answers_504_when_the_endpoint_does_not_answer_in_time() {
    let harness = Harness::start(|options| {
        // Long enough for a busy machine to send the call.
        options.set("timeouts.try", "3s").set("timeouts.request", "4s");
    })
    .await;
    harness.endpoint("east").server.faults().set(Fault::always(FaultKind::Hang));
    let response = harness.broadcast().await;
    response.assert_gateway_error(504, "deadline");
    assert!(response.text().contains("may have been received"), "{}", response.text());
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (1, 0));
}

#[tokio::test]
async fn message_answered_202_arrived_exactly_once() {
    let harness = Harness::start(|_| {}).await;
    let faults = harness.endpoint("east").server.faults();
    // Every kind of failed response, between successful ones.
    for kind in
        [FaultKind::Reset, FaultKind::LoseAnswer, FaultKind::status(503), FaultKind::status(401), FaultKind::BreakBody]
    {
        faults.set(Fault::times(1, kind).on_path("/api/hubs/chat/groups"));
        faults.set(Fault::times(1, FaultKind::Delay { delay_ms: 5 }).on_path("/api/hubs/chat/groups"));
    }
    let mut accepted = BTreeSet::new();
    for number in 0..20 {
        let target = format!("/api/hubs/chat/groups/{number}/:send?api-version=2024-12-01");
        let builder = request("POST", &target).header(CONTENT_TYPE, "application/json");
        if harness.caller().await.try_send(builder, BROADCAST_BODY).await.is_ok_and(|response| response.status == 202) {
            accepted.insert(target);
        }
    }
    assert!(accepted.len() >= 10, "{accepted:?}");
    let (east, west) = (harness.arrivals("east"), harness.arrivals("west"));
    for target in accepted {
        let taken = east.iter().chain(&west).filter(|entry| entry.target == target && entry.status == Some(202));
        assert_eq!(taken.count(), 1, "{target}");
    }
}

//! Where calls go: the conditions of routes, and what happens when an endpoint does not do its part.

use std::collections::BTreeSet;

use http::header::CONTENT_TYPE;
use signalr_gateway::sandbox::{Fault, FaultKind};

use crate::support::{Caller, HELLO, Lab, hello, request};

/// Lets every call go to `west` that matches, and all others to `east`.
async fn lab_where_west_takes(conditions: &str) -> Lab {
    Lab::start(|plan| {
        plan.more(&format!(
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
        let lab = lab_where_west_takes(conditions).await;
        let mut caller = lab.caller().await;
        for (method, target, endpoint) in calls {
            lab.forget_arrivals();
            caller.send(request(method, target).header(CONTENT_TYPE, "application/json"), HELLO).await;
            assert_eq!(lab.arrivals(endpoint).len(), 1, "{conditions}: {method} {target} was to go to {endpoint}");
        }
    }
}

#[tokio::test]
async fn headers_and_listeners_choose_the_route() {
    let lab = lab_where_west_takes("header = { name = \"x-region\", value = \"west\" }").await;
    lab.caller().await.send(hello().header("x-region", "west"), HELLO).await.is(202);
    assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (0, 1));
    lab.caller().await.send(hello().header("x-region", "elsewhere"), HELLO).await.is(202);
    assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (1, 1));

    let lab = lab_where_west_takes("listener = \"second\"").await;
    Caller::connect(lab.listener("second")).await.send(hello(), HELLO).await.is(202);
    assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (0, 1));
}

#[tokio::test]
async fn call_that_no_route_takes_is_a_404_and_goes_nowhere() {
    let lab = Lab::start(|plan| {
        plan.more("[[routes]]\nname = \"chat\"\nmatch = { hub = \"chat\" }\nendpoints = [\"east\"]\n");
    })
    .await;
    lab.call("HEAD", "/api/hubs/other/groups/g").await.is_refused(404, "no_route");
    assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (0, 0));
}

#[tokio::test]
async fn weights_share_calls_out() {
    let lab = Lab::start(|plan| {
        plan.more(
            "[[routes]]\nname = \"shared\"\npick = \"weighted\"\n\
             endpoints = [{ name = \"east\", weight = 1 }, { name = \"west\", weight = 4 }]\n",
        );
    })
    .await;
    let mut caller = lab.caller().await;
    for _ in 0..300 {
        caller.send(hello(), HELLO).await.is(202);
    }
    let (east, west) = (lab.arrivals("east").len(), lab.arrivals("west").len());
    assert_eq!(east + west, 300);
    // 60 are expected; beyond these bounds once in a million million runs.
    assert!((15..=125).contains(&east), "{east} of 300 went to east, whose share is a fifth");
}

#[tokio::test]
async fn what_is_about_the_same_group_goes_to_the_same_endpoint_and_moves_only_while_that_is_gone() {
    let lab = Lab::start(|plan| {
        plan.set("process.workers", "2").more(
            "[[routes]]\nname = \"spread\"\npick = \"hash\"\nhash_by = \"group\"\nendpoints = [\"east\", \"west\"]\n",
        );
    })
    .await;
    let spread = async |lab: &Lab| {
        let mut homes = Vec::new();
        for number in 0..40 {
            lab.forget_arrivals();
            for target in [
                format!("/api/hubs/chat/groups/g{number}/:send?api-version=2024-12-01"),
                format!("/api/v1/hubs/news/groups/%67{number}"),
            ] {
                lab.caller().await.post(&target, "application/json", HELLO).await.is(202);
            }
            let arrived = (lab.arrivals("east").len(), lab.arrivals("west").len());
            assert!(arrived == (2, 0) || arrived == (0, 2), "group {number} was split: {arrived:?}");
            homes.push(arrived.0 == 2);
        }
        homes
    };
    let homes = spread(&lab).await;
    let in_east = homes.iter().filter(|in_east| **in_east).count();
    assert!((8..=32).contains(&in_east), "{in_east} of 40 groups live in east");
    lab.endpoint("east").server.faults().refuse().await;
    assert_eq!(spread(&lab).await, [false; 40]);
}

#[tokio::test]
async fn caller_names_the_endpoint_where_the_route_lets_it() {
    let route = |name: &str, pick: &str, header: bool| {
        format!(
            "[[routes]]\nname = \"{name}\"\nmatch = {{ hub = \"{name}\" }}\npick = \"{pick}\"\n\
             endpoint_header = {header}\nendpoints = [\"east\", \"west\"]\n"
        )
    };
    let lab = Lab::start(|plan| {
        plan.more(&[route("open", "first", true), route("all", "all", true), route("closed", "first", false)].concat());
    })
    .await;
    let send = async |hub: &str, endpoint: &str| {
        lab.forget_arrivals();
        let call = request("POST", &format!("/api/hubs/{hub}/:send?api-version=2024-12-01"))
            .header(CONTENT_TYPE, "application/json");
        let answer = lab.caller().await.send(call.header("signalr-gateway-endpoint", endpoint), HELLO).await;
        (answer, lab.arrivals("east").len(), lab.arrivals("west").len())
    };
    for hub in ["open", "all"] {
        let (answer, east, west) = send(hub, "west").await;
        answer.is(202);
        assert_eq!((east, west), (0, 1), "{hub}");
        assert_eq!(lab.arrival("west").header("signalr-gateway-endpoint"), None);
    }
    // No other endpoint stands in for the one that was named.
    lab.endpoint("west").server.faults().refuse().await;
    let (answer, east, west) = send("open", "west").await;
    answer.is_refused(503, "endpoint_unavailable");
    assert_eq!((east, west), (0, 0));
    for (hub, endpoint) in [("open", "north"), ("open", "WEST"), ("closed", "east")] {
        let (answer, east, west) = send(hub, endpoint).await;
        answer.is_refused(404, "no_route");
        assert!(answer.text().contains("signalr-gateway-endpoint"), "{}", answer.text());
        assert_eq!((east, west), (0, 0), "{hub} {endpoint}");
    }
    // Names that callers make up are no label of any metric.
    assert!(!lab.admin("/metrics").await.text().contains("north"));
}

#[tokio::test]
async fn next_endpoint_takes_what_could_not_be_sent() {
    let lab = Lab::start(|_| {}).await;
    // Once with connections that were kept and are cut, then with none.
    lab.hello().await.is(202);
    lab.endpoint("east").server.faults().refuse().await;
    lab.forget_arrivals();
    for _ in 0..3 {
        lab.hello().await.is(202);
    }
    assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (0, 3));
}

#[tokio::test]
async fn body_is_whole_at_the_next_endpoint() {
    let lab = Lab::start(|_| {}).await;
    lab.endpoint("east").server.faults().refuse().await;
    let long = vec![b'x'; 500_000];
    let pieces = long.chunks(7_000).map(bytes::Bytes::copy_from_slice).collect();
    lab.caller().await.send_chunked(hello(), pieces).await;
    assert_eq!(lab.arrival("west").body_length, long.len());
}

#[tokio::test]
async fn all_endpoints_out_of_reach_is_a_503_that_may_be_repeated() {
    let lab = Lab::start(|_| {}).await;
    for endpoint in ["east", "west"] {
        lab.endpoint(endpoint).server.faults().refuse().await;
    }
    let answer = lab.hello().await;
    answer.is_refused(503, "endpoint_unavailable");
    assert!(answer.header("retry-after").is_some());
    assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (0, 0));
}

#[tokio::test]
async fn message_that_may_have_arrived_is_never_sent_again() {
    for (fault, arrives) in [(FaultKind::Reset, 1), (FaultKind::LoseAnswer, 1)] {
        for is_first_on_its_connection in [true, false] {
            let lab = Lab::start(|plan| {
                plan.set("process.workers", "1");
            })
            .await;
            if !is_first_on_its_connection {
                lab.hello().await.is(202);
                lab.forget_arrivals();
            }
            lab.endpoint("east").server.faults().set(Fault::times(1, fault.clone()));
            lab.hello().await.is_refused(502, "upstream_broken");
            assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (arrives, 0), "{fault:?}");
        }
    }
}

#[tokio::test]
async fn message_that_the_service_failed_to_take_is_not_sent_again() {
    for status in [408, 429, 500, 502, 503, 504] {
        let lab = Lab::start(|_| {}).await;
        lab.endpoint("east").server.faults().set(Fault::times(1, FaultKind::status(status)));
        lab.hello().await.is(status);
        assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (1, 0), "{status}");
    }
}

#[tokio::test]
async fn endpoint_that_does_not_answer_in_time_is_a_504() {
    let lab = Lab::start(|plan| {
        plan.set("timeouts.try", "300ms").set("timeouts.request", "600ms");
    })
    .await;
    lab.endpoint("east").server.faults().set(Fault::always(FaultKind::Hang));
    let answer = lab.hello().await;
    answer.is_refused(504, "deadline");
    assert!(answer.text().contains("may have been received"), "{}", answer.text());
    assert_eq!((lab.arrivals("east").len(), lab.arrivals("west").len()), (1, 0));
}

#[tokio::test]
async fn message_answered_202_arrived_exactly_once() {
    let lab = Lab::start(|_| {}).await;
    let faults = lab.endpoint("east").server.faults();
    // Every way of not answering, between good answers.
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
        if lab.caller().await.try_send(builder, HELLO).await.is_ok_and(|answer| answer.status == 202) {
            accepted.insert(target);
        }
    }
    assert!(accepted.len() >= 10, "{accepted:?}");
    let (east, west) = (lab.arrivals("east"), lab.arrivals("west"));
    for target in accepted {
        let taken = east.iter().chain(&west).filter(|entry| entry.target == target && entry.status == Some(202));
        assert_eq!(taken.count(), 1, "{target}");
    }
}

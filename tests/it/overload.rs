//! More calls than the limits allow: some wait, the others are rejected before anything is sent, and those in flight are
//! not affected.

use std::time::Instant;

use futures_util::future::join_all;
use signalr_gateway::sandbox::{Fault, FaultKind};

use crate::support::{BROADCAST_BODY, Harness, Response, broadcast_request, wait_until};

/// Sends one call on its own connection, so that any free worker takes it.
async fn call(harness: &Harness) -> Response {
    harness.caller().await.send(broadcast_request(), BROADCAST_BODY).await
}

/// Starts calls that hang at an endpoint, and returns once they do.
async fn start_hanging_calls(harness: &Harness, endpoint: &str, calls: usize) -> Vec<tokio::task::JoinHandle<()>> {
    let server = harness.endpoint(endpoint).server.clone();
    server.faults().set(Fault::times(u32::try_from(calls).unwrap(), FaultKind::Hang).on_path("/api/hubs"));
    let mut hanging = Vec::new();
    for _ in 0..calls {
        let mut caller = harness.caller().await;
        hanging.push(tokio::spawn(async move { drop(caller.try_send(broadcast_request(), BROADCAST_BODY).await) }));
    }
    server.journal().wait_for(calls, |entry| entry.path() != "/api/health").await;
    hanging
}

#[tokio::test]
async fn answers_503_to_calls_above_the_listeners_limit_without_sending_them() {
    let harness = Harness::start(|options| {
        options.set("listeners.default.max_requests", "3").set("limits.queue_time", "50ms");
    })
    .await;
    let hanging = start_hanging_calls(&harness, "east", 3).await;
    let rejected = call(&harness).await;
    assert_eq!(rejected.assert_gateway_error(503, "overload").header("retry-after"), Some("1"));
    harness.call("GET", "/api/health").await.assert_status(200);
    let metrics = harness.metrics().await;
    assert!(metrics.sum("listener_queue_total", &[("listener", "default"), ("outcome", "timed_out")]) > 0.5);
    // Callers that disconnect free their permits.
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
    wait_until("a permit is free again", async || (call(&harness).await.status == 202).then_some(())).await;
    assert!(harness.arrivals("west").is_empty());
}

#[tokio::test]
async fn queues_calls_up_to_the_queue_limit() {
    let harness = Harness::start(|options| {
        options.set("listeners.default.max_requests", "2").set("limits.queue", "4").set("limits.queue_time", "25s");
    })
    .await;
    let hanging = start_hanging_calls(&harness, "east", 2).await;
    let rejections = async || {
        let labels = [("listener", "default"), ("outcome", "full")];
        harness.metrics().await.sum("listener_queue_total", &labels)
    };
    let responses = join_all((0..12).map(|_| call(&harness)));
    let (responses, ()) = tokio::join!(responses, async {
        // Four of the twelve wait until the permits are free.
        wait_until("the others are rejected", async || (rejections().await > 7.5).then_some(())).await;
        hanging.iter().for_each(tokio::task::JoinHandle::abort);
    });
    let served = responses.iter().filter(|response| response.status == 202).count();
    assert_eq!(served, 4);
    for rejected in responses.iter().filter(|response| response.status != 202) {
        rejected.assert_gateway_error(503, "overload");
    }
    assert_eq!(harness.arrivals("east").len(), 2 + served);
}

#[tokio::test]
async fn uses_the_next_endpoint_when_one_is_at_its_limit() {
    let harness = Harness::start(|options| {
        options.set("endpoints.east.max_requests", "2").set("limits.queue_time", "50ms");
    })
    .await;
    let hanging = start_hanging_calls(&harness, "east", 2).await;
    call(&harness).await.assert_status(202);
    assert_eq!((harness.arrivals("east").len(), harness.arrivals("west").len()), (2, 1));
    assert!(harness.metrics().await.sum("endpoint_queue_total", &[("endpoint", "east")]) > 0.5);
    // The endpoint did not fail: its circuit stays closed.
    let breaker = harness.metrics().await.sum("breaker_state", &[("endpoint", "east"), ("state", "closed")]);
    assert!((breaker - 1.0).abs() < f64::EPSILON);
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn answers_503_when_the_only_endpoint_is_at_its_limit() {
    let harness = Harness::start(|options| {
        options.set("endpoints.east.max_requests", "1").set("limits.queue_time", "50ms");
        options.append_toml("[[routes]]\nname = \"east\"\nendpoints = [\"east\"]\n");
    })
    .await;
    let hanging = start_hanging_calls(&harness, "east", 1).await;
    call(&harness).await.assert_gateway_error(503, "overload");
    assert_eq!(harness.arrivals("east").len(), 1);
    hanging.iter().for_each(tokio::task::JoinHandle::abort);
}

#[tokio::test]
async fn rate_limit_of_a_route_spans_workers_and_does_not_affect_other_routes() {
    let harness = Harness::start(|options| {
        options.append_toml(
            "[[routes]]\nname = \"slow\"\nmatch = { hub = \"chat\" }\nrate = { per_second = 1, burst = 3 }\nendpoints = [\"east\"]\n\
             [[routes]]\nname = \"rest\"\nendpoints = [\"east\"]\n",
        );
    })
    .await;
    call_beyond_the_rate(&harness, "rate limit of the route").await;
    let other = "/api/hubs/other/:send?api-version=2022-11-01";
    harness.caller().await.post(other, "application/json", BROADCAST_BODY).await.assert_status(202);
    assert!(harness.metrics().await.sum("rate_limited_total", &[("route", "slow")]) > 4.5);
}

/// Sends 20 calls at once, of which a rate of one per second with a burst of three allows some. `limit` names it.
async fn call_beyond_the_rate(harness: &Harness, limit: &str) {
    let began = Instant::now();
    let responses = join_all((0..20).map(|_| call(harness))).await;
    let served = responses.iter().filter(|response| response.status == 202).count();
    // A burst of three, and one more for each second that passed.
    let most = 3 + usize::try_from(began.elapsed().as_secs()).unwrap() + 1;
    assert!((3..=most).contains(&served), "{served} were served");
    for rejected in responses.iter().filter(|response| response.status != 202) {
        assert_eq!(rejected.assert_gateway_error(429, "rate_limited").header("retry-after"), Some("1"));
        assert!(rejected.text().contains(limit), "{}", rejected.text());
    }
    assert_eq!(harness.arrivals("east").len(), served);
}

#[tokio::test]
async fn calls_beyond_the_rate_of_an_endpoint_get_429_and_calls_to_others_do_not() {
    let harness = Harness::start(|options| {
        options.set("limits.endpoint_rate", "{ per_second = 1, burst = 3 }");
        options.set("endpoints.west.rate", "{ per_second = 1000 }");
        options.append_toml(
            "[[routes]]\nname = \"quiet\"\nmatch = { hub = \"quiet\" }\nendpoints = [\"west\"]\n\
             [[routes]]\nname = \"noisy\"\nendpoints = [\"east\"]\n",
        );
    })
    .await;
    call_beyond_the_rate(&harness, "rate limit of the endpoint").await;
    let quiet = "/api/hubs/quiet/:send?api-version=2022-11-01";
    for _ in 0..10 {
        harness.caller().await.post(quiet, "application/json", BROADCAST_BODY).await.assert_status(202);
    }
    let metrics = harness.metrics().await;
    assert!(metrics.sum("endpoint_rate_limited_total", &[("endpoint", "east")]) > 4.5);
    // The endpoint did not fail: its circuit stays closed.
    let breaker = metrics.sum("breaker_state", &[("endpoint", "east"), ("state", "closed")]);
    assert!((breaker - 1.0).abs() < f64::EPSILON);
}

#[tokio::test]
async fn next_endpoint_of_the_route_takes_calls_beyond_the_rate_of_one() {
    let harness = Harness::start(|options| {
        options.set("endpoints.east.rate", "{ per_second = 1, burst = 1 }");
    })
    .await;
    for response in join_all((0..10).map(|_| call(&harness))).await {
        response.assert_status(202);
    }
    assert!(!harness.arrivals("east").is_empty() && !harness.arrivals("west").is_empty());
}

#[tokio::test]
async fn fan_out_leaves_out_an_endpoint_beyond_its_rate() {
    let harness = Harness::start(|options| {
        options.set("endpoints.east.rate", "{ per_second = 1, burst = 1 }");
        options.append_toml("[[routes]]\nname = \"both\"\npick = \"all\"\nendpoints = [\"east\", \"west\"]\n");
    })
    .await;
    let responses = join_all((0..10).map(|_| call(&harness))).await;
    let partial: Vec<_> = responses.iter().filter(|response| response.status != 202).collect();
    assert!(!partial.is_empty());
    for response in partial {
        response.assert_gateway_error(502, "partial_delivery");
        assert!(response.text().contains("not_sent"), "{}", response.text());
    }
    assert_eq!(harness.arrivals("west").len(), 10);
}

#[tokio::test]
async fn rate_limit_of_a_network_spans_its_connections() {
    let harness = Harness::start(|options| {
        options.set("listeners.default.client_rate", "{ per_second = 1, burst = 2 }");
    })
    .await;
    let responses = join_all((0..10).map(|_| call(&harness))).await;
    assert!(responses.iter().any(|response| response.status == 202));
    let rejected: Vec<_> = responses.iter().filter(|response| response.status != 202).collect();
    assert!(!rejected.is_empty());
    for rejected in rejected {
        rejected.assert_gateway_error(429, "rate_limited");
    }
    let counted = harness.metrics().await.sum("client_rate_limited_total", &[("listener", "default")]);
    assert!(counted > 0.5, "{counted}");
    // Health probes are not counted.
    for _ in 0..5 {
        harness.call("HEAD", "/api/health").await.assert_status(200);
    }
}

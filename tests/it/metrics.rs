//! Metrics: their names, what they count, and that neither callers nor many endpoints add series without bound.

use std::collections::BTreeSet;

use signalr_gateway::sandbox::{Fault, FaultKind};

use crate::support::{BROADCAST_BODY, BROADCAST_PATH, Caller, Harness, broadcast_request, request, wait_until};

#[tokio::test]
async fn metrics_have_the_names_that_dashboards_rely_on() {
    let harness = Harness::start(|_| {}).await;
    // One call of each outcome, because series appear with their first value.
    harness.broadcast().await.assert_status(202);
    let faults = harness.endpoint("east").server.faults();
    faults.set(Fault::times(1, FaultKind::status(401)));
    harness.broadcast().await.assert_status(202);
    faults.set(Fault::times(1, FaultKind::Reset));
    harness.broadcast().await.assert_gateway_error(502, "upstream_broken");
    harness.call("GET", "/nowhere").await.assert_gateway_error(404, "unknown_path");
    let text = harness.admin("/metrics").await.text();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let names: Vec<&str> = types.filter(|line| line.starts_with("signalr_gateway_")).collect();
    insta::assert_snapshot!("metrics", names.join("\n"));
    for name in names {
        let name = name.split(' ').next().unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{name} is not explained");
    }
    assert!(text.contains("process_resident_memory_bytes") && text.contains("process_open_fds"));
}

#[tokio::test]
async fn error_counters_exist_before_the_first_error() {
    let both = "[[routes]]\nname = \"both\"\npick = \"all\"\nendpoints = [\"east\", \"west\"]\n";
    let harness = Harness::start(|options| _ = options.append_toml(both)).await;
    let text = harness.admin("/metrics").await.text();
    for series in [
        "rejected_total{reason=\"internal\"}",
        "upstream_errors_total{endpoint=\"west\",reason=\"dns\"}",
        "upstream_connects_total{endpoint=\"west\",result=\"error\"}",
        "upstream_unauthorized_total{action=\"kept\",code=\"403\",endpoint=\"east\"}",
        "retries_total{endpoint=\"east\",outcome=\"budget\"}",
        "endpoint_queue_total{endpoint=\"east\",outcome=\"full\"}",
        "listener_queue_total{listener=\"default\",outcome=\"timed_out\"}",
        "fanout_partial_total{route=\"both\"}",
        "fanout_legs_total{outcome=\"no_answer\",route=\"both\"}",
        "token_errors_total{credential=\"west\",reason=\"network\"}",
        "token_requests_total{credential=\"west\",result=\"permanent\",stage=\"assertion\"}",
        "token_throttled_total{party=\"app\"}",
        "config_reloads_total{result=\"failure\"}",
        "connections_closed_total{reason=\"unread\"}",
        "idempotency_store_errors_total{operation=\"claim\"}",
        "message_units_total{endpoint=\"east\"}",
    ] {
        let line = format!("signalr_gateway_{series} 0");
        assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
    }
    // A route to one endpoint at a time has no fan-out.
    let harness = Harness::start(|_| {}).await;
    assert!(!harness.admin("/metrics").await.text().contains("fanout_partial_total{"));
}

#[tokio::test]
async fn message_units_are_steps_of_two_kib_of_what_an_endpoint_has_accepted() {
    let harness = Harness::start(|options| {
        options.append_toml(
            "[[routes]]\nname = \"both\"\npick = \"all\"\nendpoints = [\"east\", \"west\"]\nmatch = { hub = \"all\" }\n\
             [[routes]]\nname = \"one\"\nendpoints = [\"east\"]\n",
        );
    })
    .await;
    let mut caller = harness.caller().await;
    let body = |bytes: usize| format!("{{\"target\":\"{}\"}}", "x".repeat(bytes - "{\"target\":\"\"}".len()));
    let mut send = async |hub: &str, bytes: usize| {
        let target = format!("/api/hubs/{hub}/:send?api-version=2024-12-01");
        caller.post(&target, "application/json", body(bytes)).await.status.as_u16()
    };
    // 1 and 2 to one endpoint, 3 to each of both.
    assert_eq!([send("chat", 2048).await, send("chat", 2049).await, send("all", 6000).await], [202; 3]);
    // What is refused or not a message does not count.
    harness.endpoint("east").server.faults().set(Fault::times(1, FaultKind::status(400)));
    assert_eq!(send("chat", 5000).await, 400);
    harness.call("HEAD", "/api/hubs/chat/groups/none?api-version=2024-12-01").await.assert_status(404);
    let metrics = harness.metrics().await;
    metrics.assert_sum("message_units_total", &[("endpoint", "east")], 6);
    metrics.assert_sum("message_units_total", &[("endpoint", "west")], 3);
}

#[tokio::test]
async fn counts_requests_by_outcome() {
    let harness = Harness::start(|_| {}).await;
    let mut caller = harness.caller().await;
    for _ in 0..3 {
        caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    }
    caller.call("HEAD", "/api/hubs/chat/groups/none?api-version=2024-12-01").await.assert_status(404);
    caller.call("GET", "/nowhere").await.assert_gateway_error(404, "unknown_path");
    let metrics = harness.metrics().await;
    let sent = [("route", "default"), ("operation", "hub_send"), ("code", "202")];
    metrics.assert_sum("requests_total", &sent, 3);
    metrics.assert_sum("requests_total", &[("operation", "group_exists"), ("code", "404")], 1);
    metrics.assert_sum("requests_total", &[("route", "_none"), ("operation", "_other"), ("code", "404")], 1);
    metrics.assert_sum("rejected_total", &[("reason", "unknown_path")], 1);
    metrics.assert_sum("upstream_requests_total", &[("endpoint", "east")], 4);
    metrics.assert_sum("upstream_requests_total", &[("endpoint", "west")], 0);
    metrics.assert_sum("request_duration_seconds_count", &[], 5);
    metrics.assert_sum("requests_in_flight", &[], 0);
    metrics.assert_sum("draining", &[], 0);
}

/// Sends five hundred requests that differ in everything a caller can choose.
async fn send_varied_requests(harness: &Harness, seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut caller = harness.caller().await;
    for number in 0..500 {
        let word: String = (0..12).map(|_| random.alphabetic()).collect();
        let other: String = (0..8).map(|_| random.lowercase()).collect();
        let builder = match number % 10 {
            0 => request("POST", &format!("/api/hubs/{word}/:send?api-version=2022-11-01")),
            1 => request("POST", &format!("/api/hubs/{word}/groups/{other}/:send?application={other}")),
            2 => request("HEAD", &format!("/api/hubs/chat/users/{word}?{other}=1")),
            3 => request("GET", &format!("/{word}/{other}")),
            4 => request("POST", &format!("/api/hubs/{word}/{other}")),
            5 => request(&word.to_uppercase(), &format!("/api/hubs/{other}/:send")),
            6 => request("POST", BROADCAST_PATH).header("host", format!("{other}.example")),
            7 => request("POST", BROADCAST_PATH).header("x-request-id", &word).header("user-agent", &other),
            8 => request("POST", BROADCAST_PATH).header("content-type", format!("{other}/{word}")),
            _ => request("PUT", &format!("/api/hubs/{word}/users/{other}/groups/{word}?ttl={number}")),
        };
        let body = if builder.method_ref().unwrap() == "POST" { BROADCAST_BODY } else { "" };
        caller.send(builder, body).await;
    }
}

#[tokio::test]
async fn callers_cannot_add_metric_series() {
    let harness = Harness::start(|_| {}).await;
    send_varied_requests(&harness, 1).await;
    let before = harness.metrics().await;
    send_varied_requests(&harness, 2).await;
    let after = harness.metrics().await;
    let new: BTreeSet<&str> = after.series().difference(&before.series()).copied().collect();
    assert!(new.is_empty(), "{new:?}");
    assert_eq!(after.count(), before.count());
    assert!(after.sum("requests_total", &[]) >= 1000.0, "not every request was counted");
}

#[tokio::test]
async fn counts_a_disconnected_caller_and_returns_gauges_to_zero() {
    let harness = Harness::start(|_| {}).await;
    let east = &harness.endpoint("east").server;
    east.faults().set(Fault::always(FaultKind::Hang).on_path("/api/hubs"));
    let head = format!("POST {BROADCAST_PATH} HTTP/1.1\r\nhost: localhost\r\n");
    // One call waits for its response, one is still being sent.
    let mut waiting = harness.raw_connection().await;
    waiting.write(format!("{head}content-length: {}\r\n\r\n{BROADCAST_BODY}", BROADCAST_BODY.len())).await;
    east.journal().wait_for(1, |entry| entry.target == BROADCAST_PATH).await;
    let mut sending = harness.raw_connection().await;
    sending.write(format!("{head}content-length: 10\r\n\r\nhello")).await;
    wait_until("both are in flight", async || {
        ((harness.metrics().await.sum("requests_in_flight", &[]) - 2.0).abs() < 1e-9).then_some(())
    })
    .await;
    waiting.reset();
    sending.reset();
    let metrics = wait_until("none is in flight", async || {
        let metrics = harness.metrics().await;
        (metrics.sum("requests_in_flight", &[]).abs() < 1e-9).then_some(metrics)
    })
    .await;
    let ended =
        metrics.sum("requests_total", &[("code", "499")]) + metrics.sum("rejected_total", &[("reason", "body_broken")]);
    assert!((ended - 2.0).abs() < 1e-9, "{ended}");
    metrics.assert_sum("requests_total", &[], 2);
    wait_until("their connections are closed", async || {
        let metrics = harness.metrics().await;
        (metrics.sum("upstream_connections", &[("endpoint", "east"), ("state", "active")]).abs() < 1e-9).then_some(())
    })
    .await;
}

#[tokio::test]
async fn keeps_upstream_connections_and_counts_them() {
    let harness = Harness::start(|options| {
        options.set("process.workers", "1");
    })
    .await;
    let mut caller = harness.caller().await;
    for _ in 0..10 {
        caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    }
    let metrics = harness.metrics().await;
    metrics.assert_sum("upstream_connects_total", &[("endpoint", "east"), ("result", "ok")], 1);
    metrics.assert_sum("upstream_connections", &[("endpoint", "east"), ("state", "idle")], 1);
    metrics.assert_sum("upstream_connections", &[("endpoint", "east"), ("state", "active")], 0);
}

#[tokio::test]
async fn serves_openmetrics_and_gzip_on_request() {
    let harness = Harness::start(|_| {}).await;
    let mut caller = Caller::connect(harness.admin_address()).await;
    let plain = caller.call("GET", "/metrics").await;
    assert!(plain.header("content-type").unwrap().starts_with("text/plain; version=0.0.4"), "{plain:?}");
    let accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5";
    let open = caller.send(request("GET", "/metrics").header("accept", accept), "").await;
    assert!(
        open.header("content-type").unwrap().starts_with("application/openmetrics-text; version=1.0.0"),
        "{open:?}"
    );
    assert!(open.text().ends_with("# EOF\n"));
    assert!(
        open.text().contains("# TYPE signalr_gateway_build info")
            || open.text().contains("signalr_gateway_build_info{")
    );
    assert!(
        open.text().lines().all(|line| !line.starts_with("# TYPE") || !line.contains("_total counter")),
        "{}",
        open.text()
    );
    let compressed = caller.send(request("GET", "/metrics").header("accept-encoding", "gzip"), "").await;
    assert_eq!(compressed.header("content-encoding"), Some("gzip"));
    assert!(compressed.body.len() < plain.body.len() / 2);
}

#[tokio::test]
async fn openmetrics_link_durations_to_recorded_traces_and_to_no_others() {
    let harness = Harness::start(|_| {}).await;
    let mut caller = harness.caller().await;
    let mut admin = Caller::connect(harness.admin_address()).await;
    let mut exemplars = async || {
        let open = request("GET", "/metrics").header("accept", "application/openmetrics-text");
        let text = admin.send(open, "").await.text();
        text.lines().filter(|line| line.contains(" # {")).map(str::to_owned).collect::<Vec<_>>()
    };
    let traced =
        |id: &str, flags: &str| broadcast_request().header("traceparent", format!("00-{id}-b7ad6b7169203331-{flags}"));
    let id = "0af7651916cd43dd8448eb211c80319c";
    for call in [broadcast_request(), traced(id, "00"), traced(&id.to_uppercase(), "01")] {
        caller.send(call, BROADCAST_BODY).await.assert_status(202);
    }
    assert_eq!(exemplars().await, Vec::<String>::new());

    caller.send(traced(id, "01"), BROADCAST_BODY).await.assert_status(202);
    let found = wait_until("both histograms have an exemplar", async || {
        let found = exemplars().await;
        (found.len() == 2).then_some(found)
    })
    .await;
    let link = format!(" # {{trace_id=\"{id}\"}} ");
    for (line, series) in found.iter().zip([
        "signalr_gateway_request_duration_seconds_bucket{operation=\"hub_send\",le=\"",
        "signalr_gateway_upstream_duration_seconds_bucket{endpoint=\"east\",le=\"",
    ]) {
        let (bucket, exemplar) = line.split_once(&link).unwrap();
        let bound = bucket.strip_prefix(series).unwrap().split('"').next().unwrap();
        let (value, time) = exemplar.split_once(' ').unwrap();
        let (bound, value): (f64, f64) = (bound.replace('+', "").parse().unwrap(), value.parse().unwrap());
        assert!(value > 0.0 && value <= bound, "{line}");
        let age = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64() - time.parse::<f64>().unwrap();
        assert!((0.0..600.0).contains(&age), "{line}");
    }
    assert!(!harness.admin("/metrics").await.text().contains("trace_id"));
}

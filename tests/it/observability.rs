//! What operators observe: a bounded number of metric series, one log line per request, liveness, readiness and status.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use serde_json::Value;
use signalr_gateway::sandbox::{Fault, FaultKind, GatewayConfig, TENANT_C};

use crate::support::{
    BROADCAST_BODY, BROADCAST_PATH, Caller, Harness, HarnessBuilder, Process, RawConnection, Samples,
    broadcast_request, request, wait_until,
};

#[track_caller]
fn assert_counted(samples: &Samples, name: &str, labels: &[(&str, &str)], expected: u32) {
    let found = samples.sum(name, labels);
    assert!((found - f64::from(expected)).abs() < 1e-9, "{name} {labels:?} is {found}, not {expected}");
}

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
    assert_counted(&metrics, "message_units_total", &[("endpoint", "east")], 6);
    assert_counted(&metrics, "message_units_total", &[("endpoint", "west")], 3);
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
    assert_counted(&metrics, "requests_total", &sent, 3);
    assert_counted(&metrics, "requests_total", &[("operation", "group_exists"), ("code", "404")], 1);
    assert_counted(&metrics, "requests_total", &[("route", "_none"), ("operation", "_other"), ("code", "404")], 1);
    assert_counted(&metrics, "rejected_total", &[("reason", "unknown_path")], 1);
    assert_counted(&metrics, "upstream_requests_total", &[("endpoint", "east")], 4);
    assert_counted(&metrics, "upstream_requests_total", &[("endpoint", "west")], 0);
    assert_counted(&metrics, "request_duration_seconds_count", &[], 5);
    assert_counted(&metrics, "requests_in_flight", &[], 0);
    assert_counted(&metrics, "draining", &[], 0);
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
    assert_counted(&metrics, "requests_total", &[], 2);
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
    assert_counted(&metrics, "upstream_connects_total", &[("endpoint", "east"), ("result", "ok")], 1);
    assert_counted(&metrics, "upstream_connections", &[("endpoint", "east"), ("state", "idle")], 1);
    assert_counted(&metrics, "upstream_connections", &[("endpoint", "east"), ("state", "active")], 0);
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

#[tokio::test]
async fn liveness_readiness_and_status_report_the_state() {
    let builder = HarnessBuilder::start().await;
    builder.sandbox.entra().faults().refuse().await;
    let harness = builder
        .start_gateway(|options| {
            options.wait_until_ready = false;
        })
        .await;
    assert_eq!(harness.admin("/livez").await.status, 200);
    let not_ready = harness.admin("/readyz").await;
    assert_eq!(not_ready.status, 503);
    assert!(not_ready.text().contains("/status"), "{not_ready:?}");
    let cause = wait_until("/status shows the cause", async || {
        harness.credential("east").await["last_error"].as_str().map(str::to_owned)
    });
    assert!(cause.await.contains("connect"), "the cause is missing");
    let received: u64 = harness.sandbox.endpoints().iter().map(|endpoint| endpoint.server.journal().received()).sum();
    harness.admin("/readyz").await;
    harness.sandbox.entra().faults().clear().await;
    wait_until("it is ready", async || (harness.admin("/readyz").await.status == 200).then_some(())).await;
    assert!(harness.arrivals("east").is_empty() && received <= 2, "the readiness probe connected to an endpoint");

    // An endpoint without a token would be listed first.
    harness.wait_until_credentials_are("ready").await;
    let status = harness.admin("/status").await;
    assert_eq!(status.header("content-type"), Some("application/json"));
    let status = status.json();
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(status["listeners"][0]["address"], harness.listener("default").to_string());
    assert_eq!(status["endpoints"][0]["url"], harness.endpoint("east").url());
    assert_eq!(status["routes"][0]["endpoints"], serde_json::json!(["east", "west"]));
    let token = harness.credential("east").await["token"].as_str().unwrap().to_owned();
    harness.broadcast().await.assert_status(202);
    assert_eq!(harness.arrival("east").authorization.unwrap().fingerprint, token, "not the fingerprint in the logs");
    let page = harness.admin("/").await;
    assert!(page.text().contains("ready") && page.text().contains(&token));
    assert_eq!(harness.admin("/elsewhere").await.status, 404);
    let post = Caller::connect(harness.admin_address()).await.call("POST", "/metrics").await;
    assert_eq!((post.status.as_u16(), post.header("allow")), (405, Some("GET, HEAD")));
}

#[tokio::test]
async fn many_endpoints_have_bounded_series_and_a_status_in_pages_with_problems_first() {
    let builder = HarnessBuilder::start().await;
    let body = r#"{"error":"unauthorized_client","error_description":"AADSTS7000229: none","error_codes":[7000229]}"#;
    let no_principal = Fault::always(FaultKind::json(400, body)).on_path(&format!("/{TENANT_C}"));
    builder.sandbox.entra().faults().set(no_principal);
    let harness = builder
        .start_gateway(|options| {
            options.wait_until_ready = false;
            options.set("metrics.max_endpoints", "4");
            let mut toml = "\n[[routes]]\nname = \"all\"\nendpoints = [\"east\", \"west\"]\n".to_owned();
            for number in 0..250 {
                // The first ten share a label.
                let label = if number < 10 { "metrics_label = \"eu\"\n" } else { "" };
                let url = "http://127.0.0.1:9";
                let _infallible =
                    writeln!(toml, "[endpoints.tenant{number:03}]\nurl = \"{url}\"\ncredential = \"east\"\n{label}");
            }
            options.append_toml(&toml);
        })
        .await;
    let status = wait_until("west has no token", async || {
        let status = harness.admin("/status").await.json();
        (status["endpoints"][0]["state"] == "no_token").then_some(status)
    })
    .await;
    assert_eq!((&status["endpoints"][0]["name"], &status["credentials"][0]["name"]), (&"west".into(), &"west".into()));
    assert_eq!(status["endpoints"].as_array().unwrap().len(), 100);
    assert_eq!((&status["page"]["of"], &status["counts"]["endpoints"]["total"]), (&3.into(), &252.into()));
    assert_eq!(
        (&status["counts"]["endpoints"]["broken"], &status["counts"]["endpoints"]["ok"]),
        (&1.into(), &251.into())
    );
    assert_eq!(status["metric_labels"]["endpoints"], serde_json::json!({ "own": 4, "other": 239 }));

    let names = async |query: &str, kind: &str| -> Vec<String> {
        let status = harness.admin(&format!("/status?{query}")).await.json();
        let entries = status[kind].as_array().unwrap().clone();
        entries.iter().map(|entry| entry["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names("page=3", "endpoints").await.len(), 52);
    assert_eq!(names("page=4", "endpoints").await, Vec::<String>::new());
    assert_eq!(names("name=TENANT24", "endpoints").await.len(), 10);
    for kind in ["endpoints", "credentials"] {
        assert_eq!(names("state=broken", kind).await, ["west"]);
    }
    assert_eq!(names("state=ready", "credentials").await, ["east"]);
    let wrong = harness.admin("/status?state=brokn").await;
    assert!(wrong.status == 400 && wrong.text().contains("must be one of broken, "), "{wrong:?}");
    let page = harness.admin("/?name=tenant").await.text();
    assert!(page.contains("1 of 252 with a problem") && page.contains("value=\"tenant\""), "{page}");
    assert_eq!(page.matches("<script>").count(), 1, "the page's own: {page}");
    assert!(page.len() < 64 * 1024, "{} bytes", page.len());

    harness.broadcast().await.assert_status(202);
    let text = harness.admin("/metrics").await.text();
    let endpoints: BTreeSet<&str> =
        text.lines().filter_map(|line| line.split("endpoint=\"").nth(1)?.split('"').next()).collect();
    assert_eq!(endpoints, BTreeSet::from(["_other", "east", "eu", "tenant010", "tenant011"]));
    let metrics = harness.metrics().await;
    assert_counted(&metrics, "metric_labels_over_limit", &[("label", "endpoint")], 239);
    assert_counted(&metrics, "upstream_requests_total", &[("endpoint", "east")], 1);
    assert_counted(&metrics, "breaker_state", &[("endpoint", "_other"), ("state", "closed")], 1);
}

#[tokio::test]
async fn admin_listener_rejects_requests_of_browser_pages() {
    let harness = Harness::start(|options| {
        options.set("admin.allowed_hosts", "[\"scraper.internal\"]");
    })
    .await;
    let mut caller = Caller::connect(harness.admin_address()).await;
    for path in ["/status", "/metrics", "/"] {
        for (name, value, expected) in [
            ("host", "evil.example", 403),
            ("host", "", 403),
            ("host", "scraper.internal:9090", 200),
            ("host", "10.1.2.3:9090", 200),
            ("host", "localhost.", 200),
            ("origin", "http://127.0.0.1:9090", 403),
            ("sec-fetch-site", "cross-site", 403),
            ("sec-fetch-site", "same-site", 403),
            ("sec-fetch-site", "none", 200),
        ] {
            let response = caller.send(request("GET", path).header(name, value), "").await;
            assert_eq!(response.status, expected, "{path} {name}: {value}: {response:?}");
        }
        let link = request("GET", path).header("sec-fetch-site", "same-site").header("sec-fetch-mode", "navigate");
        assert_eq!(
            caller.send(link.header("sec-fetch-dest", "document"), "").await.status,
            200,
            "the link from the sandbox was rejected"
        );
    }
    for path in ["/livez", "/readyz"] {
        assert_eq!(caller.send(request("GET", path).header("host", "balancer.example"), "").await.status, 200);
        let mut raw = RawConnection::connect(harness.admin_address()).await;
        raw.write(format!("GET {path} HTTP/1.0\r\n\r\n")).await;
        assert_eq!(raw.response().await.unwrap().status, 200);
    }
    let mut raw = RawConnection::connect(harness.admin_address()).await;
    raw.write("GET /status HTTP/1.1\r\nhost: localhost\r\nhost: evil.example\r\n\r\n").await;
    assert_eq!(raw.response().await.unwrap().status, 400);
}

#[tokio::test]
async fn silent_connections_do_not_block_probes() {
    let harness = Harness::start(|_| {}).await;
    let mut first = RawConnection::connect(harness.admin_address()).await;
    first.write("GET /livez HTTP/1.1\r\n").await;
    let mut silent = Vec::new();
    for _ in 0..200 {
        silent.push(RawConnection::connect(harness.admin_address()).await);
    }
    assert_eq!(harness.admin("/livez").await.status, 200);
    // The oldest connection was closed.
    first.rest().await;
}

#[tokio::test]
async fn logs_one_json_line_per_request_without_user_names() {
    let builder = HarnessBuilder::start().await;
    let files = builder.sandbox.write_files(builder.folder.path(), &GatewayConfig::default()).unwrap();
    let arguments = ["run", "--config", files.config.to_str().unwrap(), "--set", "shutdown.delay=0s"];
    let process = Process::start(&arguments, &[], builder.folder.path()).await;
    process.wait_until_credentials_are("ready").await;
    let mut caller = Caller::connect(process.listener()).await;
    let target = "/api/hubs/chat/users/ann%40example.org/:send?api-version=2022-11-01";
    let builder = request("POST", target).header("content-type", "application/json").header("x-request-id", "id-1");
    caller.send(builder, BROADCAST_BODY).await.assert_status(202);
    caller
        .send(request("GET", "/nowhere").header("x-request-id", "id-2"), "")
        .await
        .assert_gateway_error(404, "unknown_path");
    process.terminate().await;
    let (_, log) = process.wait().await;
    let lines: Vec<Value> =
        log.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|err| panic!("{err}: {line}"))).collect();
    let line_of = |id: &str| {
        let mut found = lines.iter().filter(|line| line["request_id"] == id);
        let line = found.next().unwrap_or_else(|| panic!("no line of {id} in {log}")).clone();
        assert!(found.next().is_none(), "more than one line of {id}");
        line
    };
    let good = line_of("id-1");
    for (field, value) in [
        ("level", "INFO"),
        ("target", "signalr_gateway::access"),
        ("method", "POST"),
        ("operation", "user_send"),
        ("hub", "chat"),
        ("route", "default"),
        ("endpoint", "east"),
    ] {
        assert_eq!(good[field], value, "{good}");
    }
    assert_eq!((&good["status"], &good["request_bytes"]), (&202.into(), &BROADCAST_BODY.len().into()));
    assert!(good["duration_ms"].as_f64().unwrap() > 0.0 && good["timestamp"].is_string());
    let rejected = line_of("id-2");
    assert_eq!((&rejected["status"], &rejected["error.kind"]), (&404.into(), &"unknown_path".into()), "{rejected}");
    assert!(!log.contains("ann"), "the log names a user: {log}");
    assert!(!log.contains("world"), "the log contains a body: {log}");
}

#[tokio::test]
async fn access_log_can_be_limited_to_failures() {
    let builder = HarnessBuilder::start().await;
    let files = builder.sandbox.write_files(builder.folder.path(), &GatewayConfig::default()).unwrap();
    let config = files.config.to_str().unwrap();
    let arguments = ["run", "--config", config, "--set", "logging.access=failures", "--set", "shutdown.delay=0s"];
    let process = Process::start(&arguments, &[], builder.folder.path()).await;
    process.wait_until_credentials_are("ready").await;
    let mut caller = Caller::connect(process.listener()).await;
    caller.send(broadcast_request().header("x-request-id", "good"), BROADCAST_BODY).await.assert_status(202);
    caller
        .send(request("GET", "/nowhere").header("x-request-id", "bad"), "")
        .await
        .assert_gateway_error(404, "unknown_path");
    process.terminate().await;
    let (_, log) = process.wait().await;
    assert!(log.contains("\"request_id\":\"bad\"") && !log.contains("\"request_id\":\"good\""), "{log}");
}

#[tokio::test]
async fn access_log_can_sample_successes_and_keep_all_failures() {
    let builder = HarnessBuilder::start().await;
    let files = builder.sandbox.write_files(builder.folder.path(), &GatewayConfig::default()).unwrap();
    let config = files.config.to_str().unwrap();
    let arguments = ["run", "--config", config, "--set", "logging.access_percent=50", "--set", "shutdown.delay=0s"];
    let process = Process::start(&arguments, &[], builder.folder.path()).await;
    process.wait_until_credentials_are("ready").await;
    let mut caller = Caller::connect(process.listener()).await;
    for _ in 0..100 {
        caller.send(broadcast_request().header("x-request-id", "good"), BROADCAST_BODY).await.assert_status(202);
    }
    for _ in 0..3 {
        caller
            .send(request("GET", "/nowhere").header("x-request-id", "bad"), "")
            .await
            .assert_gateway_error(404, "unknown_path");
    }
    process.terminate().await;
    let (_, log) = process.wait().await;
    let lines_of = |id: &str| log.matches(&format!("\"request_id\":\"{id}\"")).count();
    assert_eq!(lines_of("bad"), 3);
    // With random sampling, none or all of a hundred are logged once in 10^30 runs.
    assert!((1..100).contains(&lines_of("good")), "{}", lines_of("good"));
}

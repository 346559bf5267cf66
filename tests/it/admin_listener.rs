//! The admin listener: liveness, readiness, the status of many endpoints, and who may ask.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use signalr_gateway::sandbox::{Fault, FaultKind, TENANT_C};

use crate::support::{Caller, Harness, HarnessBuilder, RawConnection, request, wait_until};

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
    let received =
        || -> u64 { harness.sandbox.endpoints().iter().map(|endpoint| endpoint.server.journal().received()).sum() };
    let before = received();
    for _ in 0..20 {
        harness.admin("/readyz").await;
    }
    // The gateway's own probes are few.
    assert!(received() - before < 20, "the readiness probe connects to endpoints");
    harness.sandbox.entra().faults().clear().await;
    wait_until("it is ready", async || (harness.admin("/readyz").await.status == 200).then_some(())).await;
    assert!(harness.arrivals("east").is_empty(), "a call was sent");

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
    metrics.assert_sum("metric_labels_over_limit", &[("label", "endpoint")], 239);
    metrics.assert_sum("upstream_requests_total", &[("endpoint", "east")], 1);
    metrics.assert_sum("breaker_state", &[("endpoint", "_other"), ("state", "closed")], 1);
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

//! Prometheus: the rules, the alerts and the dashboard with what a gateway really exposes.

use std::path::Path;
use std::process::Command;

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tempfile::TempDir;

use super::server::{Server, folder, free_address};
use super::support::{Caller, Harness, broadcast_request, wait_until};

fn config(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config").join(file)
}

/// A Prometheus that scrapes a gateway every second.
struct Prometheus {
    server: Server,
    _folder: TempDir,
}

impl Prometheus {
    async fn start(harness: &Harness) -> Self {
        let (folder, address) = (folder(), free_address());
        let file = folder.path().join("prometheus.yaml");
        let text = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: ['{}']\n\
             scrape_configs: [{{ job_name: gateway, static_configs: [{{ targets: ['{}'] }}] }}]\n",
            config("prometheus/alerts.yaml").display(),
            harness.admin_address()
        );
        std::fs::write(&file, text).unwrap();
        let arguments = [
            format!("--config.file={}", file.display()),
            format!("--storage.tsdb.path={}", folder.path().join("data").display()),
            format!("--web.listen-address={address}"),
            "--enable-feature=exemplar-storage".to_owned(),
        ];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let server = Server::start("/usr/bin/prometheus", &arguments, address, folder.path()).await;
        Self { server, _folder: folder }
    }

    /// Returns `data` of an answer of the API, or its error.
    async fn get(&self, target: &str) -> Result<Value, String> {
        let answer = Caller::connect(self.server.address()).await.call("GET", target).await;
        // While it reads its storage at start.
        if answer.status == 503 {
            return Err("not ready".to_owned());
        }
        let answer = answer.json();
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"].clone()),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// Returns the series that a query returns.
    async fn query(&self, query: &str) -> Result<Vec<Value>, String> {
        let query = utf8_percent_encode(query, NON_ALPHANUMERIC);
        let data = self.get(&format!("/api/v1/query?query={query}")).await?;
        Ok(data["result"].as_array().unwrap().clone())
    }

    /// Waits until the gateway was scraped several times since its last call, so that rates have a value.
    async fn wait_for_scrapes(&self) {
        wait_until("the gateway was scraped five times", async || {
            let series = self.query("count_over_time(up[1m]) >= 5 and up == 1").await.ok()?;
            (!series.is_empty()).then_some(())
        })
        .await;
    }
}

/// A gateway with a fan-out, a named route and a canary that has served calls of several kinds.
async fn gateway() -> Harness {
    let harness = Harness::start(|options| {
        options.append_toml(
            "[[routes]]\nname = \"both\"\npick = \"all\"\nendpoints = [\"east\", \"west\"]\nmatch = { hub = \"all\" }\n\
             [[routes]]\nname = \"east\"\nendpoints = [\"east\"]\n\
             [endpoints.east.canary]\ninterval = \"10s\"\n",
        );
    })
    .await;
    harness.broadcast().await.assert_status(202);
    harness.call("POST", "/api/hubs/all/:send").await;
    harness.call("GET", "/nothing").await.assert_gateway_error(404, "unknown_path");
    harness
}

#[test]
fn each_alert_fires_when_its_test_says() {
    let output = Command::new("/usr/bin/promtool")
        .args(["test", "rules", config("prometheus/alerts_test.yaml").to_str().unwrap()])
        .output()
        .unwrap_or_else(|err| panic!("promtool: {err}; tests/peers/run installs it"));
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&[output.stdout, output.stderr].concat()));
}

/// Queries about what this gateway does not have: callers by certificate, certificates and files.
const ABSENT: [&str; 3] = [
    "signalr_gateway_caller_rate_limited_total",
    "signalr_gateway_credential_not_after_timestamp_seconds",
    "signalr_gateway_assertion_file_expiry_timestamp_seconds",
];

#[tokio::test]
async fn every_query_of_the_dashboard_has_series_of_a_gateway_that_has_served_calls() {
    let harness = gateway().await;
    let prometheus = Prometheus::start(&harness).await;
    prometheus.wait_for_scrapes().await;
    let dashboard: Value = serde_json::from_slice(&std::fs::read(config("grafana/dashboard.json")).unwrap()).unwrap();
    let targets = dashboard["panels"].as_array().unwrap().iter().filter_map(|panel| panel["targets"].as_array());
    let queries: Vec<&str> = targets.flatten().map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(queries.len() > 60, "only {} queries", queries.len());
    let mut wrong = Vec::new();
    for query in queries {
        let filled = ["$job", "$instance", "$endpoint", "$credential"]
            .iter()
            .fold(query.replace("$__rate_interval", "1m"), |query, name| {
                query.replace(&format!("\"{name}\""), "\".*\"")
            });
        match prometheus.query(&filled).await {
            Ok(series) if !series.is_empty() || ABSENT.iter().any(|name| query.contains(name)) => {}
            Ok(_) => wrong.push(format!("no series: {filled}")),
            Err(err) => wrong.push(format!("{err}: {filled}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[tokio::test]
async fn every_rule_is_evaluated_and_a_healthy_gateway_fires_no_alert() {
    let harness = gateway().await;
    let prometheus = Prometheus::start(&harness).await;
    prometheus.wait_for_scrapes().await;
    let groups = wait_until("every rule was evaluated", async || {
        let groups = prometheus.get("/api/v1/rules").await.unwrap()["groups"].as_array().unwrap().clone();
        let mut rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
        rules.all(|rule| rule["health"] != "unknown").then_some(groups)
    })
    .await;
    let rules: Vec<&Value> = groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).collect();
    assert!(rules.len() > 30, "only {} rules", rules.len());
    for rule in rules {
        let name = rule["name"].as_str().unwrap();
        assert_eq!(rule["health"], "ok", "{name}: {}", rule["lastError"]);
        match rule["type"].as_str() {
            Some("alerting") => assert_eq!(rule["state"], "inactive", "{name}: {}", rule["alerts"]),
            _ => assert!(!prometheus.query(name).await.unwrap().is_empty(), "{name} has no series"),
        }
    }
}

#[tokio::test]
async fn prometheus_keeps_the_traces_of_slow_calls_as_exemplars() {
    let harness = gateway().await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let traced = broadcast_request().header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"));
    Caller::connect(harness.listener("default")).await.send(traced, "{}").await;
    let prometheus = Prometheus::start(&harness).await;
    for metric in ["request_duration_seconds", "upstream_duration_seconds"] {
        let query = format!("/api/v1/query_exemplars?query=signalr_gateway_{metric}_bucket&start=0&end=9999999999");
        let found = wait_until("Prometheus has an exemplar", async || {
            let series = prometheus.get(&query).await.ok()?;
            series[0]["exemplars"][0]["labels"]["trace_id"].as_str().map(str::to_owned)
        })
        .await;
        assert_eq!(found, trace, "{metric}");
    }
}

#[tokio::test]
async fn an_outage_of_an_endpoint_is_pending_within_seconds() {
    let harness = gateway().await;
    let prometheus = Prometheus::start(&harness).await;
    prometheus.wait_for_scrapes().await;
    let fault = signalr_gateway::sandbox::Fault::always(signalr_gateway::sandbox::FaultKind::status(500));
    harness.endpoint("east").server.faults().set(fault);
    let state = async |name: &str| {
        let query = format!("ALERTS{{alertname=\"{name}\"}}");
        prometheus.query(&query).await.unwrap().first().map(|alert| alert["metric"]["alertstate"].clone())
    };
    wait_until("the alerts about the endpoint are pending", async || {
        Caller::connect(harness.listener("default")).await.send(broadcast_request(), "{}").await;
        let down = state("SignalrGatewayEndpointDown").await?;
        let errors = state("SignalrGatewayHighErrorRatio").await?;
        (down == "pending" && errors == "pending").then_some(())
    })
    .await;
}

//! Reloads: changes take effect, unchanged parts keep running, and an invalid configuration changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signalr_gateway::sandbox::{Fault, FaultKind, Files, GatewayConfig};

use crate::support::{BROADCAST_BODY, Caller, HarnessBuilder, Process, broadcast_request};

/// Starts the real binary in front of a sandbox.
async fn start(builder: &HarnessBuilder) -> (Process, Files) {
    let files = builder.write_files(&GatewayConfig::default());
    // Only probes that a reload starts are seen.
    let process = Process::start_gateway(&files.config, &["health.probe_interval=1h"]).await;
    process.wait_until_credentials_are("ready").await;
    (process, files)
}

/// Writes the configuration with `more` at its end.
fn rewrite(builder: &HarnessBuilder, files: &Files, more: &str) {
    let config = GatewayConfig { more: more.to_owned(), ..GatewayConfig::default() };
    std::fs::write(&files.config, builder.sandbox.gateway_config(&config)).unwrap();
}

#[tokio::test]
async fn reload_removes_metrics_of_removed_endpoints() {
    let builder = HarnessBuilder::start().await;
    let (process, files) = start(&builder).await;
    rewrite(&builder, &files, &route_to("west"));
    process.hang_up().await;
    process.wait_for_reloads("success", 1.0).await;
    let mut caller = Caller::connect(process.listener()).await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    let names_of_west = ["endpoint=\"west\"", "credential=\"west\"", "route=\"to-west\""];
    let series = async || {
        let metrics = process.metrics().await;
        let is_of_west = |series: &&&str| names_of_west.iter().any(|name| series.contains(name));
        metrics.series().iter().filter(is_of_west).map(|series| (*series).to_owned()).collect::<Vec<_>>()
    };
    assert!(names_of_west.len() < series().await.len());

    // A request that starts under the old configuration and ends under the new one.
    let west = &builder.sandbox.endpoint("west").unwrap().server;
    west.faults().set(Fault::times(1, FaultKind::Delay { delay_ms: 500 }).on_path("/api/hubs"));
    let late = tokio::spawn(async move { caller.send(broadcast_request(), BROADCAST_BODY).await });
    west.journal().wait_for(2, |entry| entry.target.contains(":send")).await;
    let text = std::fs::read_to_string(&files.config).unwrap();
    let is_kept = |table: &&str| !table.contains(".west]") && !table.starts_with("[[routes]]");
    let tables: Vec<&str> = text.split("\n\n").filter(is_kept).collect();
    std::fs::write(&files.config, tables.join("\n\n") + "\n" + &route_to("east")).unwrap();
    process.hang_up().await;
    process.wait_for_reloads("success", 2.0).await;
    assert_eq!(series().await, Vec::<String>::new());
    late.await.unwrap().assert_status(202);
    assert_eq!(series().await, Vec::<String>::new());
}

#[tokio::test]
async fn idempotency_keys_survive_a_reload() {
    let both = "[[routes]]\nname = \"both\"\npick = \"all\"\nendpoints = [\"east\", \"west\"]\n";
    let builder = HarnessBuilder::start().await;
    let (process, files) = start(&builder).await;
    rewrite(&builder, &files, both);
    process.hang_up().await;
    process.wait_for_reloads("success", 1.0).await;
    let keyed = async || {
        let mut caller = Caller::connect(process.listener()).await;
        caller.send(broadcast_request().header("idempotency-key", "one"), BROADCAST_BODY).await.assert_status(202);
    };
    keyed().await;
    rewrite(&builder, &files, &format!("{both}[limits]\nmax_body = \"512KiB\"\n"));
    process.hang_up().await;
    process.wait_for_reloads("success", 2.0).await;
    keyed().await;
    for endpoint in builder.sandbox.endpoints() {
        let entries = endpoint.server.journal().entries();
        assert_eq!(entries.iter().filter(|entry| entry.target.contains(":send")).count(), 1, "{}", endpoint.name());
    }
}

#[tokio::test]
async fn counts_from_before_a_reload_stay_visible_while_old_requests_run() {
    let builder = HarnessBuilder::start().await;
    let (process, files) = start(&builder).await;
    let east = &builder.sandbox.endpoint("east").unwrap().server;
    Caller::connect(process.listener()).await.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    east.faults().set(Fault::times(1, FaultKind::Hang).on_path("/api/hubs"));
    let mut caller = Caller::connect(process.listener()).await;
    let hanging = tokio::spawn(async move { caller.try_send(broadcast_request(), BROADCAST_BODY).await });
    east.journal().wait_for(2, |entry| entry.target.contains(":send")).await;
    rewrite(&builder, &files, &route_to("east"));
    process.hang_up().await;
    process.wait_for_reloads("success", 1.0).await;
    let metrics = process.metrics().await;
    let sum = |name, labels: &[(&str, &str)]| metrics.sum(name, labels);
    assert!((sum("upstream_requests_total", &[("endpoint", "east")]) - 1.0).abs() < f64::EPSILON);
    assert!((sum("requests_in_flight", &[]) - 1.0).abs() < f64::EPSILON);
    assert!((sum("retry_budget_ratio", &[("endpoint", "east")]) - 1.0).abs() < 1e-6, "{metrics:?}");
    hanging.abort();
}

fn route_to(endpoint: &str) -> String {
    format!("[[routes]]\nname = \"to-{endpoint}\"\nendpoints = [\"{endpoint}\"]\n")
}

#[tokio::test]
async fn reload_applies_a_changed_file_and_keeps_unchanged_parts() {
    let builder = HarnessBuilder::start().await;
    let (process, files) = start(&builder).await;
    let mut caller = Caller::connect(process.listener()).await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    let token_requests = || builder.sandbox.entra().journal().entries().len();
    let before = token_requests();

    // The gateway notices the change without a signal.
    rewrite(&builder, &files, &route_to("west"));
    process.wait_for_reloads("success", 1.0).await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    let west = &builder.sandbox.endpoint("west").unwrap().server;
    west.journal().wait_for(1, |entry| entry.target.contains(":send")).await;
    assert_eq!(token_requests(), before, "tokens were requested again");
    assert!(process.log().contains("route to-west added"), "{}", process.log());
    process.terminate().await;
    assert!(process.wait().await.0.success());
}

#[tokio::test]
async fn changed_limit_of_an_endpoint_takes_effect_and_its_connections_stay_open() {
    let builder = HarnessBuilder::start().await;
    let (process, files) = start(&builder).await;
    rewrite(&builder, &files, &route_to("west"));
    process.wait_for_reloads("success", 1.0).await;
    let mut caller = Caller::connect(process.listener()).await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    let connects = async || process.metrics().await.sum("upstream_connects_total", &[("endpoint", "west")]);
    let before = connects().await;

    let limits = "[limits]\nendpoint_max_requests = 9\nendpoint_rate = { per_second = 1, burst = 2 }\n";
    rewrite(&builder, &files, &(route_to("west") + limits));
    process.wait_for_reloads("success", 2.0).await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    assert!((connects().await - before).abs() < f64::EPSILON, "it connected again");
    let mut codes = Vec::new();
    for _ in 0..9 {
        codes.push(caller.send(broadcast_request(), BROADCAST_BODY).await.status);
    }
    assert!(codes.iter().any(|code| *code == 429), "{codes:?}");
}

#[tokio::test]
async fn invalid_configuration_is_reported_and_changes_nothing() {
    let builder = HarnessBuilder::start().await;
    let (process, files) = start(&builder).await;
    rewrite(&builder, &files, "[[routes]]\nname = \"r\"\nendpoints = [\"nowhere\"]\n");
    process.hang_up().await;
    process.wait_for_reloads("failure", 1.0).await;
    Caller::connect(process.listener()).await.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    let status = process.status().await;
    let problem = status["refused_reload"].as_str().unwrap();
    assert!(problem.contains("there is no endpoint `nowhere`"), "{problem}");
    assert!((process.metrics().await.sum("config_last_reload_successful", &[])).abs() < f64::EPSILON);

    rewrite(&builder, &files, "");
    process.hang_up().await;
    process.wait_for_reloads("success", 1.0).await;
    let status = process.status().await;
    assert_eq!(status.get("refused_reload"), None);
}

/// 100 reloads under load, every third one invalid: no request fails, and unchanged parts keep running.
#[tokio::test]
async fn many_reloads_under_load_fail_no_request() {
    let builder = HarnessBuilder::start().await;
    let (process, files) = start(&builder).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let listener = process.listener();
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let is_over = Arc::clone(&is_over);
            tokio::spawn(async move {
                let mut caller = Caller::connect(listener).await;
                let mut calls = 0;
                while !is_over.load(Ordering::Relaxed) {
                    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    let (mut successes, mut failures) = (0.0, 0.0);
    for round in 0..100 {
        match round % 3 {
            0 => rewrite(&builder, &files, &route_to("east")),
            1 => rewrite(&builder, &files, &route_to("west")),
            _ => rewrite(&builder, &files, "bogus = true\n"),
        }
        process.hang_up().await;
        if round % 3 == 2 {
            failures += 1.0;
            process.wait_for_reloads("failure", failures).await;
        } else {
            successes += 1.0;
            process.wait_for_reloads("success", successes).await;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    let mut calls = 0;
    for caller in callers {
        calls += caller.await.expect("a request failed");
    }
    assert!(calls > 100, "only {calls} calls succeeded");
    for endpoint in builder.sandbox.endpoints() {
        let entries = endpoint.server.journal().entries();
        let probes = entries.iter().filter(|entry| entry.path() == "/api/health").count();
        assert_eq!(probes, 1, "the probes of {} were restarted", endpoint.name());
    }
}

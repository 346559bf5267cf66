//! Canaries: messages to a client of the gateway's own, and what metrics, log and status say about them.

use serde_json::Value;
use signalr_gateway::sandbox::{Endpoint, Fault, FaultKind, GatewayConfig};

use crate::support::{HarnessBuilder, Process, wait_until};

const HUB: &str = "signalr_gateway_canary";

/// Returns the canary of `east` on `/status`.
async fn canary(process: &Process) -> Value {
    let status = process.status().await;
    let east = status["endpoints"].as_array().unwrap().iter().find(|endpoint| endpoint["name"] == "east");
    east.unwrap()["canary"].clone()
}

async fn wait_for(process: &Process, state: &str) -> Value {
    let found = async || Some(canary(process).await).filter(|canary| canary["state"] == state);
    wait_until(&format!("the canary is {state}"), found).await
}

fn clients(endpoint: &Endpoint) -> usize {
    endpoint.hubs.connection_counts().get(HUB).copied().unwrap_or_default()
}

#[tokio::test]
async fn a_canary_tells_when_messages_stop_arriving_and_when_they_arrive_again() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let without = std::fs::read_to_string(&files.config).unwrap();
    let with =
        without.replacen("credential = \"east\"\n", "credential = \"east\"\ncanary = { interval = \"10s\" }\n", 1);
    assert_ne!(with, without);
    std::fs::write(&files.config, with).unwrap();
    let process = Process::start_gateway(&files.config, &[]).await;
    let east = builder.sandbox.endpoint("east").unwrap();

    let ok = wait_for(&process, "ok").await;
    assert!(ok["hub"] == HUB && ok["delivery_ms"].as_f64().is_some_and(|millis| millis > 0.0), "{ok}");
    let labels = [("endpoint", "east")];
    let metrics = process.metrics().await;
    assert!(metrics.sum("canary_success", &labels) > 0.5);
    assert!(metrics.sum("canary_delivery_seconds", &labels) > 0.0);
    assert!(!metrics.series().iter().any(|series| series.contains("canary") && series.contains("west")));
    assert_eq!(clients(east), 1, "it keeps one connection");

    let refused = Fault::always(FaultKind::status(503)).on_path(&format!("/api/hubs/{HUB}/connections"));
    east.server.faults().set(refused);
    let failing = wait_for(&process, "failing").await;
    assert!(failing["stage"] == "send" && failing["problem"].as_str().unwrap().contains("503"), "{failing}");
    assert!(process.metrics().await.sum("canary_success", &labels) < 0.5);
    process.wait_for_log("the canary fails").await;
    let status = process.status().await;
    let verdict = &status["verdict"];
    assert!(verdict["state"] == "attention", "{verdict}");
    assert!(
        verdict["lines"][0].as_str().unwrap().contains("canary messages of endpoint east do not arrive"),
        "{verdict}"
    );
    east.server.faults().clear().await;
    wait_for(&process, "ok").await;
    process.wait_for_log("the canary's messages arrive again").await;
    let status = process.status().await;
    assert!(!status["verdict"].to_string().contains("canary"), "{status}");
    assert_eq!(clients(east), 1, "it has connected again");

    std::fs::write(&files.config, without).unwrap();
    process.hang_up().await;
    process.wait_for_reloads("success", 1.0).await;
    wait_until("the client is gone", async || (clients(east) == 0).then_some(())).await;
    assert_eq!(canary(&process).await, Value::Null);
    assert!(!process.metrics().await.series().iter().any(|series| series.contains("canary")));
}

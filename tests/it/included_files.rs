//! Tenants that are added, changed and removed by files, while the gateway serves.

use std::path::{Path, PathBuf};

use signalr_gateway::sandbox::{Files, GatewayConfig};

use crate::support::{BROADCAST_BODY, Caller, HarnessBuilder, Process, broadcast_request};

/// Moves the endpoint `west` to an included file, and starts the real binary.
async fn start(builder: &HarnessBuilder) -> (Process, Files, PathBuf, String) {
    let files = builder.write_files(&GatewayConfig::default());
    let text = std::fs::read_to_string(&files.config).unwrap();
    let (west, rest): (Vec<&str>, Vec<&str>) = text.split("\n\n").partition(|table| table.contains(".west]"));
    let main = format!("include = [\"tenants.d/*.toml\"]\n{}\n\n{}", rest.join("\n\n"), route("rest", "*", "east"));
    std::fs::write(&files.config, main).unwrap();
    let folder = files.config.parent().unwrap().join("tenants.d");
    std::fs::create_dir(&folder).unwrap();
    let west = west.join("\n\n") + "\n\n" + &route("west", "chat", "west");
    let process = Process::start_gateway(&files.config, &[]).await;
    process.wait_until_credentials_are("ready").await;
    (process, files, folder, west)
}

fn route(name: &str, hub: &str, endpoint: &str) -> String {
    format!("[[routes]]\nname = \"{name}\"\nmatch = {{ hub = \"{hub}\" }}\nendpoints = [\"{endpoint}\"]\n")
}

fn write(folder: &Path, name: &str, text: &str) {
    // As most programs do, so that the file is never seen half written.
    std::fs::write(folder.join(format!(".{name}")), text).unwrap();
    std::fs::rename(folder.join(format!(".{name}")), folder.join(name)).unwrap();
}

#[tokio::test]
async fn a_tenant_is_added_and_removed_by_a_file_and_the_others_keep_their_connections() {
    let builder = HarnessBuilder::start().await;
    let (process, _files, folder, west_file) = start(&builder).await;
    let endpoint = |name: &str| &builder.sandbox.endpoint(name).unwrap().server;
    let (east, west) = (endpoint("east"), endpoint("west"));
    let mut caller = Caller::connect(process.listener()).await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    east.journal().wait_for(1, |entry| entry.target.contains(":send")).await;
    let connections = process.metrics().await.sum("upstream_connects_total", &[("endpoint", "east")]);

    write(&folder, "west.toml", &west_file);
    process.wait_for_reloads("success", 1.0).await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    west.journal().wait_for(1, |entry| entry.target.contains(":send")).await;

    // A file that is invalid changes nothing, and the reason names it.
    write(&folder, "bad.toml", "[endpoints.bad]\nurl = 5\n");
    process.wait_for_reloads("failure", 1.0).await;
    process.wait_for_log("bad.toml:2").await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    west.journal().wait_for(2, |entry| entry.target.contains(":send")).await;

    std::fs::remove_file(folder.join("bad.toml")).unwrap();
    std::fs::remove_file(folder.join("west.toml")).unwrap();
    process.wait_for_reloads("success", 2.0).await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    east.journal().wait_for(2, |entry| entry.target.contains(":send")).await;
    let metrics = process.metrics().await;
    assert!((metrics.sum("upstream_connects_total", &[("endpoint", "east")]) - connections).abs() < 0.5);
    assert!(metrics.sum("upstream_connects_total", &[("endpoint", "west")]).abs() < 0.5);
}

#[tokio::test]
async fn a_disabled_endpoint_drops_its_token_and_its_calls_are_answered_503() {
    let builder = HarnessBuilder::start().await;
    let (process, _files, folder, west_file) = start(&builder).await;
    let west = &builder.sandbox.endpoint("west").unwrap().server;
    write(&folder, "west.toml", &west_file);
    process.wait_for_reloads("success", 1.0).await;
    let mut caller = Caller::connect(process.listener()).await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    west.journal().wait_for(1, |entry| entry.target.contains(":send")).await;

    let disabled = west_file.replacen("[endpoints.west]\n", "[endpoints.west]\nenabled = false\n", 1);
    assert_ne!(disabled, west_file);
    write(&folder, "west.toml", &disabled);
    process.wait_for_reloads("success", 2.0).await;
    let response = caller.send(broadcast_request(), BROADCAST_BODY).await;
    response.assert_gateway_error(503, "endpoint_disabled");
    let status = process.status().await;
    assert_eq!(status["disabled_endpoints"][0]["name"], "west");
    assert!(!status["credentials"].to_string().contains("west"), "{status}");
    let metrics = process.metrics().await;
    assert!((metrics.sum("rejected_total", &[("reason", "endpoint_disabled")]) - 1.0).abs() < 0.5);
    assert!(metrics.sum("upstream_connections", &[("endpoint", "west")]).abs() < 0.5);

    write(&folder, "west.toml", &west_file);
    process.wait_for_reloads("success", 3.0).await;
    process.wait_until_credentials_are("ready").await;
    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
    west.journal().wait_for(2, |entry| entry.target.contains(":send")).await;
}

//! The sandbox as its container image runs it, and as another program starts and stops it.

use std::net::SocketAddr;
use std::process::Stdio;

use serde_json::Value;
use tokio::process::Command;

use crate::support::{BROADCAST_BODY, BROADCAST_PATH, Caller, wait_until, with_timeout};

fn address(ready: &Value, key: &str) -> SocketAddr {
    let (_, authority) = ready[key].as_str().unwrap().split_once("://").unwrap();
    authority.replace("localhost", "127.0.0.1").parse().unwrap()
}

#[tokio::test]
async fn sandbox_of_the_image_is_described_over_http_and_stops_when_its_stdin_is_closed() {
    let folder = tempfile::tempdir().unwrap();
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/config/sandbox-image.toml");
    // Free ports, because other tests run beside this one.
    let text = std::fs::read_to_string(shipped).unwrap();
    let ports = ["9400", "9401", "9402", "9403", "9404", "9405", "9411", "9412", "8080", "9090"];
    let text = ports.iter().fold(text, |text, port| {
        assert!(text.contains(port), "{port}");
        text.replace(port, "0")
    });
    let (config, ready_file) = (folder.path().join("sandbox.toml"), folder.path().join("ready.json"));
    std::fs::write(&config, text).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_signalr-gateway"))
        .args(["sandbox", "--public-host", "localhost", "--exit-with-stdin", "--config"])
        .arg(&config)
        .arg("--ready-file")
        .arg(&ready_file)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let ready = wait_until("the sandbox is ready", async || {
        assert!(child.try_wait().unwrap().is_none(), "it ended");
        std::fs::read(&ready_file).ok()
    });
    let ready: Value = serde_json::from_slice(&ready.await).unwrap();
    // It binds every address, and others reach it by its public host.
    assert!(ready["gateway"].as_str().unwrap().starts_with("http://localhost:"), "{}", ready["gateway"]);
    let served = Caller::connect(address(&ready, "control")).await.call("GET", "/sandbox/ready").await.json();
    assert_eq!(served, ready);
    let mut caller = Caller::connect(address(&ready, "gateway")).await;
    assert_eq!(caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.status, 202);
    drop(child.stdin.take());
    assert!(with_timeout("it stops", child.wait()).await.unwrap().success());
    assert!(!std::path::Path::new(ready["files"].as_str().unwrap()).exists(), "the temporary folder remains");
}

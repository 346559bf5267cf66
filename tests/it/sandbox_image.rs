//! The sandbox as its container image runs it, and as another program starts and stops it.

use std::net::SocketAddr;

use serde_json::Value;

use crate::support::{BROADCAST_BODY, BROADCAST_PATH, Caller, Program};

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
    let config = folder.path().join("sandbox.toml");
    std::fs::write(&config, text).unwrap();
    let config = config.to_str().unwrap();
    let arguments = ["sandbox", "--public-host", "localhost", "--exit-with-stdin", "--config", config];
    let mut sandbox = Program::new(&arguments).piped_stdin().start(folder.path()).await;
    let ready = sandbox.ready.clone();
    // It binds every address, and others reach it by its public host.
    assert!(ready["gateway"].as_str().unwrap().starts_with("http://localhost:"), "{}", ready["gateway"]);
    let served = Caller::connect(address(&ready, "control")).await.call("GET", "/sandbox/ready").await.json();
    assert_eq!(served, ready);
    let mut caller = Caller::connect(address(&ready, "gateway")).await;
    assert_eq!(caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.status, 202);
    sandbox.close_stdin();
    assert!(sandbox.wait().await.0.success());
    assert!(!std::path::Path::new(ready["files"].as_str().unwrap()).exists(), "the temporary folder remains");
}

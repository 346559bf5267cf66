//! A sandbox with a description file, as a team uses it in its own tests: the real binary, with its own gateway or a
//! separate one in front.

use std::path::Path;

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::support::{BROADCAST_BODY, BROADCAST_PATH, Caller, Process, run, with_timeout};

fn shipped() -> String {
    format!("{}/config/sandbox.toml", env!("CARGO_MANIFEST_DIR"))
}

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).to_str().unwrap().to_owned()
}

fn authority(ready: &Value, key: &str) -> std::net::SocketAddr {
    let authority = ready[key].as_str().unwrap().strip_prefix("http://").unwrap();
    authority.replace("localhost", "127.0.0.1").parse().unwrap()
}

/// Starts the sandbox of the shipped description file, with a gateway in front of it.
async fn start_shipped(folder: &Path) -> Process {
    let (files, free) = (path(folder, "files"), "127.0.0.1:0");
    let arguments = ["sandbox", "--config", &shipped(), "--files", &files, "--listen", free, "--admin", free];
    Process::start(&arguments, &[], folder).await
}

#[tokio::test]
async fn sandbox_of_a_description_file_serves_with_a_gateway_in_front() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = start_shipped(folder.path()).await;
    let entra = sandbox.ready["entra"].as_str().unwrap();
    assert!(entra.starts_with("https://localhost:"), "{entra}");
    let mut caller = Caller::connect(authority(&sandbox.ready, "gateway")).await;
    assert_eq!(caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.status, 202);
    // The audience of client tokens is the URL that clients use.
    let token = caller.call("POST", "/api/hubs/chat/:generateToken?api-version=2024-12-01").await.json();
    assert!(token["token"].is_string(), "{token}");
    // The written files are kept for other programs.
    for (file, expected) in [("gateway-secret", "not-a-secret"), ("east-access-key", "not-an-access-key-of-anything")] {
        assert_eq!(std::fs::read_to_string(folder.path().join("files").join(file)).unwrap(), expected);
    }
    assert!(folder.path().join("files/cluster-assertion.jwt").exists());
    sandbox.terminate().await;
    assert!(sandbox.wait().await.0.success());
    assert!(folder.path().join("files/ca.pem").exists());
}

#[tokio::test]
async fn example_of_many_tenants_in_the_guide_answers_as_it_says() {
    let folder = tempfile::tempdir().unwrap();
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/config/guide/emulator.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, example) = page.split_once("```toml sandbox\n# customers.toml\n").unwrap();
    let file = path(folder.path(), "customers.toml");
    std::fs::write(&file, example.split_once("```").unwrap().0).unwrap();
    let free = "127.0.0.1:0";
    let sandbox =
        Process::start(&["sandbox", "--config", &file, "--listen", free, "--admin", free], &[], folder.path()).await;
    assert_eq!(sandbox.ready["endpoints"].as_object().unwrap().len(), 1000);
    let mut caller = Caller::connect(authority(&sandbox.ready, "gateway")).await;
    for (name, status, kind) in [
        ("customer1", 202, None),
        ("customer1000", 202, None),
        ("customer7", 503, Some("token_unavailable")),
        ("customer8", 503, Some("token_unavailable")),
        ("nobody", 404, Some("no_endpoint")),
    ] {
        let target = format!("/api/hubs/{name}_chat/:send?api-version=2022-11-01");
        let response = caller.post(&target, "application/json", BROADCAST_BODY).await;
        assert_eq!((response.status.as_u16(), response.header("signalr-gateway-error")), (status, kind), "{name}");
    }
}

/// Connects a WebSocket client. URL and token come from a negotiation.
async fn client(sandbox: &Process, user: &str) -> WebSocketStream<TcpStream> {
    let control = authority(&sandbox.ready, "control");
    let target = format!("/endpoints/east/negotiate?hub=chat&user={user}");
    let negotiated = Caller::connect(control).await.call("POST", &target).await.json();
    let url = negotiated["url"].as_str().unwrap().replace("http://", "ws://");
    let url = format!("{url}&access_token={}", negotiated["accessToken"].as_str().unwrap());
    let stream = TcpStream::connect(control).await.unwrap();
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.unwrap();
    socket.send(Message::text("{\"protocol\":\"json\",\"version\":1}\u{1e}")).await.unwrap();
    assert_eq!(record(&mut socket).await, "{}\u{1e}");
    socket
}

async fn record(socket: &mut WebSocketStream<TcpStream>) -> String {
    let message = with_timeout("a record", socket.next()).await.unwrap().unwrap();
    message.into_text().unwrap().to_string()
}

#[tokio::test]
async fn client_receives_messages_of_the_group_in_the_description_file() {
    let folder = tempfile::tempdir().unwrap();
    let sandbox = start_shipped(folder.path()).await;
    let (mut ann, mut stranger) = (client(&sandbox, "ann").await, client(&sandbox, "stranger").await);
    let mut gateway = Caller::connect(authority(&sandbox.ready, "gateway")).await;
    for (to, number) in [("groups/berlin/", 1), ("groups/operators/", 2), ("", 3)] {
        let target = format!("/api/hubs/Chat/{to}:send?api-version=2024-12-01");
        let body = format!("{{\"target\":\"t\",\"arguments\":[{number}]}}");
        assert_eq!(gateway.post(&target, "application/json", body).await.status, 202);
    }
    let sent = |number: u8| format!("{{\"type\":1,\"target\":\"t\",\"arguments\":[{number}]}}\u{1e}");
    let mut got = String::new();
    // Queued records arrive in one frame.
    while got.len() < sent(0).len() * 3 {
        got += &record(&mut ann).await;
    }
    assert_eq!(got, [sent(1), sent(2), sent(3)].concat());
    assert_eq!(record(&mut stranger).await, sent(3), "a client in no group misses a broadcast");
}

#[tokio::test]
async fn sandbox_of_a_description_file_serves_a_separate_gateway() {
    let folder = tempfile::tempdir().unwrap();
    let files = path(folder.path(), "files");
    let arguments = ["sandbox", "--config", &shipped(), "--files", &files, "--no-gateway"];
    let sandbox = Process::start(&arguments, &[], folder.path()).await;
    assert_eq!((&sandbox.ready["gateway"], &sandbox.ready["config"]), (&Value::Null, &Value::Null));
    let (entra, west) = (&sandbox.ready["entra"], &sandbox.ready["endpoints"]["west"]);
    let text = format!(
        "[listeners.default]\nbind = \"127.0.0.1:0\"\n[admin]\nbind = \"127.0.0.1:0\"\n\
         [credentials.northwind]\nkind = \"federated\"\ntenant = \"33333333-cccc-4ccc-8ccc-333333333333\"\n\
         client_id = \"44444444-dddd-4ddd-8ddd-444444444444\"\ncloud = \"custom\"\nauthority = {entra}\n\
         ca_file = \"files/ca.pem\"\nassertion = {{ source = \"file\", path = \"files/cluster-assertion.jwt\" }}\n\
         [endpoints.west]\nurl = {west}\ncredential = \"northwind\"\nca_file = \"files/ca.pem\"\n"
    );
    std::fs::write(folder.path().join("gateway.toml"), text).unwrap();
    let config = path(folder.path(), "gateway.toml");
    let own = tempfile::tempdir().unwrap();
    let gateway = Process::start(&["run", "--config", &config], &[], own.path()).await;
    let mut caller = Caller::connect(gateway.listener()).await;
    assert_eq!(caller.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await.status, 202);
    // The fault of the description file occurs once.
    let slow = BROADCAST_PATH.replace("chat", "slow");
    assert_eq!(caller.post(&slow, "application/json", BROADCAST_BODY).await.status, 503);
    assert_eq!(caller.post(&slow, "application/json", BROADCAST_BODY).await.status, 202);
}

#[tokio::test]
async fn reports_all_problems_of_a_description_file_and_exits_with_2() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("s.toml"), "[endpoints.east]\ntenant = \"a\"\nprot = 1\n").unwrap();
    let file = path(folder.path(), "s.toml");
    let finished = run(&["sandbox", "--config", &file]).await;
    assert_eq!((finished.code, finished.stdout.as_str()), (Some(2), ""), "{finished:?}");
    for part in ["endpoints.east.tenant: there is no tenant `a`", "s.toml:2)", "did you mean `port`?", "s.toml:3)"] {
        assert!(finished.stderr.contains(part), "no `{part}` in {}", finished.stderr);
    }
    let finished = run(&["sandbox", "--config", "/nowhere/s.toml"]).await;
    assert_eq!(finished.code, Some(2));
    assert!(finished.stderr.contains("cannot read the file"), "{}", finished.stderr);
}

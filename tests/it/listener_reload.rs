//! Listeners that are added, moved, changed and removed while the gateway serves. Each call is judged by the rules of
//! its own listener, and reaches only endpoints that the current configuration names for it.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use signalr_gateway::sandbox::{Files, GatewayConfig};
use tokio::net::TcpStream;

use crate::listeners::{by_http1, secured};
use crate::support::{BROADCAST_BODY, Caller, HarnessBuilder, Process, broadcast_request, request, wait_until};

/// Returns routes that send calls of one listener to `west` and all others to `east`, of another tenant.
fn tenants(listener: &str, bind: &str) -> String {
    format!(
        "[listeners.{listener}]\nbind = \"{bind}\"\n\
         [[routes]]\nname = \"west\"\nmatch.listener = \"{listener}\"\nendpoints = [\"west\"]\n{EAST}"
    )
}

const EAST: &str = "[[routes]]\nname = \"east\"\nendpoints = [\"east\"]\n";

/// The real binary in front of a sandbox, with a configuration that the test changes.
struct Changing {
    builder: HarnessBuilder,
    files: Files,
    process: Process,
    reloads: f64,
}

impl Changing {
    async fn start(config: GatewayConfig) -> Self {
        let builder = HarnessBuilder::start().await;
        let files = builder.sandbox.write_files(builder.folder.path(), &config).unwrap();
        let arguments = [
            "run",
            "--config",
            files.config.to_str().unwrap(),
            "--set",
            "shutdown.delay=0s",
            "--set",
            "shutdown.timeout=10s",
            "--set",
            "process.workers=2",
        ];
        let process = Process::start(&arguments, &[], builder.folder.path()).await;
        process.wait_until_credentials_are("ready").await;
        Self { builder, files, process, reloads: 0.0 }
    }

    /// Reloads with another configuration. Replaces the file by rename, so that it is never read half-written.
    async fn reload(&mut self, config: &GatewayConfig) {
        self.write(config);
        self.process.hang_up().await;
        self.reloads += 1.0;
        self.wait_for("success", self.reloads).await;
    }

    fn write(&self, config: &GatewayConfig) {
        let next = self.builder.folder.path().join("next.toml");
        std::fs::write(&next, self.builder.sandbox.gateway_config(config)).unwrap();
        std::fs::rename(next, &self.files.config).unwrap();
    }

    async fn wait_for(&self, result: &str, count: f64) {
        wait_until(&format!("{count} reloads end in {result}"), async || {
            (self.process.metrics().await.sum("config_reloads_total", &[("result", result)]) >= count).then_some(())
        })
        .await;
    }

    /// Returns the address of a listener on `/status`.
    async fn address(&self, name: &str) -> Option<String> {
        let status = Caller::connect(self.process.admin()).await.call("GET", "/status").await.json();
        let listeners = status["listeners"].as_array().unwrap().clone();
        let found = listeners.iter().find(|listener| listener["name"] == name)?;
        Some(found["address"].as_str().unwrap().to_owned())
    }

    async fn tcp_address(&self, name: &str) -> SocketAddr {
        self.address(name).await.unwrap().parse().unwrap()
    }

    /// Returns the hubs of the messages at an endpoint.
    fn hubs_at(&self, endpoint: &str) -> Vec<String> {
        let entries = self.builder.sandbox.endpoint(endpoint).unwrap().server.journal().entries();
        let hub = |target: &str| Some(target.strip_prefix("/api/hubs/")?.split('/').next()?.to_owned());
        entries.iter().filter_map(|entry| hub(&entry.target)).collect()
    }
}

fn config(more: impl Into<String>) -> GatewayConfig {
    GatewayConfig { more: more.into(), ..GatewayConfig::default() }
}

/// Builds a broadcast to a hub.
fn to_hub(hub: &str) -> http::request::Builder {
    request("POST", &format!("/api/hubs/{hub}/:send?api-version=2022-11-01")).header("content-type", "application/json")
}

/// Returns an address that was free a moment ago.
fn free_address() -> SocketAddr {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap()
}

async fn is_refused(address: SocketAddr) {
    wait_until("nothing listens there", async || TcpStream::connect(address).await.is_err().then_some(())).await;
}

#[tokio::test]
async fn added_listener_serves_only_its_own_calls() {
    let mut changing = Changing::start(config(EAST)).await;
    let default = changing.process.listener();
    let mut before = Caller::connect(default).await;
    before.send(to_hub("first"), BROADCAST_BODY).await.assert_status(202);

    changing.reload(&config(tenants("internal2", "127.0.0.1:0"))).await;
    before.send(to_hub("old"), BROADCAST_BODY).await.assert_status(202);
    Caller::connect(default).await.send(to_hub("new"), BROADCAST_BODY).await.assert_status(202);
    let internal = changing.tcp_address("internal2").await;
    let mut inside = Caller::connect(internal).await;
    inside.send(to_hub("internal"), BROADCAST_BODY).await.assert_status(202);
    assert_eq!(changing.hubs_at("east"), ["first", "old", "new"]);
    assert_eq!(changing.hubs_at("west"), ["internal"]);

    // A new name at the same address is a new listener, which takes over the socket.
    let bind = internal.to_string();
    changing.reload(&config(tenants("internal3", &bind))).await;
    assert_eq!(changing.tcp_address("internal3").await, internal);
    Caller::connect(internal).await.send(to_hub("internal"), BROADCAST_BODY).await.assert_status(202);

    // After its removal, the route for all listeners does not take its calls.
    changing.reload(&config(EAST)).await;
    is_refused(internal).await;
    wait_until("its connections are closed", async || inside.is_closed().then_some(())).await;
    assert_eq!(changing.address("internal3").await, None);
    before.send(to_hub("last"), BROADCAST_BODY).await.assert_status(202);
    assert_eq!(changing.hubs_at("east"), ["first", "old", "new", "last"]);
    assert_eq!(changing.hubs_at("west"), ["internal", "internal"]);
    changing.process.terminate().await;
    assert!(changing.process.wait().await.0.success());
}

#[tokio::test]
async fn moved_listener_does_not_apply_new_rules_to_its_old_socket() {
    let mut changing = Changing::start(config(EAST)).await;
    let tcp = changing.process.listener();
    let token = || request("POST", "/api/hubs/chat/:generateToken?api-version=2022-11-01");
    let mut before = Caller::connect(tcp).await;
    before.send(token(), "").await.assert_gateway_error(403, "operation_not_allowed");

    let socket = changing.builder.folder.path().join("gateway.sock");
    let moved = GatewayConfig {
        listen: format!("unix:{}", socket.display()),
        operations: vec!["messages".to_owned(), "credentials".to_owned()],
        more: format!("{EAST}[listeners.other]\nbind = \"127.0.0.1:0\"\n"),
        ..GatewayConfig::default()
    };
    // Until its connections are closed, they keep the rules under which they were accepted.
    let stop = Arc::new(AtomicBool::new(false));
    let hammering = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let mut refused = 0;
            while !stop.load(Ordering::Relaxed) {
                match before.try_send(token(), "").await {
                    Ok(answer) => drop(answer.assert_gateway_error(403, "operation_not_allowed")),
                    Err(_) => break,
                }
                refused += 1;
            }
            refused
        }
    });
    changing.reload(&moved).await;
    is_refused(tcp).await;
    let mut inside = Caller::connect_unix(&socket).await;
    inside.send(token(), "").await.assert_status(200);
    stop.store(true, Ordering::Relaxed);
    assert!(hammering.await.unwrap() > 0);

    // A new mode also makes a new listener.
    let text = changing.builder.sandbox.gateway_config(&moved);
    let text = text.replace("[listeners.default]\n", "[listeners.default]\nmode = \"0600\"\n");
    std::fs::write(&changing.files.config, text).unwrap();
    changing.process.hang_up().await;
    changing.wait_for("success", 2.0).await;
    assert_eq!(mode(&socket), 0o600);
    wait_until("connections accepted under the old mode are closed", async || inside.is_closed().then_some(())).await;
    Caller::connect_unix(&socket).await.send(token(), "").await.assert_status(200);

    changing.reloads = 2.0;
    changing.reload(&config(EAST)).await;
    wait_until("the socket is removed", async || (!socket.exists()).then_some(())).await;
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn refuses_a_configuration_with_a_listener_that_cannot_be_opened() {
    let mut changing = Changing::start(config(EAST)).await;
    let hash = |metrics: crate::support::Samples| {
        metrics.series().iter().find(|series| series.contains("config_hash_info")).map(|series| (*series).to_owned())
    };
    let before = hash(changing.process.metrics().await);
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = busy.local_addr().unwrap().to_string();
    changing.write(&config(format!("[listeners.also]\nbind = \"127.0.0.1:0\"\n{}", tenants("busy", &bind))));
    changing.process.hang_up().await;
    changing.wait_for("failure", 1.0).await;
    let status = Caller::connect(changing.process.admin()).await.call("GET", "/status").await.json();
    assert!(status["refused_reload"].as_str().unwrap().contains("is in use by another program"), "{status}");
    assert_eq!(changing.address("also").await, None);
    assert_eq!(hash(changing.process.metrics().await), before);
    Caller::connect(changing.process.listener())
        .await
        .send(broadcast_request(), BROADCAST_BODY)
        .await
        .assert_status(202);

    drop(busy);
    changing.reload(&config(tenants("busy", &bind))).await;
    assert_ne!(hash(changing.process.metrics().await), before);
    Caller::connect(changing.tcp_address("busy").await)
        .await
        .send(to_hub("west"), BROADCAST_BODY)
        .await
        .assert_status(202);
    assert_eq!(changing.hubs_at("west"), ["west"]);
}

#[tokio::test]
async fn reload_reads_the_certificate_again_and_switching_tls_closes_old_connections() {
    let mut changing = Changing::start(config(EAST)).await;
    let folder = changing.builder.folder.path().to_owned();
    let write_certificate = |folder: &Path| {
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("listener.pem"), issued.cert.pem()).unwrap();
        std::fs::write(folder.join("listener.key"), issued.signing_key.serialize_pem()).unwrap();
    };
    write_certificate(&folder);
    let address = free_address();
    let plain = format!("{EAST}[listeners.secure]\nbind = \"{address}\"\n");
    let tls = "tls = { certificate = \"listener.pem\", key = \"listener.key\" }\n";
    changing.reload(&config(&plain)).await;
    let mut by_plain = Caller::connect(address).await;
    by_plain.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);

    changing.reload(&config(format!("{plain}{tls}"))).await;
    wait_until("plain connections are closed", async || by_plain.is_closed().then_some(())).await;
    assert_eq!(by_http1(secured(address, &folder, &[]).await).await, 202);

    let kept = secured(address, &folder, &[]).await;
    write_certificate(&folder);
    changing.reload(&config(format!("{plain}{tls}"))).await;
    wait_until("the new certificate is served", async || {
        // Verified against the new file.
        crate::listeners::try_secured(address, &folder).await.ok()
    })
    .await;
    assert_eq!(by_http1(kept).await, 202, "a new certificate closed the connection");

    std::fs::write(folder.join("listener.key"), "no key").unwrap();
    changing.process.hang_up().await;
    changing.wait_for("failure", 1.0).await;
    Caller::connect(changing.process.listener())
        .await
        .send(broadcast_request(), BROADCAST_BODY)
        .await
        .assert_status(202);
}

/// Two tenants, constant calls on both listeners, and reloads that add, rename, move and remove the listener of one
/// tenant and its route.
#[tokio::test]
async fn no_call_reaches_another_tenant_through_any_sequence_of_reloads() {
    let mut changing = Changing::start(config(EAST)).await;
    let (one, other) = (free_address(), free_address());
    let is_over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut callers = Vec::new();
    for _ in 0..2 {
        let (is_over, default) = (Arc::clone(&is_over), changing.process.listener());
        callers.push(tokio::spawn(async move {
            let mut caller = Caller::connect(default).await;
            while !is_over.load(Ordering::Relaxed) {
                caller.send(to_hub("of_east"), BROADCAST_BODY).await.assert_status(202);
            }
        }));
    }
    for address in [one, other, one, other] {
        let (is_over, answered) = (Arc::clone(&is_over), Arc::clone(&answered));
        callers.push(tokio::spawn(async move {
            while !is_over.load(Ordering::Relaxed) {
                let Ok(stream) = TcpStream::connect(address).await else {
                    tokio::task::yield_now().await;
                    continue;
                };
                let mut caller = Caller::on(stream).await;
                // Until the connection is closed because its listener was removed or replaced.
                while !is_over.load(Ordering::Relaxed) && !caller.is_closed() {
                    let Ok(answer) = caller.try_send(to_hub("of_west"), BROADCAST_BODY).await else { break };
                    answer.assert_status(202);
                    answered.fetch_add(1, Ordering::Relaxed);
                }
            }
        }));
    }
    for round in 0..24 {
        let next = match round % 6 {
            0 => tenants("second", &one.to_string()),
            1 => tenants("renamed", &one.to_string()),
            2 => tenants("renamed", &other.to_string()),
            3 => EAST.to_owned(),
            // An invalid configuration changes nothing.
            4 => tenants("second", &one.to_string()).replace("endpoints = [\"west\"]", "endpoints = [\"nowhere\"]"),
            _ => tenants("second", &other.to_string()),
        };
        if round % 6 == 4 {
            changing.write(&config(next));
            changing.process.hang_up().await;
            changing.wait_for("failure", f64::from(round / 6 + 1)).await;
        } else {
            changing.reload(&config(next)).await;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("a call was answered otherwise");
    }
    assert!(answered.load(Ordering::Relaxed) > 20, "only {answered:?} calls went through it");
    assert!(changing.hubs_at("east").iter().all(|hub| hub == "of_east"));
    assert!(changing.hubs_at("west").iter().all(|hub| hub == "of_west"));
    let metrics = changing.process.metrics().await;
    assert!(metrics.sum("upstream_unauthorized_total", &[]).abs() < f64::EPSILON, "a token went to the wrong tenant");
}

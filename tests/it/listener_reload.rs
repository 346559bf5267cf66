//! Listeners that are added, moved, changed and removed while the gateway serves. Each call is checked against the rules of
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
pub(crate) struct ReloadableGateway {
    builder: HarnessBuilder,
    pub(crate) files: Files,
    pub(crate) process: Process,
}

impl ReloadableGateway {
    pub(crate) async fn start(config: GatewayConfig) -> Self {
        let builder = HarnessBuilder::start().await;
        let files = builder.write_files(&config);
        let process = Process::start_gateway(&files.config, &["shutdown.timeout=60s", "process.workers=2"]).await;
        process.wait_until_credentials_are("ready").await;
        Self { builder, files, process }
    }

    /// Reloads with a configuration that differs from the one in force, and waits until it is in force.
    pub(crate) async fn reload(&self, config: &GatewayConfig) {
        self.reload_text(&self.builder.sandbox.gateway_config(config)).await;
    }

    async fn reload_text(&self, text: &str) {
        let before = self.process.config_hash().await;
        self.write_text(text);
        self.process.apply_configuration(before).await;
    }

    pub(crate) fn write(&self, config: &GatewayConfig) {
        self.write_text(&self.builder.sandbox.gateway_config(config));
    }

    /// Replaces the file by rename, so that it is never read half-written.
    fn write_text(&self, text: &str) {
        let next = self.builder.folder.path().join("next.toml");
        std::fs::write(&next, text).unwrap();
        std::fs::rename(next, &self.files.config).unwrap();
    }

    /// Returns the address of a listener on `/status`.
    async fn address(&self, name: &str) -> Option<String> {
        let status = self.process.status().await;
        let listeners = status["listeners"].as_array().unwrap().clone();
        let found = listeners.iter().find(|listener| listener["name"] == name)?;
        Some(found["address"].as_str().unwrap().to_owned())
    }

    pub(crate) async fn tcp_address(&self, name: &str) -> SocketAddr {
        self.address(name).await.unwrap().parse().unwrap()
    }

    /// Returns the hubs of the messages at an endpoint.
    pub(crate) fn hubs_at(&self, endpoint: &str) -> Vec<String> {
        let entries = self.builder.sandbox.endpoint(endpoint).unwrap().server.journal().entries();
        let hub = |target: &str| Some(target.strip_prefix("/api/hubs/")?.split('/').next()?.to_owned());
        entries.iter().filter_map(|entry| hub(&entry.target)).collect()
    }
}

pub(crate) fn config(more: impl Into<String>) -> GatewayConfig {
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

async fn wait_until_refused(address: SocketAddr) {
    wait_until("nothing listens there", async || TcpStream::connect(address).await.is_err().then_some(())).await;
}

#[tokio::test]
async fn added_listener_serves_only_its_own_calls() {
    let gateway = ReloadableGateway::start(config(EAST)).await;
    let default = gateway.process.listener();
    let mut before = Caller::connect(default).await;
    before.send(to_hub("first"), BROADCAST_BODY).await.assert_status(202);

    gateway.reload(&config(tenants("internal2", "127.0.0.1:0"))).await;
    before.send(to_hub("old"), BROADCAST_BODY).await.assert_status(202);
    Caller::connect(default).await.send(to_hub("new"), BROADCAST_BODY).await.assert_status(202);
    let internal = gateway.tcp_address("internal2").await;
    let mut inside = Caller::connect(internal).await;
    inside.send(to_hub("internal"), BROADCAST_BODY).await.assert_status(202);
    assert_eq!(gateway.hubs_at("east"), ["first", "old", "new"]);
    assert_eq!(gateway.hubs_at("west"), ["internal"]);

    // A new name at the same address is a new listener, which takes over the socket.
    let bind = internal.to_string();
    gateway.reload(&config(tenants("internal3", &bind))).await;
    assert_eq!(gateway.tcp_address("internal3").await, internal);
    Caller::connect(internal).await.send(to_hub("internal"), BROADCAST_BODY).await.assert_status(202);

    // After its removal, its calls do not match the route for all listeners.
    gateway.reload(&config(EAST)).await;
    wait_until_refused(internal).await;
    wait_until("its connections are closed", async || inside.is_closed().then_some(())).await;
    assert_eq!(gateway.address("internal3").await, None);
    before.send(to_hub("last"), BROADCAST_BODY).await.assert_status(202);
    assert_eq!(gateway.hubs_at("east"), ["first", "old", "new", "last"]);
    assert_eq!(gateway.hubs_at("west"), ["internal", "internal"]);
    gateway.process.terminate().await;
    assert!(gateway.process.wait().await.0.success());
}

#[tokio::test]
async fn moved_listener_does_not_apply_new_rules_to_its_old_socket() {
    let gateway = ReloadableGateway::start(config(EAST)).await;
    let tcp = gateway.process.listener();
    let token = || request("POST", "/api/hubs/chat/:generateToken?api-version=2022-11-01");
    let mut before = Caller::connect(tcp).await;
    before.send(token(), "").await.assert_gateway_error(403, "operation_not_allowed");

    let socket = gateway.builder.folder.path().join("gateway.sock");
    let moved = GatewayConfig {
        listen: format!("unix:{}", socket.display()),
        operations: vec!["messages".to_owned(), "credentials".to_owned()],
        more: format!("{EAST}[listeners.other]\nbind = \"127.0.0.1:0\"\n"),
        ..GatewayConfig::default()
    };
    // Until its connections are closed, they keep the rules under which they were accepted.
    let stop = Arc::new(AtomicBool::new(false));
    let calling = tokio::spawn({
        let stop = Arc::clone(&stop);
        async move {
            let mut rejected = 0;
            while !stop.load(Ordering::Relaxed) {
                match before.try_send(token(), "").await {
                    Ok(response) => drop(response.assert_gateway_error(403, "operation_not_allowed")),
                    Err(_) => break,
                }
                rejected += 1;
            }
            rejected
        }
    });
    gateway.reload(&moved).await;
    wait_until_refused(tcp).await;
    let mut inside = Caller::connect_unix(&socket).await;
    inside.send(token(), "").await.assert_status(200);
    stop.store(true, Ordering::Relaxed);
    assert!(calling.await.unwrap() > 0);

    // A new mode also makes a new listener.
    let text = gateway.builder.sandbox.gateway_config(&moved);
    let text = text.replace("[listeners.default]\n", "[listeners.default]\nmode = \"0600\"\n");
    gateway.reload_text(&text).await;
    assert_eq!(mode(&socket), 0o600);
    wait_until("connections accepted under the old mode are closed", async || inside.is_closed().then_some(())).await;
    Caller::connect_unix(&socket).await.send(token(), "").await.assert_status(200);

    gateway.reload(&config(EAST)).await;
    wait_until("the socket is removed", async || (!socket.exists()).then_some(())).await;
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn rejects_a_configuration_with_a_listener_that_cannot_be_opened() {
    let gateway = ReloadableGateway::start(config(EAST)).await;
    let hash = |metrics: crate::support::Samples| {
        metrics.series().iter().find(|series| series.contains("config_hash_info")).map(|series| (*series).to_owned())
    };
    let before = hash(gateway.process.metrics().await);
    let busy = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let bind = busy.local_addr().unwrap().to_string();
    gateway.write(&config(format!("[listeners.also]\nbind = \"127.0.0.1:0\"\n{}", tenants("busy", &bind))));
    gateway.process.hang_up().await;
    gateway.process.wait_for_reloads("failure", 1.0).await;
    let status = gateway.process.status().await;
    assert!(status["refused_reload"].as_str().unwrap().contains("is in use by another program"), "{status}");
    assert_eq!(gateway.address("also").await, None);
    assert_eq!(hash(gateway.process.metrics().await), before);
    Caller::connect(gateway.process.listener())
        .await
        .send(broadcast_request(), BROADCAST_BODY)
        .await
        .assert_status(202);

    drop(busy);
    gateway.reload(&config(tenants("busy", &bind))).await;
    assert_ne!(hash(gateway.process.metrics().await), before);
    Caller::connect(gateway.tcp_address("busy").await)
        .await
        .send(to_hub("west"), BROADCAST_BODY)
        .await
        .assert_status(202);
    assert_eq!(gateway.hubs_at("west"), ["west"]);
}

#[tokio::test]
async fn reload_reads_the_certificate_again_and_switching_tls_closes_old_connections() {
    let gateway = ReloadableGateway::start(config(EAST)).await;
    let folder = gateway.builder.folder.path().to_owned();
    let write_certificate = |folder: &Path| {
        let issued = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(folder.join("listener.pem"), issued.cert.pem()).unwrap();
        std::fs::write(folder.join("listener.key"), issued.signing_key.serialize_pem()).unwrap();
    };
    write_certificate(&folder);
    let address = free_address();
    let plain = format!("{EAST}[listeners.secure]\nbind = \"{address}\"\n");
    let tls = "tls = { certificate = \"listener.pem\", key = \"listener.key\" }\n";
    gateway.reload(&config(&plain)).await;
    let mut by_plain = Caller::connect(address).await;
    by_plain.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);

    gateway.reload(&config(format!("{plain}{tls}"))).await;
    wait_until("plain connections are closed", async || by_plain.is_closed().then_some(())).await;
    assert_eq!(by_http1(secured(address, &folder, &[]).await).await, 202);

    let kept = secured(address, &folder, &[]).await;
    write_certificate(&folder);
    gateway.process.hang_up().await;
    wait_until("the new certificate is served", async || {
        // Verified against the new file.
        crate::listeners::try_secured(address, &folder).await.ok()
    })
    .await;
    assert_eq!(by_http1(kept).await, 202, "a new certificate closed the connection");
}

/// Two tenants, constant calls on both listeners, and reloads that add, rename, move and remove the listener of one
/// tenant and its route.
#[tokio::test]
async fn no_call_reaches_another_tenant_through_any_sequence_of_reloads() {
    let gateway = ReloadableGateway::start(config(EAST)).await;
    let (one, other) = (free_address(), free_address());
    let is_over = Arc::new(AtomicBool::new(false));
    let answered = Arc::new(AtomicUsize::new(0));
    let mut callers = Vec::new();
    for _ in 0..2 {
        let (is_over, default) = (Arc::clone(&is_over), gateway.process.listener());
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
                    let Ok(response) = caller.try_send(to_hub("of_west"), BROADCAST_BODY).await else { break };
                    response.assert_status(202);
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
            let failures = gateway.process.metrics().await.sum("config_reloads_total", &[("result", "failure")]);
            gateway.write(&config(next));
            gateway.process.hang_up().await;
            gateway.process.wait_for_reloads("failure", failures + 1.0).await;
        } else {
            gateway.reload(&config(next)).await;
        }
    }
    is_over.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("a call failed");
    }
    assert!(answered.load(Ordering::Relaxed) > 20, "only {answered:?} calls on the reloaded listener succeeded");
    assert!(gateway.hubs_at("east").iter().all(|hub| hub == "of_east"));
    assert!(gateway.hubs_at("west").iter().all(|hub| hub == "of_west"));
    let metrics = gateway.process.metrics().await;
    assert!(metrics.sum("upstream_unauthorized_total", &[]).abs() < f64::EPSILON, "a token went to the wrong tenant");
}

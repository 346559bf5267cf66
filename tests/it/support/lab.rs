//! A laboratory: a sandbox on the test's own runtime, and a gateway on threads of its own that meets it by the files
//! an operator would write. Both end with it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use signalr_gateway::config::{self, Sources};
use signalr_gateway::gateway::{Addresses, Gateway, GatewayError};
use signalr_gateway::sandbox::{Endpoint, Entry, Files, GatewayConfig, Sandbox, SandboxSettings};
use signalr_gateway::serve::BoundAddress;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{Answer, Caller, HELLO, Raw, SEND, Samples, in_time, wait_until};

/// A sandbox whose gateway is still to come: for tests that change the world first.
pub(crate) struct Stage {
    pub(crate) sandbox: Sandbox,
    pub(crate) folder: TempDir,
}

/// What a gateway is started with.
pub(crate) struct Plan {
    /// The configuration file.
    pub(crate) config: GatewayConfig,
    /// The environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// Whether the laboratory is handed over when the gateway is ready, or when it listens.
    pub(crate) wait_until_ready: bool,
    set: Vec<(String, String)>,
}

/// A sandbox and a gateway.
pub(crate) struct Lab {
    pub(crate) sandbox: Sandbox,
    pub(crate) files: Files,
    pub(crate) folder: TempDir,
    addresses: Addresses,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), GatewayError>>>,
}

impl Plan {
    /// Sets a key of the configuration, as `--set` does.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.set.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Allows operations on the default listener.
    pub(crate) fn allow(&mut self, operations: &[&str]) -> &mut Self {
        self.config.operations = operations.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Adds TOML at the end of the file.
    pub(crate) fn more(&mut self, toml: &str) -> &mut Self {
        self.config.more.push_str(toml);
        self
    }
}

impl Stage {
    /// Starts a sandbox with `east` in tenant B and `west` in tenant C.
    pub(crate) async fn start() -> Self {
        Self::with(SandboxSettings::default()).await
    }

    pub(crate) async fn with(settings: SandboxSettings) -> Self {
        Self { sandbox: Sandbox::start(settings).await.unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    /// Starts a gateway in front of it.
    pub(crate) async fn gateway(self, change: impl FnOnce(&mut Plan)) -> Lab {
        let mut plan = Plan {
            config: GatewayConfig::default(),
            environment: BTreeMap::new(),
            wait_until_ready: true,
            set: Vec::new(),
        };
        plan.set("shutdown.delay", "0s").set("shutdown.timeout", "10s").set("process.workers", "2");
        change(&mut plan);
        let Self { sandbox, folder } = self;
        let files = sandbox.write_files(folder.path(), &plan.config).unwrap();
        let sources = Sources { file: Some(files.config.clone()), environment: plan.environment, overrides: plan.set };
        let settings = config::load(&sources).unwrap_or_else(|err| panic!("{err}")).settings;
        let (stop, stopped) = oneshot::channel::<()>();
        let (announce, announced) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let gateway = Gateway::build(settings, runtime.handle()).await?;
                let stopped = async {
                    // A laboratory that is dropped says the same as one that is stopped.
                    let _stopped_or_dropped = stopped.await;
                };
                gateway
                    .serve(stopped, |addresses| {
                        let _the_test_has_ended = announce.send(addresses.clone());
                    })
                    .await
            })
        });
        let addresses = match in_time("the gateway's start", announced).await {
            Ok(addresses) => addresses,
            Err(oneshot::error::RecvError { .. }) => panic!("the gateway did not start: {:?}", thread.join().unwrap()),
        };
        let lab = Lab { sandbox, files, folder, addresses, stop: Some(stop), thread: Some(thread) };
        if plan.wait_until_ready {
            lab.wait_until_credentials_are("ready").await;
        }
        lab
    }
}

impl Lab {
    pub(crate) async fn start(change: impl FnOnce(&mut Plan)) -> Self {
        Stage::start().await.gateway(change).await
    }

    /// The address of a listener.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        match self.addresses.listeners.iter().find(|(found, _)| found == name) {
            Some((_, BoundAddress::Tcp(address))) => *address,
            other => panic!("{name} is no TCP listener: {other:?}"),
        }
    }

    /// A caller on a connection of its own.
    pub(crate) async fn caller(&self) -> Caller {
        Caller::connect(self.listener("default")).await
    }

    /// A connection for raw bytes.
    pub(crate) async fn raw(&self) -> Raw {
        Raw::connect(self.listener("default")).await
    }

    /// One request without a body, on a connection of its own.
    pub(crate) async fn call(&self, method: &str, target: &str) -> Answer {
        self.caller().await.call(method, target).await
    }

    /// A broadcast to hub `chat`.
    pub(crate) async fn hello(&self) -> Answer {
        self.caller().await.post(SEND, "application/json", HELLO).await
    }

    /// What the admin listener answers.
    pub(crate) async fn admin(&self, target: &str) -> Answer {
        Caller::connect(self.addresses.admin.unwrap()).await.call("GET", target).await
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.addresses.admin.unwrap()
    }

    /// The metrics, as they are now.
    pub(crate) async fn metrics(&self) -> Samples {
        Samples::parse(&self.admin("/metrics").await.text())
    }

    /// A credential on `/status`.
    pub(crate) async fn credential(&self, name: &str) -> serde_json::Value {
        let status = self.admin("/status").await.json();
        let found = status["credentials"].as_array().unwrap().iter().find(|credential| credential["name"] == name);
        found.cloned().unwrap_or_else(|| panic!("no credential {name} in {status}"))
    }

    pub(crate) async fn wait_until_credentials_are(&self, state: &str) {
        wait_until(&format!("all credentials are {state}"), async || {
            let status = self.admin("/status").await.json();
            status["credentials"].as_array()?.iter().all(|credential| credential["state"] == state).then_some(())
        })
        .await;
    }

    pub(crate) fn endpoint(&self, name: &str) -> &Endpoint {
        self.sandbox.endpoint(name).unwrap()
    }

    /// The calls that an endpoint received; the gateway's own health probes are left out.
    pub(crate) fn arrivals(&self, endpoint: &str) -> Vec<Entry> {
        let entries = self.endpoint(endpoint).server.journal().entries();
        entries.into_iter().filter(|entry| entry.path() != "/api/health").collect()
    }

    /// The one call that an endpoint received.
    pub(crate) fn arrival(&self, endpoint: &str) -> Entry {
        let mut arrivals = self.arrivals(endpoint);
        assert_eq!(arrivals.len(), 1, "{arrivals:#?}");
        arrivals.remove(0)
    }

    /// Makes both endpoints forget what they received.
    pub(crate) fn forget_arrivals(&self) {
        for endpoint in self.sandbox.endpoints() {
            endpoint.server.journal().clear();
        }
    }

    /// Tells the gateway to stop; it drains meanwhile.
    pub(crate) fn begin_shutdown(&mut self) {
        drop(self.stop.take());
    }

    /// Stops the gateway and returns how it ended.
    pub(crate) async fn shutdown(mut self) -> Result<(), GatewayError> {
        self.begin_shutdown();
        let thread = self.thread.take().unwrap();
        wait_until("the gateway has stopped", async || thread.is_finished().then_some(())).await;
        thread.join().unwrap()
    }
}

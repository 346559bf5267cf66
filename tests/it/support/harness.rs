//! A sandbox on the test's runtime and a gateway on its own threads, configured by the files that an operator would
//! write. Dropping the harness stops both.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use signalr_gateway::config::{self, Sources};
use signalr_gateway::gateway::{Addresses, Gateway, GatewayError};
use signalr_gateway::sandbox::{Endpoint, Entry, Files, GatewayConfig, Sandbox, SandboxSettings};
use signalr_gateway::serve::BoundAddress;
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::{
    BROADCAST_BODY, BROADCAST_PATH, Caller, Process, RawConnection, Response, Samples, wait_until, with_timeout,
};

/// A sandbox whose gateway is not started yet, for tests that change the sandbox first.
pub(crate) struct HarnessBuilder {
    pub(crate) sandbox: Sandbox,
    pub(crate) folder: TempDir,
}

/// The options that a gateway is started with.
pub(crate) struct GatewayOptions {
    /// The configuration file.
    pub(crate) config: GatewayConfig,
    /// The environment.
    pub(crate) environment: BTreeMap<String, String>,
    /// Whether to wait until every credential has a token, or only until the gateway listens.
    pub(crate) wait_until_ready: bool,
    set: Vec<(String, String)>,
}

/// A sandbox and a gateway.
pub(crate) struct Harness {
    pub(crate) sandbox: Sandbox,
    pub(crate) files: Files,
    pub(crate) folder: TempDir,
    addresses: Addresses,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<Result<(), GatewayError>>>,
}

impl GatewayOptions {
    /// Sets a configuration key, as `--set` does.
    pub(crate) fn set(&mut self, key: &str, value: &str) -> &mut Self {
        self.set.push((key.to_owned(), value.to_owned()));
        self
    }

    /// Allows operations on the default listener.
    pub(crate) fn allow(&mut self, operations: &[&str]) -> &mut Self {
        self.config.operations = operations.iter().map(|name| (*name).to_owned()).collect();
        self
    }

    /// Appends TOML to the configuration file.
    pub(crate) fn append_toml(&mut self, toml: &str) -> &mut Self {
        self.config.more.push_str(toml);
        self
    }
}

impl HarnessBuilder {
    /// Starts a sandbox with `east` in tenant B and `west` in tenant C.
    pub(crate) async fn start() -> Self {
        Self::with(SandboxSettings::default()).await
    }

    pub(crate) async fn with(settings: SandboxSettings) -> Self {
        Self { sandbox: Sandbox::start(settings).await.unwrap(), folder: tempfile::tempdir().unwrap() }
    }

    /// Writes the files of a gateway in front of the sandbox.
    pub(crate) fn write_files(&self, config: &GatewayConfig) -> Files {
        self.sandbox.write_files(self.folder.path(), config).unwrap()
    }

    /// Starts the real binary in front of the sandbox, and waits until it has its tokens. `settings` are given with `--set`.
    pub(crate) async fn start_process(&self, settings: &[&str]) -> Process {
        let files = self.write_files(&GatewayConfig::default());
        let process = Process::start_gateway(&files.config, settings).await;
        process.wait_until_credentials_are("ready").await;
        process
    }

    /// Starts a gateway in front of the sandbox.
    pub(crate) async fn start_gateway(self, change: impl FnOnce(&mut GatewayOptions)) -> Harness {
        let mut options = GatewayOptions {
            config: GatewayConfig::default(),
            environment: BTreeMap::new(),
            wait_until_ready: true,
            set: Vec::new(),
        };
        // No call is cut off at the end of a test because the machine is busy.
        options.set("shutdown.delay", "0s").set("shutdown.timeout", "60s").set("process.workers", "2");
        change(&mut options);
        let Self { sandbox, folder } = self;
        let files = sandbox.write_files(folder.path(), &options.config).unwrap();
        let sources =
            Sources { file: Some(files.config.clone()), environment: options.environment, overrides: options.set };
        let settings = config::load(&sources).unwrap_or_else(|err| panic!("{err}")).settings;
        let (stop, stopped) = oneshot::channel::<()>();
        let (announce, announced) = oneshot::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let gateway = Gateway::build(settings, runtime.handle()).await?;
                let stopped = async {
                    // Dropping the sender stops the gateway as well.
                    let _stopped_or_dropped = stopped.await;
                };
                gateway
                    .serve(stopped, |addresses| {
                        let _the_test_has_ended = announce.send(addresses.clone());
                    })
                    .await
            })
        });
        let addresses = match with_timeout("the gateway's start", announced).await {
            Ok(addresses) => addresses,
            Err(oneshot::error::RecvError { .. }) => panic!("the gateway did not start: {:?}", thread.join().unwrap()),
        };
        let harness = Harness { sandbox, files, folder, addresses, stop: Some(stop), thread: Some(thread) };
        if options.wait_until_ready {
            harness.wait_until_credentials_are("ready").await;
        }
        harness
    }
}

impl Harness {
    pub(crate) async fn start(change: impl FnOnce(&mut GatewayOptions)) -> Self {
        HarnessBuilder::start().await.start_gateway(change).await
    }

    /// Returns the address of a TCP listener.
    pub(crate) fn listener(&self, name: &str) -> SocketAddr {
        match self.addresses.listeners.iter().find(|(found, _)| found == name) {
            Some((_, BoundAddress::Tcp(address))) => *address,
            other => panic!("{name} is not a TCP listener: {other:?}"),
        }
    }

    /// Opens a connection of its own and returns a caller on it.
    pub(crate) async fn caller(&self) -> Caller {
        Caller::connect(self.listener("default")).await
    }

    /// Opens a connection for raw bytes.
    pub(crate) async fn raw_connection(&self) -> RawConnection {
        RawConnection::connect(self.listener("default")).await
    }

    /// Sends one request without a body, on a connection of its own.
    pub(crate) async fn call(&self, method: &str, target: &str) -> Response {
        self.caller().await.call(method, target).await
    }

    /// Sends a broadcast to hub `chat`.
    pub(crate) async fn broadcast(&self) -> Response {
        self.caller().await.post(BROADCAST_PATH, "application/json", BROADCAST_BODY).await
    }

    /// Sends a GET request to the admin listener.
    pub(crate) async fn admin(&self, target: &str) -> Response {
        Caller::connect(self.addresses.admin.unwrap()).await.call("GET", target).await
    }

    pub(crate) fn admin_address(&self) -> SocketAddr {
        self.addresses.admin.unwrap()
    }

    /// Scrapes the metrics.
    pub(crate) async fn metrics(&self) -> Samples {
        Samples::parse(&self.admin("/metrics").await.text())
    }

    /// Returns a credential of `/status`.
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

    /// Returns the calls that an endpoint received, without health probes.
    pub(crate) fn arrivals(&self, endpoint: &str) -> Vec<Entry> {
        let entries = self.endpoint(endpoint).server.journal().entries();
        entries.into_iter().filter(|entry| entry.path() != "/api/health").collect()
    }

    /// Returns the only call that an endpoint received.
    pub(crate) fn arrival(&self, endpoint: &str) -> Entry {
        let mut arrivals = self.arrivals(endpoint);
        assert_eq!(arrivals.len(), 1, "{arrivals:#?}");
        arrivals.remove(0)
    }

    /// Clears what all endpoints received.
    pub(crate) fn clear_arrivals(&self) {
        for endpoint in self.sandbox.endpoints() {
            endpoint.server.journal().clear();
        }
    }

    /// Starts the shutdown: the gateway drains.
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

//! Two replicas behind nginx: a restart of one after the other, under load, loses no call.

use std::net::SocketAddr;
use std::path::Path;

use signalr_gateway::sandbox::GatewayConfig;
use tokio::sync::watch;

use super::nginx::nginx;
use super::server::free_address;
use super::support::{BROADCAST_BODY, Caller, HarnessBuilder, Process, Program, broadcast_request, with_timeout};

/// A replica with an address of its own.
struct Replica {
    address: SocketAddr,
    process: Option<Process>,
}

impl Replica {
    async fn start(address: SocketAddr, config: &str, folder: &Path) -> Self {
        let mut replica = Self { address, process: None };
        replica.restart(config, folder).await;
        replica
    }

    /// Stops the process in order, starts another, and waits until that is ready.
    async fn restart(&mut self, config: &str, folder: &Path) {
        if let Some(process) = self.process.take() {
            process.terminate().await;
            let (status, log) = process.wait().await;
            assert_eq!(status.code(), Some(0), "{log}");
            assert!(!log.contains("cut off"), "{log}");
        }
        let bind = format!("listeners.default.bind={}", self.address);
        let folder = folder.join(self.address.port().to_string());
        std::fs::create_dir_all(&folder).unwrap();
        let settings = [&bind, "shutdown.delay=1s", "process.workers=2", "timeouts.connection_age=1s"];
        let process = Program::gateway(Path::new(config), &settings).start(&folder).await;
        process.wait_until_credentials_are("ready").await;
        self.process = Some(process);
    }
}

#[tokio::test]
async fn restart_of_one_replica_after_the_other_loses_no_call() {
    let builder = HarnessBuilder::start().await;
    let files = builder.write_files(&GatewayConfig::default());
    let (config, addresses) = (files.config.to_str().unwrap(), [free_address(), free_address()]);
    let mut replicas = Vec::new();
    for address in addresses {
        replicas.push(Replica::start(address, config, builder.folder.path()).await);
    }
    // Only what was not sent is tried at the other replica, so a call that is lost is seen. Each call may try both: a replica is
    // not left out for a while after it was down.
    let directives = "proxy_set_header Connection \"\"; proxy_next_upstream error;";
    let (proxy, _folder) = nginx(&addresses, directives).await;

    let (stop, stopped) = watch::channel(false);
    let proxy = proxy.address();
    let callers: Vec<_> = (0..8)
        .map(|_| {
            let stopped = stopped.clone();
            tokio::spawn(async move {
                let (mut caller, mut calls) = (Caller::connect(proxy).await, 0_usize);
                while !*stopped.borrow() {
                    if caller.is_closed() {
                        caller = Caller::connect(proxy).await;
                    }
                    caller.send(broadcast_request(), BROADCAST_BODY).await.assert_status(202);
                    calls += 1;
                }
                calls
            })
        })
        .collect();
    for replica in &mut replicas {
        replica.restart(config, builder.folder.path()).await;
    }
    stop.send_replace(true);
    let mut calls = 0;
    for caller in callers {
        calls += with_timeout("a caller", caller).await.unwrap();
    }
    let endpoints = builder.sandbox.endpoints().iter();
    let messages = endpoints.flat_map(|endpoint| endpoint.server.journal().entries());
    let received = messages.filter(|entry| entry.path() != "/api/health").count();
    assert!(calls > 100, "{calls} calls");
    assert_eq!(received, calls, "a call was lost or sent twice");
}

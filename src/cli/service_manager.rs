//! Reports the state of the process to the service manager, which is systemd or another that has its protocol.
//!
//! Source: `sd_notify(3)`, `sd_watchdog_enabled(3)`.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::gateway::Addresses;
use crate::runbook::{Condition, Section};
use crate::serve::WorkerHandles;

/// The runbook's section about the service manager.
const SECTION: Section = Section::Condition(Condition::ServiceManager);

/// The connection to the service manager. Does nothing if the process was started without one. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct ServiceManager {
    target: Option<Arc<(Socket, SockAddr)>>,
    /// The time after which the service manager ends a process that does not report that it is alive.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Connects to the service manager that the environment names.
    pub(super) fn from_environment() -> Self {
        let Some(path) = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()) else {
            return Self::default();
        };
        let target = connect(path.as_bytes()).inspect_err(|err| {
            tracing::warn!(error = %err, remedy = SECTION.remedy(), runbook = %SECTION, "NOTIFY_SOCKET names no socket, so the service manager is not informed");
        });
        Self { target: target.ok().map(Arc::new), watchdog: watchdog() }
    }

    /// Reports that the listeners accept connections, and keeps reporting that the workers are alive. Must be called on the
    /// control runtime.
    pub(super) fn serving(&self, addresses: &Addresses, workers: WorkerHandles) {
        self.ready(&status(addresses));
        if let Some(watchdog) = self.watchdog.filter(|_| self.target.is_some()) {
            // Ends with the process.
            tokio::spawn(self.clone().keep_alive(watchdog, workers));
        }
    }

    /// Reports that a reload has finished, with or without a new configuration.
    pub(super) fn ready(&self, status: &str) {
        // A message has one line for each variable.
        self.send(&format!("READY=1\nSTATUS={}", status.replace(['\n', '\r'], " ")));
    }

    /// Reports that a reload has started. [`ServiceManager::ready`] must follow.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}\nSTATUS=loading the configuration"));
    }

    /// Reports that the process is stopping.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=draining requests");
    }

    /// Reports at half the watchdog's time that the process is alive, while every worker responds.
    async fn keep_alive(self, watchdog: Duration, workers: WorkerHandles) {
        let half = watchdog / 2;
        let mut interval = tokio::time::interval(half);
        loop {
            interval.tick().await;
            if workers.respond_within(half).await {
                self.send("WATCHDOG=1");
            } else if !workers.are_stopping() {
                let watchdog = humantime::format_duration(watchdog);
                let section = Section::Condition(Condition::WorkerFailed);
                tracing::error!(%watchdog, side = "gateway", remedy = section.remedy(), runbook = %section, "a worker does not respond, so the service manager will end this process");
            }
        }
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = self.target.as_deref() else { return };
        if let Err(err) = socket.send_to(message.as_bytes(), address) {
            tracing::warn!(error = %err, message, remedy = SECTION.remedy(), runbook = %SECTION, "the service manager cannot be informed");
        }
    }
}

/// Opens a socket for datagrams to this path, or to this name in the abstract namespace, which begins with `@`.
fn connect(path: &[u8]) -> io::Result<(Socket, SockAddr)> {
    let mut path = path.to_vec();
    if let Some(first) = path.first_mut().filter(|first| **first == b'@') {
        *first = 0;
    }
    let address = SockAddr::unix(OsStr::from_bytes(&path))?;
    // A service manager that does not read must not block this process.
    Ok((Socket::new(Domain::UNIX, Type::DGRAM.nonblocking(), None)?, address))
}

/// Returns the time of the watchdog, if it is for this process.
fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    let is_for_this = number("WATCHDOG_PID").is_none_or(|id| id == u64::from(std::process::id()));
    number("WATCHDOG_USEC").filter(|micros| is_for_this && *micros > 0).map(Duration::from_micros)
}

/// Describes what the process serves.
pub(super) fn status(addresses: &Addresses) -> String {
    let listeners = addresses.listeners.iter().map(|(name, address)| format!("{name} at {address}"));
    let admin = addresses.admin.iter().map(|address| format!("admin at {address}"));
    format!("serving {}", listeners.chain(admin).collect::<Vec<_>>().join(", "))
}

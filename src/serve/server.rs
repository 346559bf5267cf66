//! Starts the workers, changes their listeners, and stops them.

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, oneshot, watch};

use super::balance::Balancer;
use super::bind::{BindError, BoundAddress};
use super::drain::Phase;
use super::handler::Handler;
use super::listeners::{BoundListeners, Command, ListenerPlan, Listeners};
use super::live_tls::LiveTls;
use super::settings::{ListenerSettings, ServeSettings};
use super::worker::Worker;
use crate::descriptors;
use crate::metrics::CallerMetrics;
use crate::runbook::{Condition, Section};
use crate::write_batch::WriteBatch;

/// Bound listeners that are not served yet.
#[derive(Debug)]
pub struct Bound {
    listeners: BoundListeners,
    settings: ServeSettings,
}

impl Bound {
    /// Binds the listeners that a gateway starts with.
    ///
    /// # Errors
    /// [`BindError`] for the first that cannot be bound; the others are released.
    pub fn bind(listeners: ListenerPlan, settings: &ServeSettings) -> Result<Self, BindError> {
        Ok(Self { listeners: listeners.bind(settings.workers)?, settings: settings.clone() })
    }

    /// Returns the addresses of the listeners, in configured order.
    pub fn addresses(&self) -> Vec<BoundAddress> {
        self.listeners.addresses()
    }

    /// Returns the TLS of the listeners that have it.
    pub fn tls(&self) -> Vec<Arc<LiveTls>> {
        self.listeners.tls()
    }

    /// Describes the inherited sockets that no listener uses; `admin` is the address of the admin listener.
    pub fn unused_sockets(&self, admin: Option<SocketAddr>) -> Vec<String> {
        self.listeners.unused_sockets(admin.map(BoundAddress::Tcp))
    }

    /// Starts the workers. `make_handler` is called on each worker's thread, inside its runtime, with the worker's write batch.
    ///
    /// # Errors
    /// If a thread or a runtime cannot be started.
    pub fn serve<H: Handler>(
        self,
        make_handler: impl Fn(&WriteBatch) -> H + Send + Sync + 'static,
        metrics: &CallerMetrics,
    ) -> std::io::Result<Running> {
        let make_handler = Arc::new(make_handler);
        let (phase, _) = watch::channel(Phase::Serving);
        let (ended, all_ended) = mpsc::channel(1);
        let in_force = max_connections(&self.settings);
        metrics.connection_limits(self.settings.max_connections, in_force);
        let (balancer, receivers) = Balancer::new(self.settings.workers, in_force, metrics.open_connections());
        let mut listeners = Listeners::default();
        let first_commands = listeners.replace(self.listeners, self.settings.workers);
        let mut threads = Vec::with_capacity(self.settings.workers);
        let mut workers = Vec::with_capacity(self.settings.workers);
        for (index, (handed_over, first)) in receivers.into_iter().zip(first_commands).enumerate() {
            let (sender, commands) = mpsc::unbounded_channel();
            send_commands(&sender, first);
            workers.push(sender);
            let worker = Worker {
                index,
                commands,
                balancer: balancer.clone(),
                handed_over,
                settings: self.settings.clone(),
                phase: phase.subscribe(),
                metrics: metrics.clone(),
                ended: ended.clone(),
            };
            let make_handler = Arc::clone(&make_handler);
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            let (built, is_built) = std::sync::mpsc::sync_channel(1);
            // A local runtime cannot leave its thread.
            threads.push(thread.spawn(move || {
                let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
                let runtime = runtime.map_err(|err| built.send(Err(err)));
                if let Ok(runtime) = runtime
                    && built.send(Ok(())).is_ok()
                {
                    worker.run(&runtime, |write_batch| make_handler(write_batch));
                }
            })?);
            is_built.recv().unwrap_or_else(|_panicked| Err(std::io::Error::other("a worker panicked")))?;
        }
        Ok(Running { phase, all_ended, threads, workers, listeners, settings: self.settings })
    }
}

/// Sends commands to a worker, unless it has ended.
fn send_commands(worker: &mpsc::UnboundedSender<Command>, commands: Vec<Command>) {
    for command in commands {
        let _has_ended = worker.send(command);
    }
}

/// Raises the limit of open descriptors, and returns how many connections of callers it allows.
fn max_connections(settings: &ServeSettings) -> usize {
    let limit = descriptors::raise_limit();
    let allowed = descriptors::max_caller_connections();
    if allowed < settings.max_connections {
        let section = Section::Condition(Condition::OpenFiles);
        tracing::warn!(
            side = "gateway",
            remedy = section.remedy(),
            runbook = %section,
            limits.max_connections = settings.max_connections,
            open_files = limit,
            in_force = allowed,
            "the limit of open files allows fewer connections than `limits.max_connections`, since each may need one to an endpoint"
        );
    }
    settings.max_connections.min(allowed)
}

/// The running workers. Dropping it aborts all connections.
#[derive(Debug)]
pub struct Running {
    phase: watch::Sender<Phase>,
    all_ended: mpsc::Receiver<()>,
    threads: Vec<JoinHandle<()>>,
    workers: Vec<mpsc::UnboundedSender<Command>>,
    listeners: Listeners,
    settings: ServeSettings,
}

/// Asks the workers whether they are alive. Clones ask the same workers.
#[derive(Clone, Debug)]
pub struct WorkerHandles {
    workers: Vec<mpsc::UnboundedSender<Command>>,
    phase: watch::Receiver<Phase>,
}

impl WorkerHandles {
    /// Returns whether every worker responds within this time. Workers that drain do not.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn respond_within(&self, time: Duration) -> bool {
        let asked = self.workers.iter().map(|worker| {
            let (sender, response) = oneshot::channel();
            // A worker that has ended drops the sender.
            send_commands(worker, vec![Command::Respond(sender)]);
            response
        });
        let responses = tokio::time::timeout(time, futures_util::future::join_all(asked)).await;
        responses.is_ok_and(|responses| responses.iter().all(Result::is_ok))
    }

    /// Returns whether the server is stopping.
    pub fn are_stopping(&self) -> bool {
        *self.phase.borrow() > Phase::Serving
    }
}

impl Running {
    /// Returns handles of the workers.
    pub fn workers(&self) -> WorkerHandles {
        WorkerHandles { workers: self.workers.clone(), phase: self.phase.subscribe() }
    }

    /// Plans the change from the open listeners to those of another configuration.
    pub fn plan(&self, listeners: &[ListenerSettings]) -> ListenerPlan {
        self.listeners.plan(listeners)
    }

    /// Replaces the listeners. New ones are served, unchanged ones continue, removed ones stop accepting and drain their
    /// connections. If a listener takes over the socket of another, connections in its accept queue still belong to the other.
    pub fn replace_listeners(&mut self, bound: BoundListeners) {
        let commands = self.listeners.replace(bound, self.workers.len());
        for (worker, commands) in self.workers.iter().zip(commands) {
            send_commands(worker, commands);
        }
    }

    /// Stops gracefully. For [`ServeSettings::drain_delay`], responses ask callers to close. Then nothing is accepted, and requests in
    /// flight have [`ServeSettings::drain_timeout`] to end. Returns whether all of them ended.
    ///
    /// # Cancel safety
    /// Not safe: dropping the future aborts all connections.
    pub async fn drain(mut self) -> bool {
        self.phase.send_replace(Phase::DrainDelay);
        if !self.settings.drain_delay.is_zero() {
            tokio::time::sleep(self.settings.drain_delay).await;
        }
        self.phase.send_replace(Phase::Draining);
        // Nothing is ever sent. The channel closes when the last worker has ended.
        let in_time = tokio::time::timeout(self.settings.drain_timeout, self.all_ended.recv()).await.is_ok();
        self.phase.send_replace(Phase::Aborting);
        if !in_time {
            let _aborted = tokio::time::timeout(ABORT_TIMEOUT, self.all_ended.recv()).await;
        }
        for thread in self.threads.drain(..) {
            if thread.is_finished() && thread.join().is_err() {
                let section = Section::Condition(Condition::WorkerFailed);
                tracing::error!(remedy = section.remedy(), runbook = %section, "a worker thread panicked");
            }
        }
        self.listeners.remove_sockets();
        in_time
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Aborting);
    }
}

/// The time that aborted workers have to end before the process exits anyway.
const ABORT_TIMEOUT: Duration = Duration::from_secs(1);

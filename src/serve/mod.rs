//! Accepts connections and serves HTTP on them: listeners, workers, limits, drain. Knows no SignalR; it takes any
//! handler.
//!
//! Each worker is a thread with a current-thread runtime, sockets of its own on every TCP address and a handler of its
//! own, made on that thread. Nothing on the way of a request is shared between workers.

mod balance;
mod bell;
mod body;
mod browser;
mod caller_stream;
mod connection;
mod http2;
mod inbound;
mod listener;
mod listeners;
mod open;
mod protocol;
mod settings;
mod socket;
mod worker;

use std::future::Future;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use http::{HeaderValue, Request, Response};
use prometheus::IntCounter;
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{mpsc, watch};

pub use body::{CallerBody, CallerBodyError};
pub use browser::{SEC_FETCH_SITE, is_allowed_host, is_valid_host, page_header};
pub use inbound::Refusal;
#[cfg(any(test, fuzzing))]
pub(crate) use inbound::fuzzing;
pub use listener::{BindError, BoundAddress, TlsFileError};
pub use listeners::{BoundListeners, ListenerId, ListenerPlan, check_certificates};
pub use settings::{Bind, ListenerSettings, ListenerTlsSettings, ServeSettings};

use crate::descriptors;
use crate::write_batch::WriteBatch;
use balance::Balance;
use listeners::{Command, Listeners};
use worker::Worker;

/// Who is at the other end of a connection, and which listener it came in by.
#[derive(Debug)]
pub struct Peer {
    /// The listener.
    pub listener: ListenerId,
    /// The address; `None` on a Unix socket.
    pub address: Option<SocketAddr>,
    /// Whether the connection is TLS.
    pub is_tls: bool,
    /// The IP address as a header value, made once for the connection; `None` on a Unix socket.
    pub forwarded_for: Option<HeaderValue>,
}

/// What answers requests. A worker calls it for each request, on the worker's own thread.
pub trait Handler: 'static {
    /// The body of its answers.
    type Body: http_body::Body<Data = bytes::Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + 'static;

    /// Answers a request. One that was refused before it was parsed is a stand-in with a [`Refusal`] among its extensions.
    /// The future is dropped when the caller goes away. Each connection keeps room for the future, idle ones too:
    /// what is large belongs in a box.
    fn handle(
        &self,
        peer: &Rc<Peer>,
        request: Request<CallerBody>,
    ) -> impl Future<Output = Response<Self::Body>> + 'static;

    /// Learns that a listener was opened or replaced. Called before its first connection.
    fn listeners_changed(&self) {}

    /// Learns that a listener is closed and that its last connection on this worker has ended.
    fn listener_ended(&self, _listener: ListenerId) {}
}

/// Sockets that are bound and not yet served.
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

    /// Returns where the listeners ended up, in configured order.
    pub fn addresses(&self) -> Vec<BoundAddress> {
        self.listeners.addresses()
    }

    /// Starts the workers. `make_handler` is called on each worker's thread, inside its runtime, with what the worker writes.
    ///
    /// # Errors
    /// If a thread or a runtime cannot be started.
    pub fn serve<H: Handler>(
        self,
        make_handler: impl Fn(&WriteBatch) -> H + Send + Sync + 'static,
        accept_errors: &IntCounter,
    ) -> std::io::Result<Running> {
        let make_handler = Arc::new(make_handler);
        let (phase, _) = watch::channel(Phase::Serving);
        let (ended, all_ended) = mpsc::channel(1);
        let (balance, inboxes) = Balance::new(self.settings.workers, max_connections(&self.settings));
        let mut listeners = Listeners::default();
        let first_commands = listeners.replace(self.listeners, self.settings.workers);
        let mut threads = Vec::with_capacity(self.settings.workers);
        let mut workers = Vec::with_capacity(self.settings.workers);
        for (index, (inbox, first)) in inboxes.into_iter().zip(first_commands).enumerate() {
            let (sender, commands) = mpsc::unbounded_channel();
            tell(&sender, first);
            workers.push(sender);
            let worker = Worker {
                index,
                commands,
                balance: balance.clone(),
                inbox,
                settings: self.settings.clone(),
                phase: phase.subscribe(),
                accept_errors: accept_errors.clone(),
                ended: ended.clone(),
            };
            let make_handler = Arc::clone(&make_handler);
            let thread = std::thread::Builder::new().name(format!("worker-{index}"));
            let (built, is_built) = std::sync::mpsc::sync_channel(1);
            // Such a runtime cannot leave its thread.
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

/// A worker that has ended follows no more commands.
fn tell(worker: &mpsc::UnboundedSender<Command>, commands: Vec<Command>) {
    for command in commands {
        let _unless_it_has_ended = worker.send(command);
    }
}

/// Raises the limit of open descriptors, and returns how many connections of callers may be open under it.
fn max_connections(settings: &ServeSettings) -> usize {
    let limit = descriptors::raise_limit();
    let room = descriptors::room_for_connections();
    if room < settings.max_connections {
        tracing::warn!(
            limits.max_connections = settings.max_connections,
            open_files = limit,
            in_force = room,
            "the limit of open files leaves room for fewer connections than `limits.max_connections`, with one to an endpoint \
             for each; raise the hard limit (`LimitNOFILE`, `ulimit -Hn`) or lower the setting"
        );
    }
    settings.max_connections.min(room)
}

/// How far the server is on its way to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Accepting and answering.
    Serving,
    /// Still accepting, but every answer asks the caller to close, so that connections empty by themselves.
    Leaving,
    /// Not accepting; requests in flight end, idle connections close.
    Draining,
    /// What is left is cut off.
    Ended,
}

/// Workers that serve. Dropping it cuts everything off.
#[derive(Debug)]
pub struct Running {
    phase: watch::Sender<Phase>,
    all_ended: mpsc::Receiver<()>,
    threads: Vec<JoinHandle<()>>,
    workers: Vec<mpsc::UnboundedSender<Command>>,
    listeners: Listeners,
    settings: ServeSettings,
}

impl Running {
    /// Says what becomes of the listeners that are open under another configuration.
    pub fn plan(&self, listeners: &[ListenerSettings]) -> ListenerPlan {
        self.listeners.plan(listeners)
    }

    /// Goes over to other listeners. New ones are served, those that are the same go on, those that are gone stop accepting,
    /// and their connections end as in a drain. Whoever waits in the queue of a socket that another listener takes over is
    /// still served by the one before.
    pub fn replace_listeners(&mut self, bound: BoundListeners) {
        let commands = self.listeners.replace(bound, self.workers.len());
        for (worker, commands) in self.workers.iter().zip(commands) {
            tell(worker, commands);
        }
    }

    /// Stops gracefully: answers ask callers to close for [`ServeSettings::drain_delay`] (less if no connection is
    /// left), then nothing is accepted, then requests in flight have [`ServeSettings::drain_timeout`] to end.
    /// Returns whether all of them did.
    ///
    /// # Cancel safety
    /// Not safe: dropping the future cuts everything off.
    pub async fn drain(mut self) -> bool {
        self.phase.send_replace(Phase::Leaving);
        if !self.settings.drain_delay.is_zero() {
            tokio::time::sleep(self.settings.drain_delay).await;
        }
        self.phase.send_replace(Phase::Draining);
        // No worker sends; the channel closes when the last of them has ended.
        let in_time = tokio::time::timeout(self.settings.drain_timeout, self.all_ended.recv()).await.is_ok();
        self.phase.send_replace(Phase::Ended);
        if !in_time {
            let _cut_off = tokio::time::timeout(CUT_OFF_PATIENCE, self.all_ended.recv()).await;
        }
        for thread in self.threads.drain(..) {
            if thread.is_finished() && thread.join().is_err() {
                tracing::error!("a worker thread panicked");
            }
        }
        in_time
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.phase.send_replace(Phase::Ended);
    }
}

/// How long cut-off workers may take to end before the process goes without them.
const CUT_OFF_PATIENCE: Duration = Duration::from_secs(1);

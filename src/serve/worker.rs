//! One worker: a thread, its runtime and its sockets. Accepts connections, and drains them at shutdown.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::LocalRuntime;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinHandle;

use super::balance::{Accepted, Balancer, HandedOver};
use super::connection::ConnectionServer;
use super::drain::{DRAIN_POLL_INTERVAL, FIRST_REQUEST_GRACE, Phase};
use super::handler::Handler;
use super::listeners::{Command, ServedListener, SocketId};
use super::settings::ServeSettings;
use super::socket::{Listener, StdListener, Stream};
use crate::descriptors;
use crate::metrics::CallerMetrics;
use crate::runbook::{Condition, Section};
use crate::write_batch::WriteBatch;

/// The first pause after an accept error, for example when no file descriptor is left.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause after accept errors. Chosen: callers notice no delay after the error has ended.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// A worker that has not started.
pub(super) struct Worker {
    pub(super) index: usize,
    /// Receives which listeners to open and close.
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) balancer: Balancer,
    /// Receives connections that other workers accepted.
    pub(super) handed_over: mpsc::UnboundedReceiver<HandedOver>,
    pub(super) settings: ServeSettings,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) metrics: CallerMetrics,
    /// Dropped when the worker has ended, which the server waits for.
    pub(super) ended: mpsc::Sender<()>,
}

impl Worker {
    pub(super) fn run<H: Handler>(self, runtime: &LocalRuntime, make_handler: impl FnOnce(&WriteBatch) -> H) {
        let _ended = self.ended.clone();
        runtime.block_on(self.serve(make_handler));
    }

    async fn serve<H: Handler>(mut self, make_handler: impl FnOnce(&WriteBatch) -> H) {
        let write_batch = WriteBatch::start();
        let handler = make_handler(&write_batch);
        let connections =
            Rc::new(ConnectionServer::new(handler, &self.settings, self.phase.clone(), write_batch, &self.metrics));
        let handler = Rc::clone(connections.handler());
        let open = Rc::clone(connections.open());
        let serve = move |accepted: Accepted| connections.start(accepted);
        let serve = Rc::new(serve);
        let mut sockets = Sockets { open: HashMap::new(), closing: Vec::new() };
        let apply = |sockets: &mut Sockets, command: Command| match command {
            Command::Serve { socket, new, serving } => {
                handler.listeners_changed();
                sockets.serve(socket, new, serving, || Acceptor {
                    worker: self.index,
                    balancer: self.balancer.clone(),
                    metrics: self.metrics.clone(),
                    phase: self.phase.clone(),
                    serve: Rc::clone(&serve),
                });
            }
            Command::CloseSocket(socket) => sockets.close(socket),
            // The receiver waits for a limited time.
            Command::Respond(sender) => drop(sender.send(())),
            Command::DrainConnections(listener) => {
                let (open, handler, within) = (Rc::clone(&open), Rc::clone(&handler), self.settings.drain_timeout);
                // Ends after the drain timeout, or with the runtime.
                tokio::task::spawn_local(async move {
                    let aborted = open.close_listener(listener, within).await;
                    if aborted > 0 {
                        let section = Section::Condition(Condition::CutOff);
                        tracing::warn!(connections = aborted, remedy = section.remedy(), runbook = %section, "connections of a closed listener were cut off");
                    }
                    handler.listener_ended(listener);
                });
            }
        };

        let mut phase = self.phase.clone();
        loop {
            tokio::select! {
                biased;
                Some(command) = self.commands.recv() => apply(&mut sockets, command),
                _ = phase.wait_for(|phase| *phase >= Phase::Draining) => break,
                Some(handed_over) = self.handed_over.recv() => serve_or_log(handed_over.into_accepted().map(Some), &*serve),
            }
        }
        // The accept loops end after they have emptied their queues.
        for accept_loop in sockets.closing.into_iter().chain(sockets.open.into_values().map(|(_, task)| task)) {
            if accept_loop.await.is_err() {
                let section = Section::Condition(Condition::WorkerFailed);
                tracing::error!(side = "gateway", remedy = section.remedy(), runbook = %section, "an accept loop panicked");
            }
        }
        self.handed_over.close();
        while let Some(handed_over) = self.handed_over.recv().await {
            serve_or_log(handed_over.into_accepted().map(Some), &*serve);
        }
        drop(serve);
        let first_requests = async {
            let end = tokio::time::Instant::now() + FIRST_REQUEST_GRACE;
            while open.count() > 0 && tokio::time::Instant::now() < end {
                tokio::time::sleep(DRAIN_POLL_INTERVAL).await;
            }
        };
        tokio::select! {
            () = first_requests => {}
            _ = phase.wait_for(|phase| *phase >= Phase::Aborting) => return,
        }
        tokio::select! {
            () = open.close_all() => {}
            _ = phase.wait_for(|phase| *phase >= Phase::Aborting) => {}
        }
    }
}

fn serve_or_log(assigned: io::Result<Option<Accepted>>, serve: &impl Fn(Accepted)) {
    match assigned {
        Ok(Some(accepted)) => serve(accepted),
        Ok(None) => {}
        Err(err) => {
            let section = Section::Condition(Condition::CannotAccept);
            tracing::warn!(error = %err, side = "gateway", remedy = section.remedy(), runbook = %section, "a new connection could not be assigned to a worker and was closed");
        }
    }
}

/// An accept loop and the listener that it accepts for; `None` closes its socket.
type AcceptLoop = (watch::Sender<Option<Arc<ServedListener>>>, JoinHandle<()>);

/// The listening sockets of a worker.
struct Sockets {
    open: HashMap<SocketId, AcceptLoop>,
    /// The accept loops of closing sockets.
    closing: Vec<JoinHandle<()>>,
}

impl Sockets {
    fn serve<S: Fn(Accepted) + 'static>(
        &mut self,
        id: SocketId,
        new: Option<StdListener>,
        serving: Arc<ServedListener>,
        acceptor: impl FnOnce() -> Acceptor<S>,
    ) {
        match (self.open.get(&id), new) {
            (Some((known, _)), _) => drop(known.send_replace(Some(serving))),
            (None, Some(socket)) => {
                let (sender, receiver) = watch::channel(Some(serving));
                let task = tokio::task::spawn_local(acceptor().run(socket, receiver));
                self.open.insert(id, (sender, task));
            }
            (None, None) => {
                let section = Section::Condition(Condition::WorkerFailed);
                tracing::error!(side = "gateway", remedy = section.remedy(), runbook = %section, "a listener takes over a socket that is not open");
            }
        }
    }

    fn close(&mut self, id: SocketId) {
        self.closing.retain(|task| !task.is_finished());
        if let Some((serving, task)) = self.open.remove(&id) {
            serving.send_replace(None);
            self.closing.push(task);
        }
    }
}

/// One worker's accept loop on one socket.
struct Acceptor<S> {
    worker: usize,
    balancer: Balancer,
    metrics: CallerMetrics,
    phase: watch::Receiver<Phase>,
    serve: Rc<S>,
}

impl<S: Fn(Accepted)> Acceptor<S> {
    /// Accepts for the listener in `serving`, until there is none or the worker drains.
    async fn run(self, mut socket: StdListener, mut serving: watch::Receiver<Option<Arc<ServedListener>>>) {
        loop {
            let current = serving.borrow_and_update().clone();
            let Some(listener) = current else { return };
            let accepting = async {
                let socket = Listener::from_std(socket)?;
                let is_draining = self.accept(&socket, &listener, &mut serving).await;
                // The queue of a socket that outlives the process is for the next process.
                let is_left = is_draining && listener.is_inherited;
                let accepted = if is_left { (socket.into_std()?, Vec::new()) } else { socket.accept_queued()? };
                Ok::<_, io::Error>((accepted, is_draining))
            };
            let ((unregistered, queued), is_draining) = match accepting.await {
                Ok(accepted) => accepted,
                Err(err) => {
                    let section = Section::Condition(Condition::CannotAccept);
                    return tracing::error!(error = %err, side = "gateway", remedy = section.remedy(), runbook = %section, "a listener cannot be served");
                }
            };
            for stream in queued {
                // Connections beyond the limit are closed.
                let Some(permit) = self.balancer.try_acquire_permit() else { break };
                self.assign(stream, &listener, permit);
            }
            if is_draining {
                return;
            }
            socket = unregistered;
        }
    }

    /// Accepts until the listener changes. Returns whether the worker drains.
    async fn accept(
        &self,
        socket: &Listener,
        listener: &Arc<ServedListener>,
        serving: &mut watch::Receiver<Option<Arc<ServedListener>>>,
    ) -> bool {
        let mut phase = self.phase.clone();
        let stopped = async {
            tokio::select! {
                _ = phase.wait_for(|phase| *phase >= Phase::Draining) => true,
                changed = serving.changed() => changed.is_err(),
            }
        };
        tokio::pin!(stopped);
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted.and_then(descriptors::ensure_outside_reserve),
                is_draining = &mut stopped => return is_draining,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(err) => {
                    self.metrics.accept_failed();
                    let section = Section::Condition(Condition::CannotAccept);
                    tracing::warn!(error = %err, pause_ms = pause.as_millis(), side = "gateway", remedy = section.remedy(), runbook = %section, "cannot accept connections");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        is_draining = &mut stopped => return is_draining,
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            pause = FIRST_PAUSE;
            // Acquired after accepting, so that an accept loop without callers holds no permit. At the limit, this connection
            // waits here and later ones wait in the kernel's queue.
            let permit = tokio::select! {
                biased;
                permit = self.balancer.acquire_permit() => permit,
                // The connection is served if there is a permit, else closed.
                is_draining = &mut stopped => {
                    if let Some(permit) = self.balancer.try_acquire_permit() {
                        self.assign(stream, listener, permit);
                    }
                    return is_draining;
                }
            };
            let Some(permit) = permit else { return true };
            self.assign(stream, listener, permit);
        }
    }

    fn assign(&self, stream: Stream, listener: &Arc<ServedListener>, permit: OwnedSemaphorePermit) {
        serve_or_log(self.balancer.assign(self.worker, stream, listener, permit), &*self.serve);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::sync::Mutex;

    use http::{Request, Response};
    use http_body_util::Empty;
    use tokio::runtime::{Builder, LocalOptions};

    use super::super::body::CallerBody;
    use super::super::handler::Peer;
    use super::super::listeners::{ListenerId, Listeners};
    use super::super::server::Bound;
    use super::super::socket::StdStream;
    use super::*;

    struct Empty200;

    impl Handler for Empty200 {
        type Body = Empty<bytes::Bytes>;

        fn handle(&self, _: &Rc<Peer>, _: Request<CallerBody>) -> impl Future<Output = Response<Self::Body>> + 'static {
            std::future::ready(Response::new(Empty::new()))
        }
    }

    fn settings() -> ServeSettings {
        let second = Duration::from_secs(1);
        ServeSettings {
            workers: 2,
            max_connections: 16,
            header_read_timeout: 20 * second,
            write_timeout: 20 * second,
            connection_age: None,
            drain_delay: Duration::ZERO,
            drain_timeout: 20 * second,
        }
    }

    /// Connects, sends a request, and returns both ends.
    fn request(listener: &TcpListener) -> (TcpStream, StdStream) {
        let mut caller = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        caller.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        caller.write_all(b"GET / HTTP/1.1\r\nhost: gateway\r\n\r\n").unwrap();
        let (stream, peer) = listener.accept().unwrap();
        (caller, StdStream::Tcp(stream, peer))
    }

    #[test]
    fn connection_that_was_handed_over_before_the_stop_is_served() {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (balancer, mut receivers) = Balancer::new(2, 16, CallerMetrics::unregistered().open_connections());
        let serving =
            ServedListener { id: ListenerId::default(), tls: None, proxy_protocol: None, is_inherited: false };
        let serving = Arc::new(serving);
        let assign = async |stream| {
            let permit = balancer.acquire_permit().await.unwrap();
            balancer.assign(0, Stream::from_std(stream).unwrap(), &serving, permit).unwrap()
        };
        let (_other, own) = request(&listener);
        let (mut caller, handed_over) = request(&listener);
        let _kept = runtime.block_on(async {
            let kept = assign(own).await;
            assert!(kept.is_some() && assign(handed_over).await.is_none(), "the second is handed over");
            kept
        });

        let (_commands, commands) = mpsc::unbounded_channel();
        let ((ended, _), (_stop, phase)) = (mpsc::channel(1), watch::channel(Phase::Draining));
        let worker = Worker {
            index: 1,
            commands,
            balancer: balancer.clone(),
            handed_over: receivers.remove(1),
            settings: settings(),
            phase,
            metrics: CallerMetrics::unregistered(),
            ended,
        };
        worker.run(&runtime, |_| Empty200);
        drop(runtime);
        let mut response = String::new();
        caller.read_to_string(&mut response).unwrap();
        assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response:?}");
    }

    #[tokio::test]
    async fn workers_do_not_respond_while_one_of_them_hangs() {
        let bound = Bound::bind(Listeners::default().plan(&[]), &settings()).unwrap();
        let (release, released) = std::sync::mpsc::channel::<()>();
        let released = Mutex::new(Some(released));
        let make_handler = move |_: &WriteBatch| {
            if let Some(released) = released.lock().unwrap().take() {
                let _released = released.recv();
            }
            Empty200
        };
        let running = bound.serve(make_handler, &CallerMetrics::unregistered()).unwrap();
        let workers = running.workers();
        assert!(!workers.respond_within(Duration::from_millis(100)).await);
        drop(release);
        assert!(workers.respond_within(Duration::from_secs(20)).await);
    }
}

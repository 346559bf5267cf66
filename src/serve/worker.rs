//! One worker: a thread, its runtime and its sockets. Accepts connections, and drains them at shutdown.

use std::collections::HashMap;
use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::runtime::LocalRuntime;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::task::JoinHandle;

use super::balance::{Accepted, Balance, HandedOver};
use super::connection::Connections;
use super::drain::{LAST_CALL, LAST_CALL_POLL, Phase};
use super::handler::Handler;
use super::listeners::{Command, Serving, SocketId};
use super::settings::ServeSettings;
use super::socket::{Listener, StdListener, Stream};
use crate::descriptors;
use crate::write_batch::WriteBatch;

/// The first pause after an accept error, for example when no file descriptor is left.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest pause after accept errors. Chosen: callers notice no delay once the error is over.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
pub(super) struct Worker {
    pub(super) index: usize,
    /// Receives which listeners to open and to close.
    pub(super) commands: mpsc::UnboundedReceiver<Command>,
    pub(super) balance: Balance,
    pub(super) inbox: mpsc::UnboundedReceiver<HandedOver>,
    pub(super) settings: ServeSettings,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) accept_errors: IntCounter,
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
        let connections = Rc::new(Connections::new(handler, &self.settings, self.phase.clone(), write_batch));
        let handler = Rc::clone(connections.handler());
        let open = Rc::clone(connections.open());
        let serve = move |accepted: Accepted| {
            // Awaited below, or dropped with the runtime.
            tokio::task::spawn_local(Rc::clone(&connections).serve(accepted));
        };
        let serve = Rc::new(serve);
        let mut sockets = Sockets { open: HashMap::new(), closing: Vec::new() };
        let follow = |sockets: &mut Sockets, command: Command| match command {
            Command::Serve { socket, new, serving } => {
                handler.listeners_changed();
                sockets.serve(socket, new, serving, || Acceptor {
                    worker: self.index,
                    balance: self.balance.clone(),
                    accept_errors: self.accept_errors.clone(),
                    phase: self.phase.clone(),
                    serve: Rc::clone(&serve),
                });
            }
            Command::Close(socket) => sockets.close(socket),
            Command::End(listener) => {
                let (open, handler, within) = (Rc::clone(&open), Rc::clone(&handler), self.settings.drain_timeout);
                // Ends after the drain timeout, or with the runtime.
                tokio::task::spawn_local(async move {
                    let cut_off = open.end_listener(listener, within).await;
                    if cut_off > 0 {
                        tracing::warn!(connections = cut_off, "connections of a closed listener were cut off");
                    }
                    handler.listener_ended(listener);
                });
            }
        };

        let mut phase = self.phase.clone();
        loop {
            tokio::select! {
                biased;
                Some(command) = self.commands.recv() => follow(&mut sockets, command),
                _ = phase.wait_for(|phase| *phase >= Phase::Draining) => break,
                Some(handed_over) = self.inbox.recv() => serve_or_log(handed_over.accept().map(Some), &*serve),
            }
        }
        // The accept loops first empty their queues.
        for accept_loop in sockets.closing.into_iter().chain(sockets.open.into_values().map(|(_, task)| task)) {
            if accept_loop.await.is_err() {
                tracing::error!("an accept loop panicked");
            }
        }
        self.inbox.close();
        while let Some(handed_over) = self.inbox.recv().await {
            serve_or_log(handed_over.accept().map(Some), &*serve);
        }
        drop(serve);
        let last_call = async {
            let last_call = tokio::time::Instant::now() + LAST_CALL;
            while open.count() > 0 && tokio::time::Instant::now() < last_call {
                tokio::time::sleep(LAST_CALL_POLL).await;
            }
        };
        tokio::select! {
            () = last_call => {}
            _ = phase.wait_for(|phase| *phase >= Phase::Ended) => return,
        }
        tokio::select! {
            () = open.end() => {}
            _ = phase.wait_for(|phase| *phase >= Phase::Ended) => {}
        }
    }
}

fn serve_or_log(placed: io::Result<Option<Accepted>>, serve: &impl Fn(Accepted)) {
    match placed {
        Ok(Some(accepted)) => serve(accepted),
        Ok(None) => {}
        Err(err) => tracing::warn!(error = %err, "a connection was lost on its way to a worker"),
    }
}

/// An accept loop and the listener that it accepts for; `None` closes its socket.
type AcceptLoop = (watch::Sender<Option<Arc<Serving>>>, JoinHandle<()>);

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
        serving: Arc<Serving>,
        acceptor: impl FnOnce() -> Acceptor<S>,
    ) {
        match (self.open.get(&id), new) {
            (Some((known, _)), _) => drop(known.send_replace(Some(serving))),
            (None, Some(socket)) => {
                let (sender, receiver) = watch::channel(Some(serving));
                let task = tokio::task::spawn_local(acceptor().run(socket, receiver));
                self.open.insert(id, (sender, task));
            }
            (None, None) => tracing::error!("a listener takes over a socket that is not open"),
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
    balance: Balance,
    accept_errors: IntCounter,
    phase: watch::Receiver<Phase>,
    serve: Rc<S>,
}

impl<S: Fn(Accepted)> Acceptor<S> {
    /// Accepts for the listener in `serving`, until there is none or the worker drains.
    async fn run(self, mut socket: StdListener, mut serving: watch::Receiver<Option<Arc<Serving>>>) {
        loop {
            let now = serving.borrow_and_update().clone();
            let Some(listener) = now else { return };
            let accepting = async {
                let socket = Listener::from_std(socket)?;
                let is_over = self.accept(&socket, &listener, &mut serving).await;
                Ok::<_, io::Error>((socket.into_waiting()?, is_over))
            };
            let ((left, waiting), is_over) = match accepting.await {
                Ok(accepted) => accepted,
                Err(err) => return tracing::error!(error = %err, "a listener cannot be served"),
            };
            for stream in waiting {
                // Connections beyond the limit are closed.
                let Some(open) = self.balance.permit_now() else { break };
                self.place(stream, &listener, open);
            }
            if is_over {
                return;
            }
            socket = left;
        }
    }

    /// Accepts until the listener changes. Returns whether the worker drains.
    async fn accept(
        &self,
        socket: &Listener,
        listener: &Arc<Serving>,
        serving: &mut watch::Receiver<Option<Arc<Serving>>>,
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
                accepted = socket.accept() => accepted.and_then(descriptors::outside_reserve),
                is_over = &mut stopped => return is_over,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(err) => {
                    self.accept_errors.inc();
                    tracing::warn!(error = %err, pause_ms = pause.as_millis(), "cannot accept connections");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        is_over = &mut stopped => return is_over,
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            pause = FIRST_PAUSE;
            // Acquired after accepting: an accept loop without callers must not hold a permit. Beyond the limit this
            // connection waits, and later ones in the kernel's queue.
            let open = tokio::select! {
                biased;
                open = self.balance.permit() => open,
                // Served if there is a permit, else closed.
                is_over = &mut stopped => {
                    if let Some(open) = self.balance.permit_now() {
                        self.place(stream, listener, open);
                    }
                    return is_over;
                }
            };
            let Some(open) = open else { return true };
            self.place(stream, listener, open);
        }
    }

    fn place(&self, stream: Stream, listener: &Arc<Serving>, open: OwnedSemaphorePermit) {
        serve_or_log(self.balance.place(self.worker, stream, listener, open), &*self.serve);
    }
}

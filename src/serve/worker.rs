//! One worker: a thread, a runtime, its sockets. Accepts, and ends in order.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use prometheus::IntCounter;
use tokio::runtime::LocalRuntime;
use tokio::sync::{mpsc, watch};
use tokio_rustls::TlsAcceptor;

use super::balance::{Accepted, Balance, HandedOver};
use super::connection::Connections;
use super::socket::{Listener, StdListener};
use super::{Handler, Phase, ServeSettings};
use crate::descriptors;
use crate::outbox::Outbox;

/// The first pause after an accept error, such as running out of file descriptors.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The longest: short enough that callers do not notice that it is over.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How long connections are left open after the last was accepted. Who has just connected has its first request on its way,
/// and closing now would lose it. Chosen: a few round trips between regions.
const LAST_CALL: Duration = Duration::from_millis(250);
/// How often it is looked whether any connection is left to wait for.
const LAST_CALL_LOOK: Duration = Duration::from_millis(10);

pub(super) struct Worker {
    pub(super) index: usize,
    /// This worker's socket of each listener, in configured order.
    pub(super) listeners: Vec<(Option<StdListener>, Option<TlsAcceptor>)>,
    pub(super) balance: Balance,
    pub(super) inbox: mpsc::UnboundedReceiver<HandedOver>,
    pub(super) settings: ServeSettings,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) accept_errors: IntCounter,
    /// Dropped when the worker has ended, which is how the server knows.
    pub(super) ended: mpsc::Sender<()>,
}

impl Worker {
    pub(super) fn run<H: Handler>(self, runtime: &LocalRuntime, make_handler: impl FnOnce(&Outbox) -> H) {
        let _ended = self.ended.clone();
        runtime.block_on(self.serve(make_handler));
    }

    async fn serve<H: Handler>(mut self, make_handler: impl FnOnce(&Outbox) -> H) {
        let sockets: Vec<_> = self.listeners.iter_mut().map(|(socket, _)| socket.take()).collect();
        let tls = self.listeners.drain(..).map(|(_, tls)| tls).collect();
        let outbox = Outbox::start();
        let handler = make_handler(&outbox);
        let connections = Rc::new(Connections::new(handler, &self.settings, tls, self.phase.clone(), outbox));
        let open = Rc::clone(connections.open());
        let serve = move |accepted: Accepted| {
            // Waited for below, or dropped with the runtime.
            tokio::task::spawn_local(Rc::clone(&connections).serve(accepted));
        };
        let serve = Rc::new(serve);
        let mut accept_loops = Vec::new();
        for (listener, socket) in sockets.into_iter().enumerate() {
            let Some(socket) = socket else { continue };
            let acceptor = Acceptor {
                worker: self.index,
                listener,
                balance: self.balance.clone(),
                accept_errors: self.accept_errors.clone(),
                phase: self.phase.clone(),
            };
            accept_loops.push(tokio::task::spawn_local(acceptor.run(socket, Rc::clone(&serve))));
        }

        let mut phase = self.phase.clone();
        loop {
            tokio::select! {
                Some(handed_over) = self.inbox.recv() => serve_or_log(handed_over.accept().map(Some), &*serve),
                _ = phase.wait_for(|phase| *phase >= Phase::Draining) => break,
            }
        }
        // The accept loops empty their queues first: who has connected is served.
        for accept_loop in accept_loops {
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
                tokio::time::sleep(LAST_CALL_LOOK).await;
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

/// One worker's accept loop on one listener.
struct Acceptor {
    worker: usize,
    listener: usize,
    balance: Balance,
    accept_errors: IntCounter,
    phase: watch::Receiver<Phase>,
}

impl Acceptor {
    async fn run(self, socket: StdListener, serve: Rc<impl Fn(Accepted)>) {
        let accepting = async {
            let socket = Listener::from_std(socket)?;
            self.accept(&socket, &*serve).await;
            socket.close()
        };
        match accepting.await {
            Ok(waiting) => {
                for stream in waiting {
                    // Beyond the limit of open connections they are closed instead of being left to hang.
                    let Some(open) = self.balance.permit_now() else { break };
                    serve_or_log(self.balance.place(self.worker, stream, self.listener, open), &*serve);
                }
            }
            Err(err) => tracing::error!(error = %err, listener = self.listener, "a listener cannot be served"),
        }
    }

    async fn accept(&self, socket: &Listener, serve: &impl Fn(Accepted)) {
        let mut phase = self.phase.clone();
        let stopped = phase.wait_for(|phase| *phase >= Phase::Draining);
        tokio::pin!(stopped);
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = tokio::select! {
                accepted = socket.accept() => accepted.and_then(descriptors::outside_reserve),
                _ = &mut stopped => return,
            };
            let stream = match accepted {
                Ok(stream) => stream,
                Err(err) => {
                    self.accept_errors.inc();
                    tracing::warn!(error = %err, pause_ms = pause.as_millis(), "cannot accept connections");
                    tokio::select! {
                        () = tokio::time::sleep(pause) => {}
                        _ = &mut stopped => return,
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                    continue;
                }
            };
            pause = FIRST_PAUSE;
            // The permit is taken for a connection that is there: an accept loop without callers must not hold one. Beyond
            // the limit, this connection waits, and those behind it in the kernel's queue.
            let open = tokio::select! {
                biased;
                open = self.balance.permit() => open,
                // As for those in the queue: served if there is a permit, closed otherwise.
                _ = &mut stopped => {
                    if let Some(open) = self.balance.permit_now() {
                        serve_or_log(self.balance.place(self.worker, stream, self.listener, open), serve);
                    }
                    return;
                }
            };
            let Some(open) = open else { return };
            serve_or_log(self.balance.place(self.worker, stream, self.listener, open), serve);
        }
    }
}

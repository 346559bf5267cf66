//! One worker's open connections to one endpoint: those that are idle, those that requests share, and the requests that
//! wait for one. Opens no connection. Single-threaded; nothing here is locked.
//!
//! The most recently used idle connection is taken first, so that surplus ones grow old and are closed.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http2::SendRequest;
use tokio::sync::mpsc;

use super::http1::{Connection, UploadBody};
use super::running::Endpoint;
use super::settings::PoolSettings;
use super::waiting::Waiting;
use crate::metrics::{ConnectionCount, ConnectionGauge, ConnectionState};

/// The interval at which idle connections are checked for their age.
const SWEEP: Duration = Duration::from_secs(5);

/// A connection that a request can be sent on.
pub(super) enum Line<B> {
    /// A connection for one request at a time.
    Http1(Counted<B>),
    /// A connection that requests share, and its number.
    Http2(SendRequest<B>, u64),
}

/// An HTTP/1.1 connection, counted in the metrics. The connection is boxed because it is moved often.
pub(super) struct Counted<B> {
    pub(super) connection: Box<Connection<B>>,
    pub(super) count: ConnectionCount,
    /// When its last request began. Its idle time is counted from here, so no connection is kept for too long.
    pub(super) used: Instant,
}

/// A connection for a request that waits.
pub(super) struct Offered<B> {
    pub(super) line: Line<B>,
    pub(super) is_used: bool,
}

/// An exchange whose caller is gone.
pub(super) struct Abandoned<B> {
    pub(super) exchange: Counted<B>,
    pub(super) store: ConnectionStore<B>,
    /// Whether the head of the response was read.
    pub(super) is_answered: bool,
}

/// The HTTP/2 connection that all requests share.
struct Shared<B> {
    sender: SendRequest<B>,
    number: u64,
    used: Instant,
}

/// One worker's open connections to one endpoint. Clones share them.
pub(super) struct ConnectionStore<B>(Rc<Inner<B>>);

struct Inner<B> {
    endpoint: Arc<Endpoint>,
    settings: PoolSettings,
    /// The most recently used last.
    idle: RefCell<Vec<Counted<B>>>,
    /// The HTTP/2 connection, if the endpoint speaks HTTP/2.
    shared: RefCell<Option<Shared<B>>>,
    /// How many HTTP/2 connections were opened.
    shared_count: Cell<u64>,
    waiting: Waiting<Offered<B>>,
    abandoned: mpsc::UnboundedSender<Abandoned<B>>,
    /// The task that closes idle connections that have grown old.
    sweeper: RefCell<Option<tokio::task::JoinHandle<()>>>,
    gauge: ConnectionGauge,
}

impl<B: UploadBody> ConnectionStore<B> {
    /// Makes an empty store for which up to `most_opening` connections are opened at once. Exchanges whose caller is gone are
    /// sent to `abandoned`.
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        gauge: ConnectionGauge,
        most_opening: usize,
        abandoned: mpsc::UnboundedSender<Abandoned<B>>,
    ) -> Self {
        Self(Rc::new(Inner {
            settings: endpoint.settings().pool,
            endpoint,
            idle: RefCell::default(),
            shared: RefCell::default(),
            shared_count: Cell::default(),
            waiting: Waiting::new(most_opening),
            abandoned,
            sweeper: RefCell::default(),
            gauge,
        }))
    }

    /// Returns the endpoint.
    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0.endpoint
    }

    /// Returns the gauge of its connections.
    pub(super) fn gauge(&self) -> &ConnectionGauge {
        &self.0.gauge
    }

    /// Returns the requests that wait for a connection.
    pub(super) fn waiting(&self) -> &Waiting<Offered<B>> {
        &self.0.waiting
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> &RefCell<Vec<Counted<B>>> {
        &self.0.idle
    }

    /// Takes an idle connection, unless the most recently used was idle for `longest` or more.
    pub(super) fn take_idle(&self, now: Instant, longest: Duration) -> Option<Line<B>> {
        let mut idle = self.0.idle.borrow_mut();
        while let Some(mut counted) = idle.pop() {
            let unused = now.saturating_duration_since(counted.used);
            if unused >= longest {
                idle.push(counted);
                return None;
            }
            // After a long request, a connection may be older than those below it.
            let is_fresh = unused < self.0.settings.idle_timeout;
            if is_fresh && counted.connection.is_usable() {
                counted.used = now;
                counted.count.set(ConnectionState::Active);
                return Some(Line::Http1(counted));
            }
        }
        None
    }

    /// Whether there are idle connections.
    pub(super) fn has_idle(&self) -> bool {
        !self.0.idle.borrow().is_empty()
    }

    /// Returns the shared HTTP/2 connection, if it is open.
    pub(super) fn share(&self, now: Instant) -> Option<Line<B>> {
        let mut shared = self.0.shared.borrow_mut();
        let shared = shared.as_mut().filter(|shared| !shared.sender.is_closed())?;
        shared.used = now;
        Some(Line::Http2(shared.sender.clone(), shared.number))
    }

    /// Keeps a new HTTP/2 connection for all requests from now on. Returns its number.
    pub(super) fn set_shared(&self, sender: SendRequest<B>) -> u64 {
        let number = self.0.shared_count.get();
        self.0.shared_count.set(number + 1);
        self.0.shared.replace(Some(Shared { sender, number, used: Instant::now() }));
        self.sweep();
        number
    }

    /// Puts no more requests on an HTTP/2 connection. Requests that are on it continue.
    pub(super) fn retire(&self, number: u64) {
        self.0.shared.borrow_mut().take_if(|shared| shared.number == number);
    }

    /// Takes back a connection whose request was answered, if it can carry another one.
    pub(super) fn give_back(&self, counted: Counted<B>) {
        if counted.connection.is_free() {
            self.offer(counted, true);
        }
    }

    /// Gives a connection to the first request that waits for one, or keeps it as idle.
    pub(super) fn offer(&self, counted: Counted<B>, is_used: bool) {
        let counted = if self.0.waiting.is_empty() {
            counted
        } else {
            match self.0.waiting.hand_over(Offered { line: Line::Http1(counted), is_used }, is_used) {
                Some(Offered { line: Line::Http1(counted), .. }) => counted,
                Some(Offered { line: Line::Http2(..), .. }) | None => return,
            }
        };
        self.keep(counted);
    }

    fn keep(&self, mut counted: Counted<B>) {
        let mut idle = self.0.idle.borrow_mut();
        if idle.len() >= self.0.settings.max_idle_per_worker {
            return;
        }
        counted.count.set(ConnectionState::Idle);
        idle.push(counted);
        drop(idle);
        self.sweep();
    }

    /// Starts the task that closes idle connections when their time is over, unless it runs.
    fn sweep(&self) {
        let mut sweeper = self.0.sweeper.borrow_mut();
        if sweeper.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        let store = Rc::downgrade(&self.0);
        *sweeper = Some(tokio::task::spawn_local(async move {
            loop {
                tokio::time::sleep(SWEEP).await;
                let Some(store) = store.upgrade() else { return };
                let mut idle = store.idle.borrow_mut();
                idle.retain_mut(|idle| {
                    idle.used.elapsed() < store.settings.idle_timeout && idle.connection.is_usable()
                });
                let mut shared = store.shared.borrow_mut();
                // Streams that are open keep the connection until they end.
                shared.take_if(|shared| {
                    shared.used.elapsed() >= store.settings.idle_timeout || shared.sender.is_closed()
                });
                if idle.is_empty() && shared.is_none() {
                    return;
                }
            }
        }));
    }
}

impl<B> ConnectionStore<B> {
    /// Takes over an exchange whose caller is gone; `is_answered` says whether the head of the response was read.
    pub(super) fn abandon(&self, exchange: Counted<B>, is_answered: bool) {
        let abandoned = Abandoned { exchange, store: self.clone(), is_answered };
        // Without a receiver, at the end of the worker, the connection is closed.
        let _closed = self.0.abandoned.send(abandoned);
    }
}

impl<B> Clone for ConnectionStore<B> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<B> Drop for Inner<B> {
    fn drop(&mut self) {
        if let Some(task) = self.sweeper.take() {
            task.abort();
        }
    }
}

//! One worker's open connections to one endpoint, and the queue of requests that wait for one. It opens no connections. It is
//! single-threaded, without locks.
//!
//! Requests take the most recently used idle connection, so surplus connections reach the idle timeout and are closed.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use hyper::client::conn::http2::SendRequest;
use tokio::sync::mpsc;

use super::http1::{Connection, UploadBody};
use super::idle::{IdleConnections, IdleStore};
use super::idle_order::Position;
use super::running::Endpoint;
use super::settings::PoolSettings;
use super::waiting::WaitQueue;
use crate::metrics::{ConnectionCount, ConnectionGauge, ConnectionState, UpstreamCloseReason, WorkerMetrics};

/// The time without a request after which a shared HTTP/2 connection that has reached its age is closed, instead of when another
/// is open in its place.
const UNUSED_TIME: Duration = Duration::from_secs(1);

/// A connection to an endpoint on which a request can be sent.
pub(super) enum PoolConnection<B> {
    /// A connection that carries one request at a time.
    Http1(TrackedConnection<B>),
    /// A connection that requests share, with its number.
    Http2(SendRequest<B>, u64),
}

/// An HTTP/1.1 connection with its metrics gauge and the time of its last use.
pub(super) struct TrackedConnection<B> {
    /// Boxed, since it is moved often.
    pub(super) connection: Box<Connection<B>>,
    pub(super) count: ConnectionCount,
    /// When its last request began. The idle time is measured from here, so it is never underestimated.
    pub(super) used: Instant,
    /// Its position among the worker's idle connections while it is idle.
    pub(super) position: Position,
}

/// A connection that is handed to a waiting request.
pub(super) struct Offer<B> {
    pub(super) connection: PoolConnection<B>,
    /// Whether it carried a request before.
    pub(super) is_reused: bool,
}

/// An exchange that was dropped before its end, because the caller disconnected or a timeout passed.
pub(super) struct Abandoned<B> {
    pub(super) connection: TrackedConnection<B>,
    pub(super) store: ConnectionStore<B>,
    /// Whether the head of the response was read.
    pub(super) has_head: bool,
}

/// An HTTP/2 connection that requests share.
struct Shared<B> {
    sender: SendRequest<B>,
    number: u64,
    used: Instant,
    /// When it reaches its age; `None` without a limit, and while another is opened in its place.
    expires: Option<Instant>,
    /// Its position among the worker's idle connections.
    position: Position,
}

/// One worker's open connections to one endpoint. Clones share the connections.
pub(super) struct ConnectionStore<B>(Rc<Inner<B>>);

struct Inner<B> {
    endpoint: Arc<Endpoint>,
    settings: PoolSettings,
    /// Idle HTTP/1.1 connections, the most recently used last.
    idle: RefCell<Vec<TrackedConnection<B>>>,
    /// The HTTP/2 connection for new requests, if one is open.
    shared: RefCell<Option<Shared<B>>>,
    /// The number of the next HTTP/2 connection.
    next_number: Cell<u64>,
    waiting: WaitQueue<Offer<B>>,
    abandoned: mpsc::UnboundedSender<Abandoned<B>>,
    /// The number of abandoned exchanges that are being finished.
    finishing: Cell<usize>,
    /// The idle connections of all pools of the worker.
    all_idle: Rc<IdleConnections>,
    /// The round in which the connections were last checked for the idle timeout.
    swept: Cell<u64>,
    gauge: ConnectionGauge,
    metrics: Rc<WorkerMetrics>,
}

impl<B: UploadBody> ConnectionStore<B> {
    /// Creates an empty store for which up to `max_opening` connections are opened concurrently. It sends abandoned exchanges to
    /// `abandoned`.
    pub(super) fn new(
        endpoint: Arc<Endpoint>,
        metrics: &Rc<WorkerMetrics>,
        max_opening: usize,
        abandoned: mpsc::UnboundedSender<Abandoned<B>>,
        all_idle: Rc<IdleConnections>,
    ) -> Self {
        Self(Rc::new(Inner {
            settings: endpoint.settings().pool,
            gauge: metrics.connections(endpoint.label()),
            metrics: Rc::clone(metrics),
            endpoint,
            idle: RefCell::default(),
            shared: RefCell::default(),
            next_number: Cell::default(),
            waiting: WaitQueue::new(max_opening),
            abandoned,
            finishing: Cell::default(),
            all_idle,
            swept: Cell::default(),
        }))
    }

    /// Returns the endpoint of the connections.
    pub(super) fn endpoint(&self) -> &Arc<Endpoint> {
        &self.0.endpoint
    }

    /// Returns the gauge that counts the connections.
    pub(super) fn gauge(&self) -> &ConnectionGauge {
        &self.0.gauge
    }

    /// Returns the queue of requests that wait for a connection.
    pub(super) fn waiting(&self) -> &WaitQueue<Offer<B>> {
        &self.0.waiting
    }

    #[cfg(test)]
    pub(super) fn idle(&self) -> &RefCell<Vec<TrackedConnection<B>>> {
        &self.0.idle
    }

    /// Takes the most recently used idle connection, unless it was idle for `max_idle` or longer.
    pub(super) fn take_idle(&self, now: Instant, max_idle: Duration) -> Option<PoolConnection<B>> {
        let mut idle = self.0.idle.borrow_mut();
        while let Some(mut tracked) = idle.pop() {
            let unused = now.saturating_duration_since(tracked.used);
            if unused >= max_idle {
                idle.push(tracked);
                return None;
            }
            self.0.all_idle.remove(tracked.position);
            // A connection that carried a long request may be older than the next one.
            if !tracked.connection.is_usable() {
                continue;
            }
            if let Some(reason) = self.0.close_reason(&tracked, now) {
                self.0.count_closed(reason);
                continue;
            }
            tracked.used = now;
            tracked.count.set(ConnectionState::Active);
            return Some(PoolConnection::Http1(tracked));
        }
        None
    }

    /// Returns whether there are idle connections.
    pub(super) fn has_idle(&self) -> bool {
        !self.0.idle.borrow().is_empty()
    }

    /// Returns the shared HTTP/2 connection, if it is open.
    pub(super) fn shared(&self, now: Instant) -> Option<PoolConnection<B>> {
        let mut shared = self.0.shared.borrow_mut();
        let shared = shared.as_mut().filter(|shared| !shared.sender.is_closed())?;
        shared.used = now;
        shared.position = self.0.all_idle.touch(shared.position, now);
        Some(PoolConnection::Http2(shared.sender.clone(), shared.number))
    }

    /// Shares a new HTTP/2 connection among later requests, if there is room for it. Returns the connection's number.
    pub(super) fn set_shared(&self, sender: SendRequest<B>) -> u64 {
        let number = self.0.next_number.get();
        self.0.next_number.set(number + 1);
        let used = Instant::now();
        if let Some(position) = self.0.all_idle.add(self.as_idle_store(), used) {
            let expires = self.0.settings.expiry(used);
            if self.0.replace_shared(Some(Shared { sender, number, used, expires, position })) {
                self.0.count_closed(UpstreamCloseReason::Age);
            }
        } else {
            self.0.count_closed(UpstreamCloseReason::Limit);
        }
        number
    }

    /// Returns whether the shared HTTP/2 connection has reached its age, so that another must be opened in its place. Returns it
    /// once, until [`Self::postpone_renewal`].
    pub(super) fn start_renewal(&self, now: Instant) -> bool {
        let mut shared = self.0.shared.borrow_mut();
        shared.as_mut().is_some_and(|shared| shared.expires.take_if(|expires| now >= *expires).is_some())
    }

    /// Keeps the shared HTTP/2 connection in use until then, since none could be opened in its place.
    pub(super) fn postpone_renewal(&self, until: Instant) {
        if let Some(shared) = self.0.shared.borrow_mut().as_mut() {
            shared.expires.get_or_insert(until);
        }
    }

    /// Removes an HTTP/2 connection from use for new requests. Its open streams continue.
    pub(super) fn retire(&self, number: u64) {
        if self.0.shared.borrow().as_ref().is_some_and(|shared| shared.number == number) {
            self.0.replace_shared(None);
        }
    }

    /// Takes back a connection after an exchange. Closes it if it cannot carry another request.
    pub(super) fn put_back(&self, tracked: TrackedConnection<B>) {
        if !tracked.connection.is_reusable() {
            return;
        }
        if tracked.connection.has_expired(tracked.used) {
            return self.0.count_closed(UpstreamCloseReason::Age);
        }
        self.offer(tracked, true);
    }

    /// Hands a connection to the first waiting request that accepts it, else keeps it idle.
    pub(super) fn offer(&self, tracked: TrackedConnection<B>, is_reused: bool) {
        let tracked = if self.0.waiting.is_empty() {
            tracked
        } else {
            match self.0.waiting.hand_over(Offer { connection: PoolConnection::Http1(tracked), is_reused }, is_reused) {
                Some(Offer { connection: PoolConnection::Http1(tracked), .. }) => tracked,
                Some(Offer { connection: PoolConnection::Http2(..), .. }) | None => return,
            }
        };
        self.keep(tracked);
    }

    fn keep(&self, mut tracked: TrackedConnection<B>) {
        if self.0.idle.borrow().len() >= self.0.settings.max_idle_per_worker {
            return self.0.count_closed(UpstreamCloseReason::PoolLimit);
        }
        let Some(position) = self.0.all_idle.add(self.as_idle_store(), tracked.used) else {
            return self.0.count_closed(UpstreamCloseReason::Limit);
        };
        tracked.position = position;
        tracked.count.set(ConnectionState::Idle);
        self.0.idle.borrow_mut().push(tracked);
    }

    fn as_idle_store(&self) -> Weak<dyn IdleStore> {
        let store: Weak<Inner<B>> = Rc::downgrade(&self.0);
        store
    }
}

impl<B: UploadBody> IdleStore for Inner<B> {
    fn close_idle(&self, position: Position) {
        let mut idle = self.idle.borrow_mut();
        if let Some(index) = idle.iter().position(|tracked| tracked.position == position) {
            idle.remove(index);
        }
        self.shared.borrow_mut().take_if(|shared| shared.position == position);
        self.count_closed(UpstreamCloseReason::Limit);
    }

    fn sweep(&self, now: Instant, round: u64) {
        if self.swept.replace(round) == round {
            return;
        }
        self.idle.borrow_mut().retain_mut(|tracked| {
            let reason = self.close_reason(tracked, now);
            let is_usable = tracked.connection.is_usable();
            if let Some(reason) = reason.filter(|_| is_usable) {
                self.count_closed(reason);
            }
            let is_kept = reason.is_none() && is_usable;
            if !is_kept {
                self.all_idle.remove(tracked.position);
            }
            is_kept
        });
        let shared = self.shared.borrow().as_ref().map(|shared| {
            let unused = now.saturating_duration_since(shared.used);
            let has_expired = shared.expires.is_some_and(|expires| now >= expires) && unused >= UNUSED_TIME;
            (shared.sender.is_closed(), self.reason(unused, has_expired))
        });
        // Open streams keep the connection open.
        if let Some((is_closed, reason)) = shared.filter(|(is_closed, reason)| *is_closed || reason.is_some()) {
            self.replace_shared(None);
            if let Some(reason) = reason.filter(|_| !is_closed) {
                self.count_closed(reason);
            }
        }
    }
}

impl<B: UploadBody> Inner<B> {
    /// Returns why an idle connection must be closed, if it must.
    fn close_reason(&self, idle: &TrackedConnection<B>, now: Instant) -> Option<UpstreamCloseReason> {
        self.reason(now.saturating_duration_since(idle.used), idle.connection.has_expired(now))
    }
}

impl<B> Inner<B> {
    fn reason(&self, unused: Duration, has_expired: bool) -> Option<UpstreamCloseReason> {
        let is_idle = unused >= self.settings.idle_timeout;
        is_idle.then_some(UpstreamCloseReason::Idle).or(has_expired.then_some(UpstreamCloseReason::Age))
    }

    #[cold]
    fn count_closed(&self, reason: UpstreamCloseReason) {
        self.metrics.upstream_closed(self.endpoint.label(), reason);
    }

    /// Replaces the shared connection. Returns whether another one was open.
    fn replace_shared(&self, shared: Option<Shared<B>>) -> bool {
        let replaced = self.shared.replace(shared);
        if let Some(replaced) = &replaced {
            self.all_idle.remove(replaced.position);
        }
        replaced.is_some_and(|replaced| !replaced.sender.is_closed())
    }
}

impl<B> ConnectionStore<B> {
    /// Sends an abandoned exchange to be finished in the background. `has_head` states whether the head of the response was read.
    pub(super) fn abandon(&self, connection: TrackedConnection<B>, has_head: bool) {
        let abandoned = Abandoned { connection, store: self.clone(), has_head };
        // There is no receiver after the worker has ended; dropping the exchange closes its connection.
        let _closed = self.0.abandoned.send(abandoned);
    }

    /// Counts an abandoned exchange that is being finished until the guard is dropped; `None` if there are `limit` of them.
    pub(super) fn start_finishing(&self, limit: usize) -> Option<Finishing<B>> {
        let finishing = self.0.finishing.get();
        (finishing < limit).then(|| {
            self.0.finishing.set(finishing + 1);
            Finishing(self.clone())
        })
    }
}

/// An abandoned exchange that is being finished.
pub(super) struct Finishing<B>(ConnectionStore<B>);

impl<B> Drop for Finishing<B> {
    fn drop(&mut self) {
        let finishing = &self.0.0.finishing;
        finishing.set(finishing.get().saturating_sub(1));
    }
}

impl<B> Clone for ConnectionStore<B> {
    fn clone(&self) -> Self {
        Self(Rc::clone(&self.0))
    }
}

impl<B> Drop for Inner<B> {
    fn drop(&mut self) {
        for tracked in self.idle.take() {
            self.all_idle.remove(tracked.position);
        }
        self.replace_shared(None);
    }
}

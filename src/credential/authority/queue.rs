//! The queue of token requests to one authority: bounds how many run at once, and decides which runs next.
//!
//! Requests that a caller waits for run before refreshes, and in each group those of tenants that answered quickly before those
//! whose last request was slow. Otherwise the order is that of arrival. A credential has at most one request in the queue for each
//! tenant, so no tenant can take more than its turn.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::credential::waiting_callers::WaitingCallers;
use crate::metrics::TokenMetrics;

/// How many token requests to an authority run at once, unless configured otherwise. Chosen: Entra answers in a tenth of a second,
/// so that 1,000 tenants without a token are served within ten seconds.
pub(super) const MAX_REQUESTS: usize = 16;

/// How long a request counts as running. Chosen: Entra answers most requests within a second. A tenant whose requests hang must
/// not keep others from theirs.
const COUNTED_FOR: Duration = Duration::from_secs(2);

/// The token requests to one authority.
#[derive(Debug)]
pub(super) struct RequestQueue {
    state: Mutex<State>,
    metrics: TokenMetrics,
}

#[derive(Debug)]
struct State {
    max: usize,
    /// The running requests that count.
    counted: usize,
    waiting: BTreeMap<Position, oneshot::Sender<Permit>>,
    next_number: u64,
}

/// A position in the queue. The smallest is next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Position {
    is_refresh: bool,
    was_slow: bool,
    /// The order of arrival.
    number: u64,
}

/// What the queue knows about the sender of a request: a credential in one tenant.
#[derive(Debug, Default)]
pub(crate) struct Requester {
    /// The callers that wait for its token.
    callers: Arc<WaitingCallers>,
    /// Whether its last request ran for longer than [`COUNTED_FOR`].
    was_slow: AtomicBool,
}

/// The permission to run one request. Dropping it lets the next one run.
#[derive(Debug)]
struct Permit(Arc<RequestQueue>);

/// The place of a request in the queue. Dropping it removes the request.
#[derive(Debug)]
struct Ticket {
    queue: Arc<RequestQueue>,
    position: Position,
    permit: oneshot::Receiver<Permit>,
}

impl Requester {
    /// Creates a requester. `callers` counts those that wait for its token.
    pub(crate) fn new(callers: Arc<WaitingCallers>) -> Self {
        Self { callers, was_slow: AtomicBool::new(false) }
    }
}

impl RequestQueue {
    /// Creates a queue in which at most `max` requests run at once.
    pub(super) fn new(max: usize, metrics: TokenMetrics) -> Self {
        let state = State { max: max.max(1), counted: 0, waiting: BTreeMap::new(), next_number: 0 };
        Self { state: Mutex::new(state), metrics }
    }

    /// Sets how many requests run at once. If more are running, they continue.
    pub(super) fn set_max(self: &Arc<Self>, max: usize) {
        self.lock().max = max.max(1);
        self.start_next();
    }

    /// Waits for the turn of a request, then runs it.
    ///
    /// # Cancel safety
    /// Safe: cancelling removes the request from the queue, or drops the running `request` and lets the next one run.
    pub(super) async fn run<T>(self: &Arc<Self>, requester: &Requester, request: impl Future<Output = T>) -> T {
        let permit = self.permit(requester).await;
        let _running = self.metrics.request_runs();
        tokio::pin!(request);
        let outcome = timeout(COUNTED_FOR, &mut request).await;
        requester.was_slow.store(outcome.is_err(), Ordering::Relaxed);
        drop(permit);
        match outcome {
            Ok(outcome) => outcome,
            Err(_elapsed) => {
                self.metrics.request_is_slow();
                request.await
            }
        }
    }

    async fn permit(self: &Arc<Self>, requester: &Requester) -> Permit {
        let mut ticket = self.enter(!requester.callers.any(), requester.was_slow.load(Ordering::Relaxed));
        let _queued = self.metrics.request_queues();
        self.start_next();
        loop {
            let permit = tokio::select! {
                biased;
                permit = &mut ticket.permit => permit,
                () = requester.callers.until_any(), if ticket.position.is_refresh => {
                    ticket.put_before_refreshes();
                    continue;
                }
            };
            if let Ok(permit) = permit {
                return permit;
            }
            // The sender is dropped only after it has sent the permit.
            ticket = self.enter(ticket.position.is_refresh, ticket.position.was_slow);
            self.start_next();
        }
    }

    fn enter(self: &Arc<Self>, is_refresh: bool, was_slow: bool) -> Ticket {
        let (sender, permit) = oneshot::channel();
        let mut state = self.lock();
        let position = Position { is_refresh, was_slow, number: state.next_number };
        state.next_number += 1;
        state.waiting.insert(position, sender);
        Ticket { queue: Arc::clone(self), position, permit }
    }

    /// Starts the next requests, as many as may run.
    fn start_next(self: &Arc<Self>) {
        while let Some(next) = self.take_next() {
            // A request that was cancelled returns its permit, which starts the next one. The lock must not be held here.
            drop(next.send(Permit(Arc::clone(self))));
        }
    }

    fn take_next(&self) -> Option<oneshot::Sender<Permit>> {
        let mut state = self.lock();
        if state.counted >= state.max {
            return None;
        }
        let (_, next) = state.waiting.pop_first()?;
        state.counted += 1;
        Some(next)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Moves the request before all refreshes, because a caller waits for it now.
    fn put_before_refreshes(&mut self) {
        let mut state = self.queue.lock();
        let before = std::mem::replace(&mut self.position.is_refresh, false);
        let old = Position { is_refresh: before, ..self.position };
        if let Some(sender) = state.waiting.remove(&old) {
            state.waiting.insert(self.position, sender);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let removed = self.queue.lock().waiting.remove(&self.position);
        drop(removed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.lock().counted -= 1;
        self.0.start_next();
    }
}

#[cfg(test)]
mod tests;

//! The maximum number of idle connections over all endpoints and workers.
//!
//! A worker reserves room for each connection that it keeps, and holds its reservations while requests use the connections, so the
//! request path takes no lock and usually changes nothing that workers share. If no room is left, a worker closes the connection
//! that has been idle longest among its own, and asks the worker whose connection has been idle longest to give up one.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::Notify;

/// Stands for "no idle connection".
const NONE: u64 = u64::MAX;

/// The maximum number of idle connections, and the number of reservations. Shared by all workers.
pub struct IdleLimit {
    limit: AtomicUsize,
    reserved: AtomicUsize,
    workers: ArcSwap<Vec<Arc<Worker>>>,
    /// The origin of the times in milliseconds.
    epoch: Instant,
}

/// What other workers see of one.
struct Worker {
    /// The time since which its oldest connection has been idle, in milliseconds after `epoch`. Updated at each sweep.
    oldest: AtomicU64,
    /// The number of reservations that other workers have asked it to give up.
    asked: AtomicUsize,
    wake: Notify,
}

impl Default for IdleLimit {
    fn default() -> Self {
        Self {
            limit: AtomicUsize::new(usize::MAX),
            reserved: AtomicUsize::new(0),
            workers: ArcSwap::default(),
            epoch: Instant::now(),
        }
    }
}

impl IdleLimit {
    /// Sets the maximum. If it was higher, surplus connections are closed within the interval of the sweeps.
    pub fn set(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// Adds a worker.
    pub(super) fn register(self: &Arc<Self>) -> IdleShare {
        let worker = Arc::new(Worker { oldest: AtomicU64::new(NONE), asked: AtomicUsize::new(0), wake: Notify::new() });
        self.workers.rcu(|workers| workers.iter().chain([&worker]).cloned().collect::<Vec<_>>());
        IdleShare { limit: Arc::clone(self), worker, reserved: Cell::new(0) }
    }
}

/// One worker's reservations.
pub(super) struct IdleShare {
    limit: Arc<IdleLimit>,
    worker: Arc<Worker>,
    reserved: Cell<usize>,
}

impl IdleShare {
    /// Returns the number of this worker's reservations.
    pub(super) fn reserved(&self) -> usize {
        self.reserved.get()
    }

    /// Reserves room for one more connection. Returns whether there is any.
    pub(super) fn reserve(&self) -> bool {
        let limit = self.limit.limit.load(Ordering::Relaxed);
        let reserve = |reserved: usize| (reserved < limit).then_some(reserved + 1);
        let is_reserved = self.limit.reserved.fetch_update(Ordering::Relaxed, Ordering::Relaxed, reserve).is_ok();
        if is_reserved {
            self.reserved.set(self.reserved.get() + 1);
        }
        is_reserved
    }

    /// Gives reservations up.
    pub(super) fn release(&self, count: usize) {
        let count = count.min(self.reserved.get());
        self.reserved.set(self.reserved.get() - count);
        self.limit.reserved.fetch_sub(count, Ordering::Relaxed);
    }

    /// Returns this worker's part of the reservations beyond the maximum, which may have been lowered.
    pub(super) fn surplus(&self) -> usize {
        let (limit, reserved) = (&self.limit.limit, &self.limit.reserved);
        let surplus = reserved.load(Ordering::Relaxed).saturating_sub(limit.load(Ordering::Relaxed));
        surplus.div_ceil(self.limit.workers.load().len().max(1)).min(self.reserved.get())
    }

    /// Publishes since when this worker's oldest connection has been idle.
    pub(super) fn publish(&self, oldest: Option<Instant>) {
        self.worker.oldest.store(self.millis(oldest), Ordering::Relaxed);
    }

    /// Asks the worker whose connection has been idle longest to give up a reservation, unless this worker's has.
    pub(super) fn ask_for_room(&self, oldest_here: Option<Instant>) {
        let workers = self.limit.workers.load();
        let others = workers.iter().filter(|worker| !Arc::ptr_eq(worker, &self.worker));
        let oldest = others.min_by_key(|worker| worker.oldest.load(Ordering::Relaxed));
        if let Some(other) = oldest.filter(|other| other.oldest.load(Ordering::Relaxed) < self.millis(oldest_here)) {
            other.asked.fetch_add(1, Ordering::Relaxed);
            other.wake.notify_one();
        }
    }

    /// Returns the number of reservations that other workers have asked for since the last call.
    pub(super) fn take_asked(&self) -> usize {
        self.worker.asked.swap(0, Ordering::Relaxed)
    }

    /// Waits until the worker is asked or [`IdleShare::wake`] is called.
    pub(super) async fn woken(&self) {
        self.worker.wake.notified().await;
    }

    pub(super) fn wake(&self) {
        self.worker.wake.notify_one();
    }

    fn millis(&self, at: Option<Instant>) -> u64 {
        let after = |at: Instant| at.saturating_duration_since(self.limit.epoch);
        at.map_or(NONE, |at| u64::try_from(after(at).min(Duration::from_secs(1 << 40)).as_millis()).unwrap_or(NONE))
    }
}

impl Drop for IdleShare {
    fn drop(&mut self) {
        self.release(self.reserved.get());
        let is_other = |worker: &&Arc<Worker>| !Arc::ptr_eq(worker, &self.worker);
        self.limit.workers.rcu(|workers| workers.iter().filter(is_other).cloned().collect::<Vec<_>>());
    }
}

impl std::fmt::Debug for IdleLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("IdleLimit")
            .field("limit", &self.limit)
            .field("reserved", &self.reserved)
            .finish_non_exhaustive()
    }
}

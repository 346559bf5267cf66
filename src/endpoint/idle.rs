//! The idle connections of one worker, over all its pools: the one that has been idle longest closes first if there are too many,
//! and one task closes those that reach the idle timeout of their endpoint.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::time::timeout_at;

use super::idle_limit::{IdleLimit, IdleShare};
use super::idle_order::{IdleOrder, Position};

/// The interval at which idle connections are checked for the idle timeout.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// The number of pools that are checked before other tasks run. Chosen: it takes less than a millisecond.
const CHUNK: usize = 256;

/// The owner of idle connections.
pub(super) trait IdleStore {
    /// Closes the idle connection at a position, which is no longer valid.
    fn close_idle(&self, position: Position);

    /// Closes connections that reached the idle timeout or that the endpoint has closed. Does nothing if it was called in the same
    /// round before.
    fn sweep(&self, now: Instant, round: u64);
}

/// The idle connections of one worker.
pub(super) struct IdleConnections {
    order: RefCell<IdleOrder<Idle>>,
    share: IdleShare,
    /// Whether the task sweeps. It waits while there is no idle connection.
    is_sweeping: Cell<bool>,
}

struct Idle {
    store: Weak<dyn IdleStore>,
    since: Instant,
}

impl IdleConnections {
    /// Creates an empty list and starts the task that sweeps it. Must be called on the worker's thread, inside its runtime.
    pub(super) fn start(limit: &Arc<IdleLimit>) -> Rc<Self> {
        let (order, is_sweeping) = Default::default();
        let idle = Rc::new(Self { order, share: limit.register(), is_sweeping });
        // The task ends with the worker.
        tokio::task::spawn_local(Rc::clone(&idle).keep_sweeping());
        idle
    }

    /// Adds a connection of `store`. Returns its position, or `None` if there is no room. Closes the connection that has been idle
    /// longest to make room.
    pub(super) fn add(&self, store: Weak<dyn IdleStore>, since: Instant) -> Option<Position> {
        if self.order.borrow().len() >= self.share.reserved() && !self.share.reserve() {
            self.share.ask_for_room(self.oldest());
            if !self.close_oldest() {
                return None;
            }
        }
        if !self.is_sweeping.replace(true) {
            self.share.publish(Some(since));
            self.share.wake();
        }
        Some(self.order.borrow_mut().push(Idle { store, since }))
    }

    /// Removes a connection.
    pub(super) fn remove(&self, position: Position) {
        self.order.borrow_mut().remove(position);
    }

    /// Makes a connection the one that was used last. Returns its new position.
    pub(super) fn touch(&self, position: Position, now: Instant) -> Position {
        let mut order = self.order.borrow_mut();
        match order.remove(position) {
            Some(idle) => order.push(Idle { since: now, ..idle }),
            None => Position::NONE,
        }
    }

    fn oldest(&self) -> Option<Instant> {
        self.order.borrow().oldest().map(|(_, idle)| idle.since)
    }

    /// Closes the connection that has been idle longest. Returns whether there was one.
    fn close_oldest(&self) -> bool {
        let Some(position) = self.order.borrow().oldest().map(|(position, _)| position) else { return false };
        let removed = self.order.borrow_mut().remove(position);
        if let Some(store) = removed.and_then(|idle| idle.store.upgrade()) {
            store.close_idle(position);
        }
        self.share.publish(self.oldest());
        true
    }

    /// Gives up reservations: first those that no idle connection needs.
    fn give_up(&self, mut count: usize) {
        let unneeded = self.share.reserved().saturating_sub(self.order.borrow().len()).min(count);
        self.share.release(unneeded);
        count -= unneeded;
        while count > 0 && self.close_oldest() {
            self.share.release(1);
            count -= 1;
        }
    }

    async fn keep_sweeping(self: Rc<Self>) {
        let mut round = 0;
        let mut next = tokio::time::Instant::now() + SWEEP_INTERVAL;
        loop {
            let is_due = if self.order.borrow().len() == 0 {
                self.is_sweeping.set(false);
                self.share.release(self.share.reserved());
                self.share.publish(None);
                self.share.woken().await;
                next = tokio::time::Instant::now() + SWEEP_INTERVAL;
                false
            } else {
                timeout_at(next, self.share.woken()).await.is_err()
            };
            self.give_up(self.share.take_asked());
            if is_due {
                round += 1;
                self.sweep(round).await;
                next = tokio::time::Instant::now() + SWEEP_INTERVAL;
            }
        }
    }

    async fn sweep(&self, round: u64) {
        let mut stores: Vec<_> = self.order.borrow().entries().map(|idle| Weak::clone(&idle.store)).collect();
        while !stores.is_empty() {
            let now = Instant::now();
            let chunk = stores.split_off(stores.len().saturating_sub(CHUNK));
            for store in chunk.iter().filter_map(Weak::upgrade) {
                store.sweep(now, round);
            }
            tokio::task::yield_now().await;
        }
        let unneeded = self.share.reserved().saturating_sub(self.order.borrow().len());
        self.share.release(unneeded);
        self.give_up(self.share.surplus());
        self.share.publish(self.oldest());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::endpoint::http1::tests::run;

    /// Records the positions of closed connections.
    #[derive(Default)]
    struct Closed(RefCell<Vec<Position>>);

    impl IdleStore for Closed {
        fn close_idle(&self, position: Position) {
            self.0.borrow_mut().push(position);
        }

        fn sweep(&self, _now: Instant, _round: u64) {}
    }

    fn weak(store: &Rc<Closed>) -> Weak<dyn IdleStore> {
        let store: Rc<dyn IdleStore> = Rc::<Closed>::clone(store);
        Rc::downgrade(&store)
    }

    #[test]
    fn connection_that_has_been_idle_longest_closes_first() {
        run(async {
            let limit = Arc::new(IdleLimit::default());
            limit.set(2);
            let idle = IdleConnections::start(&limit);
            let (store, now) = (Rc::new(Closed::default()), Instant::now());
            let first = idle.add(weak(&store), now).unwrap();
            let second = idle.add(weak(&store), now).unwrap();
            let first_again = idle.touch(first, now);
            let _third = idle.add(weak(&store), now).unwrap();
            assert_eq!(*store.0.borrow(), [second]);
            let _fourth = idle.add(weak(&store), now).unwrap();
            assert_eq!(*store.0.borrow(), [second, first_again]);
        });
    }

    #[test]
    fn worker_without_room_gets_that_of_the_worker_whose_connection_has_been_idle_longest() {
        run(async {
            let limit = Arc::new(IdleLimit::default());
            limit.set(2);
            let (busy, quiet) = (IdleConnections::start(&limit), IdleConnections::start(&limit));
            let (store, now) = (Rc::new(Closed::default()), Instant::now());
            let old = quiet.add(weak(&store), now).unwrap();
            let older = quiet.add(weak(&store), now).unwrap();
            let later = now + Duration::from_secs(1);
            assert_eq!(busy.add(weak(&store), later), None, "the other worker has all reservations");
            while store.0.borrow().is_empty() {
                tokio::task::yield_now().await;
            }
            assert_eq!(*store.0.borrow(), [old]);
            busy.add(weak(&store), later).unwrap();
            assert_eq!(busy.order.borrow().len() + quiet.order.borrow().len(), 2);
            quiet.remove(older);
        });
    }

    #[test]
    fn reservations_return_with_the_worker() {
        run(async {
            let limit = Arc::new(IdleLimit::default());
            limit.set(1);
            let share = limit.register();
            assert!(share.reserve() && !limit.register().reserve());
            drop(share);
            assert!(limit.register().reserve());
        });
    }
}

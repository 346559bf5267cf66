//! How many calls may be in work at once, at a listener or at an endpoint. Those beyond wait in a short queue; who finds it
//! full, or waits too long, is turned away.
//!
//! One gate is shared by all workers, so that the limit holds for all together. Where none is configured there is no gate, and
//! no worker shares anything.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Where and how long calls wait that find no room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// The most that wait at one gate.
    pub length: usize,
    /// How long each may wait.
    pub time: Duration,
}

/// Lets so many calls in and no more.
#[derive(Debug)]
pub(super) struct Gate {
    limit: usize,
    room: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A call's place. Dropping it makes room.
pub(super) type Place = OwnedSemaphorePermit;

/// There is no room, and there was none while the call waited.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// As many wait as may.
    QueueFull,
    /// It waited as long as it may.
    WaitedInVain,
}

impl Gate {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, room: Arc::new(Semaphore::new(limit)), waiting: AtomicUsize::new(0) }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Lets a call in at once, if there is room and nobody waits for it.
    pub(super) fn enter_now(&self) -> Option<Place> {
        Arc::clone(&self.room).try_acquire_owned().ok()
    }

    /// Waits for room.
    ///
    /// # Cancel safety
    /// Safe: the place in the queue is given up.
    pub(super) async fn enter(&self, queue: QueueSettings) -> Result<Place, NoRoom> {
        let _waiting = Waiting::join(&self.waiting, queue.length).ok_or(NoRoom::QueueFull)?;
        let place = tokio::time::timeout(queue.time, Arc::clone(&self.room).acquire_owned()).await;
        // The semaphore is never closed.
        place.ok().and_then(Result::ok).ok_or(NoRoom::WaitedInVain)
    }
}

/// A place in the queue, until it is dropped.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(waiting: &'a AtomicUsize, most: usize) -> Option<Self> {
        let joined = waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| (waiting < most).then_some(waiting + 1));
        joined.ok().map(|_before| Self(waiting))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUEUE: QueueSettings = QueueSettings { length: 1, time: Duration::from_millis(100) };

    #[tokio::test(start_paused = true)]
    async fn who_finds_no_room_waits_for_it_a_while() {
        let gate = Gate::new(1);
        let first = gate.enter_now().unwrap();
        assert!(gate.enter_now().is_none());
        assert_eq!(gate.enter(QUEUE).await.err(), Some(NoRoom::WaitedInVain));
        let (second, ()) = tokio::join!(gate.enter(QUEUE), async {
            tokio::task::yield_now().await;
            drop(first);
        });
        let second = second.unwrap();
        let (waits, beyond) = tokio::join!(gate.enter(QUEUE), gate.enter(QUEUE));
        assert_eq!((waits.err(), beyond.err()), (Some(NoRoom::WaitedInVain), Some(NoRoom::QueueFull)));
        drop(second);
        assert!(gate.enter_now().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_away_leaves_the_queue() {
        let gate = Gate::new(1);
        let _first = gate.enter_now().unwrap();
        for _ in 0..3 {
            let gave_up = tokio::time::timeout(Duration::from_millis(1), gate.enter(QUEUE)).await;
            assert!(gave_up.is_err(), "{gave_up:?}");
        }
    }
}

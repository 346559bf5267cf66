//! How many calls may be in progress at once, at a listener or at an endpoint. Calls beyond the limit wait in a short
//! queue and fail when it is full or the wait is too long.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::deadline::RequestDeadline;
use crate::metrics::QueueOutcome;

/// How many calls may wait for a permit, and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueSettings {
    /// The maximum number of calls that wait for one limit.
    pub length: usize,
    /// The longest wait.
    pub max_wait: Duration,
}

/// The number of calls that may be in progress at once. Shared by all workers.
#[derive(Debug)]
pub struct ConcurrencyLimit {
    limit: usize,
    permits: Arc<Semaphore>,
    waiting: AtomicUsize,
}

/// A permit for one call in progress. Dropping it releases the slot.
pub type ConcurrencyPermit = OwnedSemaphorePermit;

/// How a wait for a permit ended.
#[derive(Debug)]
pub struct Queued {
    /// The permit; `None` if the queue was full or the wait too long.
    pub permit: Option<ConcurrencyPermit>,
    /// The metric label.
    pub outcome: QueueOutcome,
    /// How long the call waited.
    pub waited: Duration,
}

impl Queued {
    /// How long a call that got no permit should wait before it tries again. The real time is unknown; one second empties
    /// most queues.
    pub const RETRY_AFTER: Duration = Duration::from_secs(1);
}

impl ConcurrencyLimit {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, permits: Arc::new(Semaphore::new(limit)), waiting: AtomicUsize::new(0) }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// Returns a permit if one is free and no call waits for it.
    pub fn try_acquire(&self) -> Option<ConcurrencyPermit> {
        Arc::clone(&self.permits).try_acquire_owned().ok()
    }

    /// Waits for a permit, until the request's deadline at most.
    ///
    /// # Cancel safety
    /// Safe: the call leaves the queue.
    pub async fn acquire(&self, queue: QueueSettings, deadline: RequestDeadline) -> Queued {
        let began = Instant::now();
        let Some(_waiting) = Waiting::join(&self.waiting, queue.length) else {
            return Queued { permit: None, outcome: QueueOutcome::Full, waited: began.elapsed() };
        };
        let timeout = queue.max_wait.min(deadline.remaining(began));
        let permit = tokio::time::timeout(timeout, Arc::clone(&self.permits).acquire_owned()).await;
        // The semaphore is never closed.
        let permit = permit.ok().and_then(Result::ok);
        let outcome = if permit.is_some() { QueueOutcome::Entered } else { QueueOutcome::TimedOut };
        Queued { permit, outcome, waited: began.elapsed() }
    }
}

/// A call in the queue. Dropping it leaves the queue.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn join(waiting: &'a AtomicUsize, limit: usize) -> Option<Self> {
        let joined = waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |waiting| (waiting < limit).then_some(waiting + 1));
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

    const QUEUE: QueueSettings = QueueSettings { length: 1, max_wait: Duration::from_millis(100) };

    fn far() -> RequestDeadline {
        RequestDeadline::new(Instant::now(), Duration::from_secs(3600))
    }

    #[tokio::test(start_paused = true)]
    async fn excess_calls_queue_briefly_then_fail() {
        let limit = ConcurrencyLimit::new(1);
        let first = limit.try_acquire().unwrap();
        assert!(limit.try_acquire().is_none());
        let late = limit.acquire(QUEUE, far()).await;
        assert!(late.permit.is_none());
        assert_eq!(late.outcome, QueueOutcome::TimedOut);
        let (second, ()) = tokio::join!(limit.acquire(QUEUE, far()), async {
            tokio::task::yield_now().await;
            drop(first);
        });
        assert_eq!(second.outcome, QueueOutcome::Entered);
        let second = second.permit.unwrap();
        let (waits, beyond) = tokio::join!(limit.acquire(QUEUE, far()), limit.acquire(QUEUE, far()));
        assert!(waits.permit.is_none() && beyond.permit.is_none());
        assert_eq!((waits.outcome, beyond.outcome), (QueueOutcome::TimedOut, QueueOutcome::Full));
        drop(second);
        assert!(limit.try_acquire().is_some());
    }

    #[tokio::test(start_paused = true)]
    async fn queue_ends_with_the_requests_deadline() {
        let limit = ConcurrencyLimit::new(1);
        let _first = limit.try_acquire().unwrap();
        let passed = RequestDeadline::new(Instant::now(), Duration::ZERO);
        let began = tokio::time::Instant::now();
        let queue = QueueSettings { length: 1, max_wait: Duration::from_secs(60) };
        assert_eq!(limit.acquire(queue, passed).await.outcome, QueueOutcome::TimedOut);
        assert!(began.elapsed() < Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn cancelled_calls_leave_the_queue() {
        let limit = ConcurrencyLimit::new(1);
        let _first = limit.try_acquire().unwrap();
        for _ in 0..3 {
            let cancelled = tokio::time::timeout(Duration::from_millis(1), limit.acquire(QUEUE, far())).await;
            assert!(cancelled.is_err(), "{cancelled:?}");
        }
    }
}

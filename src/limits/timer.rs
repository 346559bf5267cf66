//! A timer for the deadlines of one worker.
//!
//! Hardly any deadline of an attempt ever passes. So deadlines are only stored, and one task sweeps over them every
//! [`SWEEP`]. A tokio timer for each attempt (a boxed `Sleep`, some 20 lines in place of this file) takes 1,100 of 32,500
//! instructions more per request (callgrind, `bench.sh --instructions`, plain, 64 connections, median of three runs each,
//! 2026-11-27).

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use slab::Slab;

/// The sweep interval, which is also the maximum delay of a deadline.
const SWEEP: Duration = Duration::from_millis(10);
/// The number of sweeps without any deadline after which the task ends.
const IDLE_SWEEPS: u32 = 100;

/// A worker's timer. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct DeadlineTimer(Rc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    entries: RefCell<Slab<Entry>>,
    /// Whether the sweeping task runs.
    is_running: Cell<bool>,
}

#[derive(Debug)]
struct Entry {
    deadline: Instant,
    has_passed: bool,
    waker: Waker,
}

impl DeadlineTimer {
    /// Drives a future until it ends or the deadline passes. Returns `None` for a deadline that passed, up to about 10
    /// ms late. `extend` may then return a later deadline, which replaces the first.
    ///
    /// # Cancel safety
    /// That of the future.
    pub fn until<F: Future, E: Fn(Instant) -> Option<Instant>>(
        &self,
        deadline: Instant,
        extend: E,
        future: F,
    ) -> Until<F, E> {
        Until { future, slot: Slot { shared: Rc::clone(&self.0), index: None }, deadline, extend }
    }
}

impl Shared {
    fn insert(self: &Rc<Self>, deadline: Instant, waker: &Waker) -> usize {
        if !self.is_running.replace(true) {
            // Ends after `IDLE_SWEEPS`, or with the worker.
            tokio::task::spawn_local(run(Rc::clone(self)));
        }
        self.entries.borrow_mut().insert(Entry { deadline, has_passed: false, waker: waker.clone() })
    }

    fn sweep(&self) {
        let now = Instant::now();
        for (_, entry) in &mut *self.entries.borrow_mut() {
            if entry.deadline <= now && !entry.has_passed {
                entry.has_passed = true;
                entry.waker.wake_by_ref();
            }
        }
    }
}

async fn run(shared: Rc<Shared>) {
    let mut idle_sweeps = 0;
    while idle_sweeps < IDLE_SWEEPS {
        tokio::time::sleep(SWEEP).await;
        shared.sweep();
        idle_sweeps = if shared.entries.borrow().is_empty() { idle_sweeps + 1 } else { 0 };
    }
    shared.is_running.set(false);
}

pin_project! {
    /// The future of [`DeadlineTimer::until`].
    #[derive(Debug)]
    pub struct Until<F, E> {
        #[pin]
        future: F,
        slot: Slot,
        deadline: Instant,
        extend: E,
    }
}

/// The slot of a deadline in the timer. Dropping it removes the deadline.
#[derive(Debug)]
struct Slot {
    shared: Rc<Shared>,
    /// `None` until the future was first pending.
    index: Option<usize>,
}

impl<F: Future, E: Fn(Instant) -> Option<Instant>> Future for Until<F, E> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        let Some(index) = this.slot.index else {
            this.slot.index = Some(this.slot.shared.insert(*this.deadline, cx.waker()));
            return Poll::Pending;
        };
        let mut entries = this.slot.shared.entries.borrow_mut();
        let Some(entry) = entries.get_mut(index) else { return Poll::Ready(None) };
        if entry.has_passed {
            let Some(later) = (this.extend)(Instant::now()) else { return Poll::Ready(None) };
            entry.deadline = later;
            entry.has_passed = false;
        }
        entry.waker.clone_from(cx.waker());
        Poll::Pending
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if let Some(index) = self.index {
            self.shared.entries.borrow_mut().try_remove(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn never(_now: Instant) -> Option<Instant> {
        None
    }

    #[test]
    fn extended_deadlines_pass_later_and_those_in_the_past_are_extended_again() {
        on_a_worker(async {
            let timer = DeadlineTimer::default();
            let began = Instant::now();
            let calls = Cell::new(0);
            let extend = |now: Instant| {
                calls.set(calls.get() + 1);
                (calls.get() < 4).then_some(if calls.get() == 2 { began } else { now + SWEEP })
            };
            assert_eq!(timer.until(began, extend, std::future::pending::<()>()).await, None);
            assert_eq!(calls.get(), 4);
            assert!(began.elapsed() >= 2 * SWEEP && timer.0.entries.borrow().is_empty());
        });
    }

    /// Runs a test on a worker's kind of runtime.
    fn on_a_worker(test: impl Future<Output = ()>) {
        let options = tokio::runtime::LocalOptions::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(options);
        runtime.unwrap().block_on(test);
    }

    #[test]
    fn future_that_ends_in_time_returns_its_output_and_leaves_no_entry() {
        on_a_worker(async {
            let timer = DeadlineTimer::default();
            let far = Instant::now() + Duration::from_secs(60);
            let ended = timer.until(far, never, async {
                tokio::task::yield_now().await;
                7
            });
            assert_eq!(ended.await, Some(7));
            assert!(timer.0.entries.borrow().is_empty());
        });
    }

    #[test]
    fn future_that_misses_its_deadline_or_is_dropped_leaves_no_entry() {
        on_a_worker(async {
            let timer = DeadlineTimer::default();
            let pending = std::future::pending::<()>;
            assert_eq!(timer.until(Instant::now(), never, pending()).await, None);
            let far = Instant::now() + Duration::from_secs(60);
            let dropped = tokio::time::timeout(Duration::from_millis(1), timer.until(far, never, pending())).await;
            assert!(dropped.is_err() && timer.0.entries.borrow().is_empty());
        });
    }

    #[test]
    fn future_that_moves_to_another_task_is_woken_there() {
        on_a_worker(async {
            let timer = DeadlineTimer::default();
            let mut until = Box::pin(timer.until(Instant::now() + SWEEP, never, std::future::pending::<()>()));
            assert!(futures_util::poll!(until.as_mut()).is_pending());
            assert_eq!(tokio::task::spawn_local(until).await.unwrap(), None);
        });
    }
}

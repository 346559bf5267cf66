//! The deadline of a request, and the deadlines that one worker waits for. Nearly none of them ever passes, so they are only noted down, and one task looks
//! through the notes every so often: setting and clearing a timer for each attempt cost ten times as much.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use pin_project_lite::pin_project;
use slab::Slab;

/// How often it is looked whether a deadline has passed, and so the most by which one is late.
const LOOK: Duration = Duration::from_millis(10);
/// How many looks in a row may find nothing to look at before the task ends.
const IDLE_LOOKS: u32 = 100;

/// When a request's time is over. Set when its head was read, and never put off.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestDeadline {
    at: Instant,
    limit: Duration,
}

impl RequestDeadline {
    pub(super) fn new(started: Instant, limit: Duration) -> Self {
        Self { at: started + limit, limit }
    }

    /// Returns when it is.
    pub(super) fn at(self) -> Instant {
        self.at
    }

    /// Returns the time that the request had in all.
    pub(super) fn limit(self) -> Duration {
        self.limit
    }

    /// Returns the time that is left; nothing when it has passed.
    pub(super) fn remaining(self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }
}

/// The deadlines that are being waited for. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(super) struct Deadlines(Rc<Notes>);

#[derive(Debug, Default)]
struct Notes {
    waiting: RefCell<Slab<Waiting>>,
    is_watched: Cell<bool>,
}

#[derive(Debug)]
struct Waiting {
    deadline: Instant,
    has_passed: bool,
    task: Waker,
}

impl Deadlines {
    /// Drives a future until it ends or the deadline passes; then there is `None`, at most some 10 ms late. When it passes,
    /// `extend` may give a later one in its place.
    ///
    /// # Cancel safety
    /// As the future's.
    pub(super) fn until<F: Future, E: Fn(Instant) -> Option<Instant>>(
        &self,
        deadline: Instant,
        extend: E,
        future: F,
    ) -> Until<F, E> {
        Until { future, place: Place { notes: Rc::clone(&self.0), taken: None }, deadline, extend }
    }
}

impl Notes {
    fn note(self: &Rc<Self>, deadline: Instant, task: &Waker) -> usize {
        if !self.is_watched.replace(true) {
            // Ends when there has been nothing to watch for a while, or with the worker.
            tokio::task::spawn_local(watch(Rc::clone(self)));
        }
        self.waiting.borrow_mut().insert(Waiting { deadline, has_passed: false, task: task.clone() })
    }

    fn look(&self) {
        let now = Instant::now();
        for (_, waiting) in &mut *self.waiting.borrow_mut() {
            if waiting.deadline <= now && !waiting.has_passed {
                waiting.has_passed = true;
                waiting.task.wake_by_ref();
            }
        }
    }
}

async fn watch(notes: Rc<Notes>) {
    let mut idle_looks = 0;
    while idle_looks < IDLE_LOOKS {
        tokio::time::sleep(LOOK).await;
        notes.look();
        idle_looks = if notes.waiting.borrow().is_empty() { idle_looks + 1 } else { 0 };
    }
    notes.is_watched.set(false);
}

pin_project! {
    /// See [`Deadlines::until`].
    pub(super) struct Until<F, E> {
        #[pin]
        future: F,
        place: Place,
        deadline: Instant,
        extend: E,
    }
}

/// Where a deadline is noted down. Dropping it strikes the note out.
struct Place {
    notes: Rc<Notes>,
    taken: Option<usize>,
}

impl<F: Future, E: Fn(Instant) -> Option<Instant>> Future for Until<F, E> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        let Some(place) = this.place.taken else {
            this.place.taken = Some(this.place.notes.note(*this.deadline, cx.waker()));
            return Poll::Pending;
        };
        let mut waiting = this.place.notes.waiting.borrow_mut();
        let Some(waiting) = waiting.get_mut(place) else { return Poll::Ready(None) };
        if waiting.has_passed {
            let Some(later) = (this.extend)(Instant::now()) else { return Poll::Ready(None) };
            waiting.deadline = later;
            waiting.has_passed = false;
        }
        waiting.task.clone_from(cx.waker());
        Poll::Pending
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(place) = self.taken {
            self.notes.waiting.borrow_mut().try_remove(place);
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
    fn deadline_that_is_extended_passes_later_and_one_in_the_past_is_asked_again() {
        on_a_worker(async {
            let deadlines = Deadlines::default();
            let began = Instant::now();
            let asked = Cell::new(0);
            let extend = |now: Instant| {
                asked.set(asked.get() + 1);
                (asked.get() < 4).then_some(if asked.get() == 2 { began } else { now + LOOK })
            };
            assert_eq!(deadlines.until(began, extend, std::future::pending::<()>()).await, None);
            assert_eq!(asked.get(), 4);
            assert!(began.elapsed() >= 2 * LOOK && deadlines.0.waiting.borrow().is_empty());
        });
    }

    #[test]
    fn what_is_left_of_a_request_only_grows_less() {
        let started = Instant::now();
        let deadline = RequestDeadline::new(started, Duration::from_secs(3));
        assert_eq!(deadline.remaining(started + Duration::from_secs(1)), Duration::from_secs(2));
        assert_eq!(deadline.remaining(started + Duration::from_secs(4)), Duration::ZERO);
    }

    /// Runs a test as a worker would.
    fn on_a_worker(test: impl Future<Output = ()>) {
        let options = tokio::runtime::LocalOptions::default();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(options);
        runtime.unwrap().block_on(test);
    }

    #[test]
    fn a_future_that_ends_in_time_is_not_touched_and_leaves_no_note() {
        on_a_worker(async {
            let deadlines = Deadlines::default();
            let soon = Instant::now() + Duration::from_secs(60);
            let ended = deadlines.until(soon, never, async {
                tokio::task::yield_now().await;
                7
            });
            assert_eq!(ended.await, Some(7));
            assert!(deadlines.0.waiting.borrow().is_empty());
        });
    }

    #[test]
    fn a_future_that_does_not_end_is_given_up_and_one_that_is_dropped_is_forgotten() {
        on_a_worker(async {
            let deadlines = Deadlines::default();
            let pending = std::future::pending::<()>;
            assert_eq!(deadlines.until(Instant::now(), never, pending()).await, None);
            let far = Instant::now() + Duration::from_secs(60);
            let dropped = tokio::time::timeout(Duration::from_millis(1), deadlines.until(far, never, pending())).await;
            assert!(dropped.is_err() && deadlines.0.waiting.borrow().is_empty());
        });
    }

    #[test]
    fn a_future_that_moves_to_another_task_is_still_told() {
        on_a_worker(async {
            let deadlines = Deadlines::default();
            let mut until = Box::pin(deadlines.until(Instant::now() + LOOK, never, std::future::pending::<()>()));
            assert!(futures_util::poll!(until.as_mut()).is_pending());
            assert_eq!(tokio::task::spawn_local(until).await.unwrap(), None);
        });
    }
}

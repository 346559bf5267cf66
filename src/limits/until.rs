//! A deadline that may be extended when it passes.
//!
//! The time that an attempt spends waiting for its caller does not count, and it is known only afterwards.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Instant;

use pin_project_lite::pin_project;
use tokio::time::{Sleep, sleep_until};

/// Drives a future until it ends or the deadline passes. Returns `None` for a deadline that passed. `extend` receives
/// the time at which the deadline passed and may return a later deadline, which replaces it.
///
/// # Cancel safety
/// That of the future.
pub fn until<F: Future, E: Fn(Instant) -> Option<Instant>>(deadline: Instant, extend: E, future: F) -> Until<F, E> {
    Until { future, sleep: None, deadline, extend }
}

pin_project! {
    /// The future of [`until`].
    #[derive(Debug)]
    pub struct Until<F, E> {
        #[pin]
        future: F,
        // `None` until the future was first pending. Boxed because it has 112 bytes, which would enlarge every
        // request's future.
        sleep: Option<Pin<Box<Sleep>>>,
        deadline: Instant,
        extend: E,
    }
}

impl<F: Future, E: Fn(Instant) -> Option<Instant>> Future for Until<F, E> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<F::Output>> {
        let this = self.project();
        if let Poll::Ready(output) = this.future.poll(cx) {
            return Poll::Ready(Some(output));
        }
        let deadline = *this.deadline;
        let sleep = this.sleep.get_or_insert_with(|| Box::pin(sleep_until(deadline.into())));
        while sleep.as_mut().poll(cx).is_ready() {
            let Some(later) = (this.extend)(Instant::now()) else { return Poll::Ready(None) };
            sleep.as_mut().reset(later.into());
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::time::Duration;

    use super::*;

    const STEP: Duration = Duration::from_millis(10);

    fn never(_now: Instant) -> Option<Instant> {
        None
    }

    #[tokio::test]
    async fn extended_deadlines_pass_later_and_those_in_the_past_are_extended_again() {
        let began = Instant::now();
        let calls = Cell::new(0);
        let extend = |now: Instant| {
            calls.set(calls.get() + 1);
            (calls.get() < 4).then_some(if calls.get() == 2 { began } else { now + STEP })
        };
        assert_eq!(until(began, extend, std::future::pending::<()>()).await, None);
        assert_eq!(calls.get(), 4);
        assert!(began.elapsed() >= 2 * STEP);
    }

    #[tokio::test]
    async fn future_that_ends_in_time_returns_its_output() {
        let far = Instant::now() + Duration::from_secs(60);
        let ended = until(far, never, async {
            tokio::task::yield_now().await;
            7
        });
        assert_eq!(ended.await, Some(7));
        assert_eq!(until(Instant::now(), never, async { 7 }).await, Some(7), "the future is polled first");
    }

    #[tokio::test]
    async fn future_that_moves_to_another_task_is_woken_there() {
        let mut moved = Box::pin(until(Instant::now() + STEP, never, std::future::pending::<()>()));
        assert!(futures_util::poll!(moved.as_mut()).is_pending());
        assert_eq!(tokio::spawn(moved).await.unwrap(), None);
    }
}

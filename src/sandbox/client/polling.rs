//! The state that the polls of one long-polling connection share: the frames to send, and whether a poll is open.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::session::Frame;
use super::timeouts::ClientTimeouts;

/// The shared state of the polls of one connection.
pub(super) struct Polling {
    /// The session's frames. One poll at a time receives them.
    pub(super) outbound: tokio::sync::Mutex<mpsc::Receiver<Frame>>,
    activity: Mutex<Activity>,
}

struct Activity {
    open_polls: usize,
    last_poll_end: Instant,
    /// Ends the poll that waits for frames.
    end_poll: Option<oneshot::Sender<()>>,
}

/// An open poll.
pub(super) struct Poll<'a>(&'a Polling);

impl Polling {
    pub(super) fn new(outbound: mpsc::Receiver<Frame>) -> Self {
        let activity = Activity { open_polls: 0, last_poll_end: Instant::now(), end_poll: None };
        Self { outbound: tokio::sync::Mutex::new(outbound), activity: Mutex::new(activity) }
    }

    /// Ends the previous poll and begins a new one. The receiver reports when a later poll ends this one.
    pub(super) fn begin(&self) -> (Poll<'_>, oneshot::Receiver<()>) {
        let (end, ended) = oneshot::channel();
        let mut activity = self.activity();
        activity.open_polls += 1;
        if let Some(previous) = activity.end_poll.replace(end) {
            // Fails if the previous poll has ended.
            let _ = previous.send(());
        }
        (Poll(self), ended)
    }

    /// Waits until no poll has been open for `between_polls`.
    pub(super) async fn wait_until_idle(&self, timeouts: ClientTimeouts) {
        loop {
            let until = {
                let activity = self.activity();
                let last = if activity.open_polls > 0 { Instant::now() } else { activity.last_poll_end };
                last + timeouts.between_polls
            };
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn activity(&self) -> MutexGuard<'_, Activity> {
        self.activity.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        let mut activity = self.0.activity();
        activity.open_polls -= 1;
        activity.last_poll_end = Instant::now();
    }
}

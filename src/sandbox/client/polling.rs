//! The state that the polls of one long-polling connection share: the frames to send, and whether the client is present.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};

use super::session::Frame;
use super::times::ClientTimes;

/// The shared state of the polls of one connection.
pub(super) struct Polling {
    /// The session's frames. One poll at a time receives them.
    pub(super) outbound: tokio::sync::Mutex<mpsc::Receiver<Frame>>,
    presence: Mutex<Presence>,
}

struct Presence {
    polls: usize,
    last_poll_end: Instant,
    /// Ends the waiting poll.
    end_poll: Option<oneshot::Sender<()>>,
}

/// A poll in progress. The client is present as long as one exists.
pub(super) struct Poll<'a>(&'a Polling);

impl Polling {
    pub(super) fn new(outbound: mpsc::Receiver<Frame>) -> Self {
        let presence = Presence { polls: 0, last_poll_end: Instant::now(), end_poll: None };
        Self { outbound: tokio::sync::Mutex::new(outbound), presence: Mutex::new(presence) }
    }

    /// Ends the previous poll and begins a new one. The receiver reports when a later poll ends this one.
    pub(super) fn begin(&self) -> (Poll<'_>, oneshot::Receiver<()>) {
        let (end, ended) = oneshot::channel();
        let mut presence = self.presence();
        presence.polls += 1;
        if let Some(previous) = presence.end_poll.replace(end) {
            // Fails if the previous poll is over already.
            let _ = previous.send(());
        }
        (Poll(self), ended)
    }

    /// Waits until there has been no poll for `between_polls`.
    pub(super) async fn absence(&self, times: ClientTimes) {
        loop {
            let until = {
                let presence = self.presence();
                let last = if presence.polls > 0 { Instant::now() } else { presence.last_poll_end };
                last + times.between_polls
            };
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        let mut presence = self.0.presence();
        presence.polls -= 1;
        presence.last_poll_end = Instant::now();
    }
}

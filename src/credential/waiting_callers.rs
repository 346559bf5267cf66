//! The number of callers that wait for a token. Token requests that a caller waits for are sent before refreshes.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// Counts the callers that wait for the token of a cell.
#[derive(Debug, Default)]
pub(crate) struct WaitingCallers {
    count: AtomicUsize,
    first: Notify,
}

/// One caller that waits. Dropping it ends its wait.
#[derive(Debug)]
pub(crate) struct WaitingCaller<'a>(&'a WaitingCallers);

impl WaitingCallers {
    /// Counts a caller until the result is dropped.
    pub(crate) fn enter(&self) -> WaitingCaller<'_> {
        if self.count.fetch_add(1, Ordering::SeqCst) == 0 {
            self.first.notify_waiters();
        }
        WaitingCaller(self)
    }

    /// Returns whether a caller waits now.
    pub(crate) fn any(&self) -> bool {
        self.count.load(Ordering::SeqCst) > 0
    }

    /// Waits until a caller waits.
    pub(crate) async fn until_any(&self) {
        let first = self.first.notified();
        tokio::pin!(first);
        // Registers for the notification before the count is read, so that none is missed.
        first.as_mut().enable();
        if !self.any() {
            first.await;
        }
    }
}

impl Drop for WaitingCaller<'_> {
    fn drop(&mut self) {
        self.0.count.fetch_sub(1, Ordering::SeqCst);
    }
}

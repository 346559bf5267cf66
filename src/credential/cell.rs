//! The token in service: what workers read without a lock, and how they wait or ask for another.
//!
//! One cell for each token life, however many credentials share it. Workers on any thread and runtime call it; the
//! acquisitions run in the task of `refresh.rs` on the control runtime. Does not know how a token is obtained.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::bearer::{
    Actor, Bearer, BearerSource, CredentialState, CredentialStatus, Fingerprint, RequestUrl, TokenUnavailable,
};
use super::error::in_one_line;
use super::refresh::Refresher;
use super::state::{FORCED_INTERVAL, Failure, TokenState, View};

/// The token life of one or more credentials.
pub(crate) struct TokenCell {
    state: Arc<TokenState>,
    view: watch::Receiver<View>,
    control: tokio::runtime::Handle,
    task: Mutex<Task>,
}

/// The refresh task: made, running, or stopped.
enum Task {
    Made(Box<Refresher>),
    Running(AbortHandle),
    Stopped,
}

impl TokenCell {
    /// Makes a cell around what it shares with its refresh task. Nothing runs until [`TokenCell::start`] or the first
    /// [`BearerSource::acquire`].
    pub(crate) fn new(
        state: Arc<TokenState>,
        view: watch::Receiver<View>,
        refresher: Refresher,
        control: tokio::runtime::Handle,
    ) -> Self {
        Self { state, view, control, task: Mutex::new(Task::Made(Box::new(refresher))) }
    }

    pub(crate) fn state(&self) -> &TokenState {
        &self.state
    }

    /// Starts the refresh task, which begins with an acquisition. Does nothing when it runs already or was stopped.
    pub(crate) fn start(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Task::Made(_) = &*task
            && let Task::Made(refresher) = std::mem::replace(&mut *task, Task::Stopped)
        {
            refresher.announce();
            *task = Task::Running(self.control.spawn(refresher.run()).abort_handle());
        }
    }

    /// Stops the refresh task for good. Who waits gets an error; the token in service stays until it expires.
    pub(crate) fn stop(&self) {
        let mut task = self.task.lock().unwrap_or_else(PoisonError::into_inner);
        if let Task::Running(running) = std::mem::replace(&mut *task, Task::Stopped) {
            running.abort();
        }
    }

    async fn wait(&self) -> Result<(), TokenUnavailable> {
        self.start();
        let mut view = self.view.clone();
        let mut target = None;
        loop {
            let seen = view.borrow_and_update().clone();
            if self.state.valid() {
                return Ok(());
            }
            if let Some(unavailable) = seen.refusal() {
                return Err(unavailable);
            }
            let target = *target.get_or_insert_with(|| seen.next_end());
            if let Some(failure) = seen.failure.as_ref().filter(|_| seen.ended >= target) {
                return Err(failure.unavailable());
            }
            if !seen.running() {
                self.state.wake.notify_one();
            }
            view.changed().await.map_err(|_stopped| stopped())?;
        }
    }

    async fn wait_for_another(&self, refused: Fingerprint) -> Result<(), TokenUnavailable> {
        let mut view = self.view.clone();
        let seen = view.borrow_and_update().clone();
        if self.state.fingerprint() != Some(refused) {
            return self.wait().await;
        }
        if let Some(unavailable) = seen.refusal() {
            return Err(unavailable);
        }
        let target =
            self.state.force(refused, &seen).map_err(|retry_after| NotReplaced::TooSoon.unavailable(retry_after))?;
        loop {
            let seen = view.borrow_and_update().clone();
            if self.state.fingerprint() != Some(refused) && self.state.valid() {
                return Ok(());
            }
            if seen.ended >= target {
                let unchanged = || NotReplaced::Unchanged.unavailable(FORCED_INTERVAL);
                return Err(seen.failure.as_ref().map_or_else(unchanged, Failure::unavailable));
            }
            view.changed().await.map_err(|_stopped| stopped())?;
        }
    }
}

/// Why a refused token was not replaced, although nothing failed.
#[derive(Debug, thiserror::Error)]
enum NotReplaced {
    #[error(
        "a refused token was replaced a moment ago: the endpoint refuses this credential's tokens, or its role is missing"
    )]
    TooSoon,
    #[error("the token that was refused came back unchanged: it is cached where it comes from")]
    Unchanged,
    #[error("the credential was stopped")]
    Stopped,
}

impl NotReplaced {
    fn unavailable(self, retry_after: Duration) -> TokenUnavailable {
        let who_acts = match self {
            Self::TooSoon | Self::Unchanged => Actor::TenantAdministrator,
            Self::Stopped => Actor::Nobody,
        };
        TokenUnavailable { retry_after, who_acts, cause: Arc::new(self) }
    }
}

fn stopped() -> TokenUnavailable {
    NotReplaced::Stopped.unavailable(FORCED_INTERVAL)
}

impl BearerSource for TokenCell {
    fn ready(&self, url: RequestUrl<'_>) -> Option<Bearer> {
        self.state.bearer(url)
    }

    fn acquire(&self) -> BoxFuture<'_, Result<(), TokenUnavailable>> {
        Box::pin(self.wait())
    }

    fn replace(&self, refused: Fingerprint) -> BoxFuture<'_, Result<(), TokenUnavailable>> {
        Box::pin(self.wait_for_another(refused))
    }

    fn status(&self) -> CredentialStatus {
        let view = self.view.borrow().clone();
        let current = self.state.current();
        let current = current.as_ref().filter(|current| current.valid());
        let state = match (current, &view.failure) {
            (Some(_), None) => CredentialState::Ready,
            (Some(_), Some(_)) => CredentialState::Stale,
            (None, None) if view.last_success.is_none() => CredentialState::Starting,
            (None, _) => CredentialState::Unavailable,
        };
        CredentialStatus {
            state,
            fingerprint: current.map(|current| current.fingerprint()),
            expires_at: current.and_then(|current| current.expires_at),
            last_success: view.last_success,
            last_error: view.failure.map(|failure| in_one_line(&*failure.cause as &(dyn Error + 'static))),
        }
    }
}

impl Drop for TokenCell {
    fn drop(&mut self) {
        self.stop();
    }
}

impl fmt::Debug for TokenCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCell").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

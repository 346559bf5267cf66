//! The cell of a token: it serves the token to workers and runs the refresh task.
//!
//! Credentials with the same settings share one cell. Workers call it on any thread and runtime; acquisitions run in the
//! refresh task on the control runtime.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use super::app_state::AppState;
use super::bearer::{Actor, Bearer, Fingerprint, RequestUrl, TokenUnavailable};
use super::error::RefusedParty;
use super::jwt::Claims;
use super::refresh::Refresher;
use super::source::{BearerSource, CredentialState, CredentialStatus};
use super::state::{Failure, Progress, REPLACEMENT_INTERVAL, TokenState};

/// The token of one or more credentials, and its refresh task.
pub(crate) struct TokenCell {
    state: Arc<TokenState>,
    progress: watch::Receiver<Progress>,
    control: tokio::runtime::Handle,
    app: Arc<AppState>,
    task: Arc<Mutex<Task>>,
}

/// The state of the refresh task.
enum Task {
    NotStarted(Box<Refresher>),
    Running(AbortHandle),
    Stopped,
}

impl TokenCell {
    /// Creates a cell. Its refresh task starts with [`TokenCell::start`] or the first [`BearerSource::acquire`].
    pub(crate) fn new(
        state: Arc<TokenState>,
        progress: watch::Receiver<Progress>,
        refresher: Refresher,
        app: Arc<AppState>,
        control: tokio::runtime::Handle,
    ) -> Self {
        let task = Arc::new(Mutex::new(Task::NotStarted(Box::new(refresher))));
        Self { state, progress, control, app, task }
    }

    pub(crate) fn state(&self) -> &TokenState {
        &self.state
    }

    /// Returns whether the refresh task is running: the token is acquired at start, or was used lately.
    pub(crate) fn is_running(&self) -> bool {
        matches!(&*self.lock(), Task::Running(_))
    }

    fn lock(&self) -> MutexGuard<'_, Task> {
        self.task.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts the refresh task, which acquires a token at once. Does nothing if the task is running or was stopped.
    pub(crate) fn start(&self) {
        let mut task = self.lock();
        if let Task::NotStarted(_) = &*task
            && let Task::NotStarted(refresher) = std::mem::replace(&mut *task, Task::Stopped)
        {
            let run = run_until_released(refresher, Arc::clone(&self.task));
            *task = Task::Running(self.control.spawn(run).abort_handle());
        }
    }

    /// Stops the refresh task. Waiting callers get an error. The token in service can be used until it expires.
    pub(crate) fn stop(&self) {
        let mut task = self.lock();
        if let Task::Running(running) = std::mem::replace(&mut *task, Task::Stopped) {
            running.abort();
        }
    }

    /// Waits until a valid token is in service, like [`BearerSource::acquire`], but does not count as use.
    pub(crate) async fn try_once(&self) -> Result<(), TokenUnavailable> {
        self.start_and_wait().await
    }

    /// Acquires another token now. The current one stays in service. Returns the number of the acquisition that obtains it.
    pub(crate) fn renew(&self) -> u64 {
        // A running acquisition may have read its files already.
        let number = self.progress.borrow().begun + 1;
        self.state.request_renewal();
        self.start();
        number
    }

    /// Returns whether an acquisition with this number, or a later one, has ended.
    pub(crate) fn has_ended(&self, number: u64) -> bool {
        self.progress.borrow().ended >= number
    }

    /// Returns whether the token is valid and the last acquisition succeeded.
    pub(crate) fn is_ready(&self) -> bool {
        self.current_state() == CredentialState::Ready
    }

    /// Ends the refresh task once the running acquisition has ended, and releases the token, unless a caller uses it.
    pub(crate) fn release_unless_used(&self) {
        self.state.request_release();
    }

    /// Returns whom Entra refused at the last acquisition.
    pub(crate) fn refused_party(&self) -> Option<RefusedParty> {
        self.progress.borrow().failure()?.failed.cause.refused_party()
    }

    fn state_after(&self, progress: &Progress) -> CredentialState {
        match (self.state.has_valid_token(), progress.failure()) {
            (true, None) => CredentialState::Ready,
            (true, Some(_)) => CredentialState::Stale,
            (false, None) if self.app.is_on_demand() && !self.is_running() => CredentialState::Unused,
            (false, None) if progress.last_success.is_none() => CredentialState::Starting,
            (false, _) => CredentialState::Unavailable,
        }
    }

    /// Waits until a valid token is in service. Starts the refresh task if necessary.
    async fn wait_for_token(&self) -> Result<(), TokenUnavailable> {
        // Before the start, so that a task that is about to end sees it.
        self.state.mark_used();
        self.start_and_wait().await
    }

    async fn start_and_wait(&self) -> Result<(), TokenUnavailable> {
        let _waiting = self.state.waiting_callers.enter();
        self.start();
        let mut progress = self.progress.clone();
        let mut target = None;
        loop {
            let snapshot = progress.borrow_and_update().clone();
            if self.state.has_valid_token() {
                return Ok(());
            }
            if let Some(unavailable) = snapshot.backoff_error() {
                return Err(unavailable);
            }
            let target = *target.get_or_insert_with(|| snapshot.next_acquisition());
            if let Some(failure) = snapshot.failure().filter(|_| snapshot.ended >= target) {
                return Err(failure.unavailable());
            }
            if !snapshot.is_running() {
                self.state.wake.notify_one();
            }
            progress.changed().await.map_err(|_stopped| stopped())?;
        }
    }

    /// Waits until another token than `rejected` is in service. Requests a replacement if `rejected` is the current one.
    async fn wait_for_replacement(&self, rejected: Fingerprint) -> Result<(), TokenUnavailable> {
        let mut progress = self.progress.clone();
        let snapshot = progress.borrow_and_update().clone();
        if self.state.fingerprint() != Some(rejected) {
            return self.wait_for_token().await;
        }
        self.start();
        if let Some(unavailable) = snapshot.backoff_error() {
            return Err(unavailable);
        }
        let _waiting = self.state.waiting_callers.enter();
        let target = self
            .state
            .request_replacement(rejected, &snapshot)
            .map_err(|retry_after| NotReplaced::TooSoon.unavailable(retry_after))?;
        loop {
            let snapshot = progress.borrow_and_update().clone();
            if self.state.fingerprint() != Some(rejected) && self.state.has_valid_token() {
                return Ok(());
            }
            if snapshot.ended >= target {
                let unchanged = || NotReplaced::Unchanged.unavailable(REPLACEMENT_INTERVAL);
                return Err(snapshot.failure().map_or_else(unchanged, Failure::unavailable));
            }
            progress.changed().await.map_err(|_stopped| stopped())?;
        }
    }
}

/// Runs the refresh task. Ends when the token is released; the next use starts it again.
async fn run_until_released(mut refresher: Box<Refresher>, task: Arc<Mutex<Task>>) {
    loop {
        refresher.run().await;
        let mut task = task.lock().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*task, Task::Stopped) {
            return;
        }
        if refresher.release() {
            *task = Task::NotStarted(refresher);
            return;
        }
    }
}

/// Why a rejected token was not replaced although no acquisition failed.
#[derive(Debug, thiserror::Error)]
enum NotReplaced {
    #[error(
        "a rejected token was replaced less than {} ago: the endpoint rejects this credential's tokens, or its role is missing",
        humantime::format_duration(REPLACEMENT_INTERVAL)
    )]
    TooSoon,
    #[error("the new token equals the rejected one: its source returns a cached token")]
    Unchanged,
    #[error("the credential was stopped")]
    Stopped,
}

impl NotReplaced {
    fn unavailable(self, retry_after: Duration) -> TokenUnavailable {
        let who_acts = match self {
            Self::TooSoon | Self::Unchanged => Actor::TenantAdministrator,
            Self::Stopped => Actor::Gateway,
        };
        TokenUnavailable { retry_after, who_acts, cause: Arc::new(self) }
    }
}

fn stopped() -> TokenUnavailable {
    NotReplaced::Stopped.unavailable(REPLACEMENT_INTERVAL)
}

impl BearerSource for TokenCell {
    fn current(&self, url: RequestUrl<'_>) -> Option<Bearer> {
        self.state.bearer(url)
    }

    fn acquire(&self) -> BoxFuture<'_, Result<(), TokenUnavailable>> {
        Box::pin(self.wait_for_token())
    }

    fn replace(&self, rejected: Fingerprint) -> BoxFuture<'_, Result<(), TokenUnavailable>> {
        Box::pin(self.wait_for_replacement(rejected))
    }

    fn may_serve(&self) -> bool {
        self.state.has_valid_token() || (self.app.is_on_demand() && !self.app.is_refused())
    }

    fn current_state(&self) -> CredentialState {
        self.state_after(&self.progress.borrow())
    }

    fn status(&self) -> CredentialStatus {
        let progress = self.progress.borrow().clone();
        let state = self.state_after(&progress);
        let current = self.state.current();
        let unusable_since = current.as_ref().and_then(|current| current.unusable_since());
        let expired = current.as_ref().filter(|current| !current.is_valid());
        let expired_at = expired.and_then(|expired| expired.expires_at);
        let current = current.as_ref().filter(|current| current.is_valid());
        CredentialStatus {
            state,
            // A failed renewal makes a token unavailable when the old one can no longer be used.
            since: if state == CredentialState::Unavailable {
                progress.changed.max(unusable_since)
            } else {
                progress.changed
            },
            fingerprint: current.map(|current| current.fingerprint()),
            obtained_at: current.map(|current| current.obtained_at),
            expires_at: current.and_then(|current| current.expires_at),
            expired_at,
            next_at: progress.next_at,
            last_success: progress.last_success,
            failures: progress.failures,
            failing_since: progress.changed.filter(|_| progress.failures > 0),
            last_failure: progress.last_failure.map(|failure| failure.failed),
        }
    }

    fn claims(&self) -> Option<Claims> {
        self.state.current().as_ref()?.claims()
    }
}

impl fmt::Debug for TokenCell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenCell").field("state", &self.state).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

//! The token in service: what workers read without a lock, and how they wait or ask for another.
//!
//! One cell for each token life, however many credentials share it. Workers on any thread and runtime call it; the
//! acquisitions run in the task of `refresh.rs` on the control runtime. Does not know how a token is obtained.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwapOption;
use futures_util::future::BoxFuture;
use tokio::sync::{Notify, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::acquire::{Acquired, Material};
use super::bearer::{
    Actor, Bearer, BearerSource, CredentialState, CredentialStatus, Fingerprint, RequestUrl, TokenUnavailable,
};
use super::error::{CredentialError, in_one_line};
use super::refresh::Refresher;
use super::schedule;

/// A refresh that a 401 asks for is made this often at most. Chosen: an endpoint that refuses every token costs Entra
/// twelve requests a minute, whatever its traffic.
const FORCED_INTERVAL: Duration = Duration::from_secs(5);

/// What callers are asked to wait at least. `Retry-After` knows whole seconds, and zero is an invitation to hammer.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The token life of one or more credentials.
pub(crate) struct TokenCell {
    shared: Arc<Shared>,
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

/// What the cell and its refresh task share.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    current: ArcSwapOption<InService>,
    /// Wakes the refresh task.
    pub(crate) wake: Notify,
    /// The last refresh that a 401 asked for.
    forced: Mutex<Option<Forced>>,
}

#[derive(Clone, Copy, Debug)]
struct Forced {
    refused: Fingerprint,
    at: Instant,
    /// The number of the acquisition that answers it.
    target: u64,
}

/// What is in service.
#[derive(Debug)]
pub(crate) struct InService {
    material: Material,
    /// Until when it is used, by both clocks: the monotonic one may stand still while the host sleeps, and the other one
    /// may be set.
    good_until: Option<(Instant, SystemTime)>,
    /// When it really expires.
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) obtained_at: SystemTime,
}

impl InService {
    /// Puts dates on what was acquired. `None` when there is no life left in it.
    pub(crate) fn new(acquired: Acquired) -> Option<Self> {
        let (now, obtained_at) = (Instant::now(), SystemTime::now());
        let (mut good_until, mut expires_at) = (None, None);
        if let Some(life) = acquired.life {
            let left = life.lasts.checked_sub(now.duration_since(life.since))?;
            let used = left.checked_sub(schedule::margin(life.lasts)).filter(|used| !used.is_zero())?;
            good_until = Some((now.checked_add(used)?, obtained_at.checked_add(used)?));
            expires_at = Some(obtained_at.checked_add(left)?);
        }
        Some(Self { material: acquired.material, good_until, expires_at, obtained_at })
    }

    fn valid(&self) -> bool {
        self.good_until.is_none_or(|(instant, clock)| Instant::now() < instant && SystemTime::now() < clock)
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.material.fingerprint()
    }
}

/// What the refresh task publishes.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Acquisitions begun and ended so far: one is under way when they differ.
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    /// Why the last acquisition failed, if it did.
    pub(crate) failure: Option<Failure>,
    pub(crate) last_success: Option<SystemTime>,
}

#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) cause: Arc<CredentialError>,
    /// When the next acquisition is made.
    pub(crate) next: Instant,
}

impl View {
    fn running(&self) -> bool {
        self.begun != self.ended
    }

    /// The number of the acquisition whose end answers a question asked now.
    fn next_end(&self) -> u64 {
        if self.running() { self.begun } else { self.begun + 1 }
    }

    /// The failure that answers a question now: nothing is under way and the next acquisition is not due.
    fn refusal(&self) -> Option<TokenUnavailable> {
        let failure = self.failure.as_ref().filter(|failure| !self.running() && failure.next > Instant::now())?;
        Some(failure.unavailable())
    }
}

impl Failure {
    fn unavailable(&self) -> TokenUnavailable {
        let cause: Arc<CredentialError> = Arc::clone(&self.cause);
        let retry_after = self.next.saturating_duration_since(Instant::now()).max(MIN_RETRY_AFTER);
        TokenUnavailable { retry_after, who_acts: self.cause.who_acts(), cause }
    }
}

impl Shared {
    /// Whether there is a token that may be used.
    pub(crate) fn valid(&self) -> bool {
        self.current.load().as_ref().is_some_and(|current| current.valid())
    }

    /// Begins with what another life of the same identity has in service.
    pub(crate) fn continuing(before: &TokenCell) -> Self {
        let shared = Self::default();
        shared.current.store(before.shared.current.load_full());
        shared
    }

    /// When the token in service was obtained and when it expires.
    pub(crate) fn dates(&self) -> Option<(SystemTime, Option<SystemTime>)> {
        let current = self.current.load();
        current.as_ref().filter(|current| current.valid()).map(|current| (current.obtained_at, current.expires_at))
    }

    pub(crate) fn put_in_service(&self, next: InService) {
        self.current.store(Some(Arc::new(next)));
    }

    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        self.current.load().as_ref().map(|current| current.fingerprint())
    }

    /// Whether somebody waits for an acquisition that nothing speaks against: there is no token and none was refused to
    /// us, or the current one was refused by an endpoint.
    pub(crate) fn wanted(&self, view: &View) -> bool {
        if view.failure.is_some() {
            return false;
        }
        let forced = *self.forced.lock().unwrap_or_else(PoisonError::into_inner);
        let refused = forced.filter(|forced| forced.target > view.ended).map(|forced| forced.refused);
        !self.valid() || (refused.is_some() && refused == self.fingerprint())
    }

    /// Asks for another token than `refused` and returns the number of the acquisition that brings it, or how long such
    /// an acquisition is not made.
    fn force(&self, refused: Fingerprint, view: &View) -> Result<u64, Duration> {
        let mut forced = self.forced.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = *forced {
            if last.refused == refused && view.ended < last.target {
                return Ok(last.target);
            }
            let rest = FORCED_INTERVAL.saturating_sub(last.at.elapsed());
            if !rest.is_zero() {
                return Err(rest);
            }
        }
        let target = view.next_end();
        *forced = Some(Forced { refused, at: Instant::now(), target });
        self.wake.notify_one();
        Ok(target)
    }
}

impl TokenCell {
    /// Makes a cell around what it shares with its refresh task. Nothing runs until [`TokenCell::start`] or the first
    /// [`BearerSource::acquire`].
    pub(crate) fn new(
        shared: Arc<Shared>,
        view: watch::Receiver<View>,
        refresher: Refresher,
        control: tokio::runtime::Handle,
    ) -> Self {
        Self { shared, view, control, task: Mutex::new(Task::Made(Box::new(refresher))) }
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
            if self.shared.valid() {
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
                self.shared.wake.notify_one();
            }
            view.changed().await.map_err(|_stopped| stopped())?;
        }
    }

    async fn wait_for_another(&self, refused: Fingerprint) -> Result<(), TokenUnavailable> {
        let mut view = self.view.clone();
        let seen = view.borrow_and_update().clone();
        if self.shared.fingerprint() != Some(refused) {
            return self.wait().await;
        }
        if let Some(unavailable) = seen.refusal() {
            return Err(unavailable);
        }
        let target =
            self.shared.force(refused, &seen).map_err(|retry_after| NotReplaced::TooSoon.unavailable(retry_after))?;
        loop {
            let seen = view.borrow_and_update().clone();
            if self.shared.fingerprint() != Some(refused) && self.shared.valid() {
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
        let current = self.shared.current.load();
        current.as_ref().filter(|current| current.valid())?.material.bearer(url)
    }

    fn acquire(&self) -> BoxFuture<'_, Result<(), TokenUnavailable>> {
        Box::pin(self.wait())
    }

    fn replace(&self, refused: Fingerprint) -> BoxFuture<'_, Result<(), TokenUnavailable>> {
        Box::pin(self.wait_for_another(refused))
    }

    fn status(&self) -> CredentialStatus {
        let view = self.view.borrow().clone();
        let current = self.shared.current.load();
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
        f.debug_struct("TokenCell").field("current", &self.shared.current).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;

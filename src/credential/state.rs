//! The state of one token: what is in service, what its refresh task reports, and who asked for another.
//!
//! Workers read it without a lock; the refresh task of `refresh.rs` writes it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwapOption, Guard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::acquire::{Acquired, Material};
use super::bearer::{Bearer, Fingerprint, RequestUrl, TokenUnavailable};
use super::error::CredentialError;
use super::schedule;

/// A refresh that a 401 asks for is made this often at most. Chosen: an endpoint that refuses every token costs Entra
/// twelve requests a minute, whatever its traffic.
pub(crate) const FORCED_INTERVAL: Duration = Duration::from_secs(5);

/// What callers are asked to wait at least. `Retry-After` knows whole seconds, and zero is an invitation to hammer.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);

/// What the cell and its refresh task share.
#[derive(Debug, Default)]
pub(crate) struct TokenState {
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

    pub(crate) fn valid(&self) -> bool {
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
    pub(crate) fn running(&self) -> bool {
        self.begun != self.ended
    }

    /// The number of the acquisition whose end answers a question asked now.
    pub(crate) fn next_end(&self) -> u64 {
        if self.running() { self.begun } else { self.begun + 1 }
    }

    /// The failure that answers a question now: nothing is under way and the next acquisition is not due.
    pub(crate) fn refusal(&self) -> Option<TokenUnavailable> {
        let failure = self.failure.as_ref().filter(|failure| !self.running() && failure.next > Instant::now())?;
        Some(failure.unavailable())
    }
}

impl Failure {
    pub(crate) fn unavailable(&self) -> TokenUnavailable {
        let cause: Arc<CredentialError> = Arc::clone(&self.cause);
        let retry_after = self.next.saturating_duration_since(Instant::now()).max(MIN_RETRY_AFTER);
        TokenUnavailable { retry_after, who_acts: self.cause.who_acts(), cause }
    }
}

impl TokenState {
    /// Whether there is a token that may be used.
    pub(crate) fn valid(&self) -> bool {
        self.current.load().as_ref().is_some_and(|current| current.valid())
    }

    /// Begins with what another life of the same identity has in service.
    pub(crate) fn continuing(before: &Self) -> Self {
        let state = Self::default();
        state.current.store(before.current.load_full());
        state
    }

    /// Returns what is in service, valid or not.
    pub(crate) fn current(&self) -> Guard<Option<Arc<InService>>> {
        self.current.load()
    }

    /// Returns the bearer of a request, if what is in service is valid. Takes no lock.
    pub(crate) fn bearer(&self, url: RequestUrl<'_>) -> Option<Bearer> {
        let current = self.current.load();
        current.as_ref().filter(|current| current.valid())?.material.bearer(url)
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
    pub(crate) fn force(&self, refused: Fingerprint, view: &View) -> Result<u64, Duration> {
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

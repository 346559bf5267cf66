//! The state that a cell shares with its refresh task: the token in service, the progress of acquisitions, and requested
//! replacements.
//!
//! Workers read the token without a lock. The refresh task writes it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use arc_swap::{ArcSwap, ArcSwapOption, Guard};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::acquire::{Acquired, TokenOrKey};
use super::bearer::{Bearer, Fingerprint, RequestUrl, TokenUnavailable};
use super::error::CredentialError;
use super::jwt::Claims;
use super::record::FailedAcquisition;
use super::schedule;
use super::settings::CredentialId;
use super::waiting_callers::WaitingCallers;

/// The shortest time between two replacements after a 401. Chosen: an endpoint that rejects every token causes at most twelve
/// token requests a minute, at any load.
pub(crate) const REPLACEMENT_INTERVAL: Duration = Duration::from_secs(5);

/// The shortest `Retry-After` for callers. It is sent in whole seconds, and zero would cause immediate retries.
const MIN_RETRY_AFTER: Duration = Duration::from_secs(1);

/// The state that a cell shares with its refresh task.
#[derive(Debug, Default)]
pub(crate) struct TokenState {
    current: ArcSwapOption<CurrentToken>,
    /// Whether a caller has needed the token since the refresh task last asked.
    used: AtomicBool,
    /// Whether the refresh task ends as soon as no caller needs the token.
    release_requested: AtomicBool,
    /// Whether to acquire a token although the current one is not due for renewal.
    renewal_requested: AtomicBool,
    /// The credentials that share the token. Each has its own metric series.
    ids: ArcSwap<Vec<CredentialId>>,
    /// Wakes the refresh task.
    pub(crate) wake: Notify,
    /// The callers that wait for a token.
    pub(crate) waiting_callers: Arc<WaitingCallers>,
    /// The last replacement that was requested after a 401.
    replacement: Mutex<Option<Replacement>>,
}

#[derive(Clone, Copy, Debug)]
struct Replacement {
    rejected: Fingerprint,
    at: Instant,
    /// The number of the acquisition that obtains the new token.
    target: u64,
}

/// The token or key in service.
#[derive(Debug)]
pub(crate) struct CurrentToken {
    token_or_key: TokenOrKey,
    /// The end of its use on both clocks: the monotonic clock may stop while the host is suspended, and the wall clock may be
    /// set.
    usable_until: Option<(Instant, SystemTime)>,
    /// When it expires. It is used until [`schedule::margin`] before that.
    pub(crate) expires_at: Option<SystemTime>,
    pub(crate) obtained_at: SystemTime,
}

impl CurrentToken {
    /// Computes the times of a token or key. Returns `None` if it has already expired.
    pub(crate) fn new(acquired: Acquired) -> Option<Self> {
        let (now, obtained_at) = (Instant::now(), SystemTime::now());
        let (mut usable_until, mut expires_at) = (None, None);
        if let Some(lifetime) = acquired.lifetime {
            let remaining = lifetime.duration.checked_sub(now.duration_since(lifetime.starts))?;
            let used = remaining.checked_sub(schedule::margin(lifetime.duration)).filter(|used| !used.is_zero())?;
            usable_until = Some((now.checked_add(used)?, obtained_at.checked_add(used)?));
            expires_at = Some(obtained_at.checked_add(remaining)?);
        }
        Some(Self { token_or_key: acquired.token_or_key, usable_until, expires_at, obtained_at })
    }

    /// Returns when its use ended, if it has.
    pub(crate) fn unusable_since(&self) -> Option<SystemTime> {
        let (_, until) = self.usable_until?;
        (!self.is_valid()).then_some(until)
    }

    pub(crate) fn is_valid(&self) -> bool {
        self.usable_until.is_none_or(|(instant, clock)| Instant::now() < instant && SystemTime::now() < clock)
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.token_or_key.fingerprint()
    }

    /// Returns the claims of a token that is a JWT.
    pub(crate) fn claims(&self) -> Option<Claims> {
        match &self.token_or_key {
            TokenOrKey::Bearer(bearer) => bearer.claims(),
            TokenOrKey::AccessKey(_) => None,
        }
    }
}

/// The progress of acquisitions, published by the refresh task.
#[derive(Clone, Debug, Default)]
pub(crate) struct Progress {
    /// The numbers of acquisitions that began and that ended. One is running if they differ.
    pub(crate) begun: u64,
    pub(crate) ended: u64,
    pub(crate) last_success: Option<SystemTime>,
    /// When the next acquisition is due, on the wall clock.
    pub(crate) next_at: Option<SystemTime>,
    /// When acquisitions began to fail or to succeed.
    pub(crate) changed: Option<SystemTime>,
    /// How many failed since then, if they fail.
    pub(crate) failures: u32,
    /// The last acquisition that failed, also if one has succeeded since.
    pub(crate) last_failure: Option<Failure>,
}

/// An acquisition that failed.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    pub(crate) failed: Arc<FailedAcquisition>,
    /// When the next acquisition is due.
    pub(crate) retry_at: Instant,
}

impl Progress {
    pub(crate) fn is_running(&self) -> bool {
        self.begun != self.ended
    }

    /// Returns the number of the running acquisition, or else of the next one.
    pub(crate) fn next_acquisition(&self) -> u64 {
        if self.is_running() { self.begun } else { self.begun + 1 }
    }

    /// Returns the failure of the last acquisition that ended, if it failed.
    pub(crate) fn failure(&self) -> Option<&Failure> {
        self.last_failure.as_ref().filter(|_| self.failures > 0)
    }

    /// Returns the last failure, if no acquisition is running and the next one is not due.
    pub(crate) fn backoff_error(&self) -> Option<TokenUnavailable> {
        let failure = self.failure().filter(|failure| !self.is_running() && failure.retry_at > Instant::now())?;
        Some(failure.unavailable())
    }
}

impl Failure {
    pub(crate) fn unavailable(&self) -> TokenUnavailable {
        let retry_after = self.retry_at.saturating_duration_since(Instant::now()).max(MIN_RETRY_AFTER);
        let cause: Arc<CredentialError> = Arc::clone(&self.failed.cause);
        TokenUnavailable { retry_after, who_acts: self.failed.cause.who_acts(), cause }
    }
}

impl TokenState {
    /// Returns whether a valid token or key is in service.
    pub(crate) fn has_valid_token(&self) -> bool {
        self.current.load().as_ref().is_some_and(|current| current.is_valid())
    }

    /// Creates a state with the current token of another one, which must have the same identity.
    pub(crate) fn with_token_of(other: &Self) -> Self {
        let state = Self::default();
        state.current.store(other.current.load_full());
        state
    }

    /// Returns the credentials that share the token.
    pub(crate) fn ids(&self) -> Arc<Vec<CredentialId>> {
        self.ids.load_full()
    }

    /// Sets the credentials that share the token.
    pub(crate) fn set_ids(&self, ids: Vec<CredentialId>) {
        self.ids.store(Arc::new(ids));
    }

    /// Returns the token or key in service, even if it has expired.
    pub(crate) fn current(&self) -> Guard<Option<Arc<CurrentToken>>> {
        self.current.load()
    }

    /// Records that a caller needs the token. Writes only once per look of the refresh task, so that workers share the cache line.
    pub(crate) fn mark_used(&self) {
        if !self.used.load(Ordering::Relaxed) {
            self.used.store(true, Ordering::Relaxed);
        }
    }

    /// Returns whether a caller has needed the token since the last call.
    pub(crate) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Asks the refresh task to end, unless a caller needs the token.
    pub(crate) fn request_release(&self) {
        self.release_requested.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Returns whether the refresh task was asked to end.
    pub(crate) fn is_release_requested(&self) -> bool {
        self.release_requested.load(Ordering::Relaxed)
    }

    /// Withdraws what [`TokenState::request_release`] asked for.
    pub(crate) fn withdraw_release(&self) {
        self.release_requested.store(false, Ordering::Relaxed);
    }

    /// Asks the refresh task for another token now. The current one stays in service.
    pub(crate) fn request_renewal(&self) {
        self.renewal_requested.store(true, Ordering::Relaxed);
        self.wake.notify_one();
    }

    /// Returns whether another token was requested since the last call.
    pub(crate) fn take_renewal_request(&self) -> bool {
        self.renewal_requested.swap(false, Ordering::Relaxed)
    }

    /// Drops the token.
    pub(crate) fn release(&self) {
        self.current.store(None);
        *self.replacement.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Returns the bearer for a request, if a valid token or key is in service. Takes no lock.
    pub(crate) fn bearer(&self, url: RequestUrl<'_>) -> Option<Bearer> {
        self.mark_used();
        let current = self.current.load();
        current.as_ref().filter(|current| current.is_valid())?.token_or_key.bearer(url)
    }

    /// Returns when the valid token in service was obtained and when it expires.
    pub(crate) fn dates(&self) -> Option<(SystemTime, Option<SystemTime>)> {
        let current = self.current.load();
        current.as_ref().filter(|current| current.is_valid()).map(|current| (current.obtained_at, current.expires_at))
    }

    pub(crate) fn put_in_service(&self, next: CurrentToken) {
        self.current.store(Some(Arc::new(next)));
    }

    pub(crate) fn fingerprint(&self) -> Option<Fingerprint> {
        self.current.load().as_ref().map(|current| current.fingerprint())
    }

    /// Returns whether an acquisition should start before it is due: the last one did not fail, and there is no valid token, an
    /// endpoint rejected the current one, or another one was requested.
    pub(crate) fn needs_acquisition(&self, progress: &Progress) -> bool {
        if progress.failures > 0 {
            return false;
        }
        if self.renewal_requested.load(Ordering::Relaxed) {
            return true;
        }
        let replacement = *self.replacement.lock().unwrap_or_else(PoisonError::into_inner);
        let rejected = replacement
            .filter(|replacement| replacement.target > progress.ended)
            .map(|replacement| replacement.rejected);
        !self.has_valid_token() || (rejected.is_some() && rejected == self.fingerprint())
    }

    /// Requests a replacement for a rejected token. Returns the number of the acquisition that obtains it, or the time until
    /// the next request is allowed.
    pub(crate) fn request_replacement(&self, rejected: Fingerprint, progress: &Progress) -> Result<u64, Duration> {
        let mut replacement = self.replacement.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = *replacement {
            if last.rejected == rejected && progress.ended < last.target {
                return Ok(last.target);
            }
            let rest = REPLACEMENT_INTERVAL.saturating_sub(last.at.elapsed());
            if !rest.is_zero() {
                return Err(rest);
            }
        }
        let target = progress.next_acquisition();
        *replacement = Some(Replacement { rejected, at: Instant::now(), target });
        self.wake.notify_one();
        Ok(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_is_not_used_beyond_its_time_on_either_clock() {
        let (now, clock, minute) = (Instant::now(), SystemTime::now(), Duration::from_secs(60));
        for (until, is_valid, when) in [
            ((now + minute, clock + minute), true, "in time"),
            ((now + minute, clock - minute), false, "after the host was suspended"),
            ((now, clock + minute), false, "after the wall clock was set back"),
        ] {
            let token_or_key = TokenOrKey::Bearer(Bearer::new("a.b.c").unwrap());
            let token = CurrentToken { token_or_key, usable_until: Some(until), expires_at: None, obtained_at: clock };
            assert_eq!((token.is_valid(), token.unusable_since().is_none()), (is_valid, is_valid), "{when}");
        }
    }
}

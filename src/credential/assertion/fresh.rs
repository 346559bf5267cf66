//! An assertion that was just obtained, and its lifetime.

use std::time::SystemTime;

use tokio::time::Instant;

use crate::credential::jwt;
use crate::credential::lifetime::Lifetime;
use crate::files::Secret;

/// An assertion from its source.
#[derive(Debug)]
pub(super) struct FreshAssertion {
    pub(super) token: Secret,
    /// `None` if its expiry is unknown.
    pub(super) lifetime: Option<Lifetime>,
}

impl FreshAssertion {
    /// Reads the lifetime of a JWT from its claims. `starts` and `now` are the time of its issue at the latest, by this host's
    /// monotonic clock and by the clock of its issuer.
    pub(super) fn from_jwt(token: Secret, starts: Instant, now: SystemTime) -> Self {
        let expires_at = jwt::claims(token.expose()).as_ref().and_then(jwt::expiry);
        Self::new(token, starts, now, expires_at)
    }

    /// Creates the assertion from its expiry.
    pub(super) fn new(token: Secret, starts: Instant, now: SystemTime, expires_at: Option<SystemTime>) -> Self {
        let duration = expires_at.and_then(|at| at.duration_since(now).ok());
        Self { token, lifetime: duration.map(|duration| Lifetime { starts, duration, refresh_in: None }) }
    }
}

//! The trait through which the request path obtains bearers, and the state of a credential.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::SystemTime;

use futures_util::future::BoxFuture;

use super::bearer::{Bearer, Fingerprint, RequestUrl, TokenUnavailable};
use super::jwt::Claims;
use super::record::FailedAcquisition;
use crate::redact::in_one_line;

/// A source of bearers: one per configured credential, shared by all workers.
pub trait BearerSource: fmt::Debug + Send + Sync {
    /// Returns the bearer for a request to `url`, if there is a valid token or key. Takes no lock and does no I/O.
    fn current(&self, url: RequestUrl<'_>) -> Option<Bearer>;

    /// Waits until there is a valid token or key. Joins the running acquisition, or starts one.
    ///
    /// # Errors
    /// [`TokenUnavailable`] if the acquisition fails, or if the last one failed and the back-off has not ended.
    ///
    /// # Cancel safety
    /// Safe: acquisitions run in separate tasks, which keep the result.
    fn acquire(&self) -> BoxFuture<'_, Result<(), TokenUnavailable>>;

    /// Replaces the token that an endpoint rejected with 401, and waits for the new one. Does nothing if `rejected` is not the
    /// current token. Callers that report the same token share one acquisition. The rejected token stays in service until it is
    /// replaced: an endpoint that answers 401 to everything must not affect other endpoints.
    ///
    /// # Errors
    /// [`TokenUnavailable`] if the acquisition fails, the last replacement was less than five seconds ago, or the new token
    /// equals the rejected one.
    ///
    /// # Cancel safety
    /// Safe, like [`BearerSource::acquire`].
    fn replace(&self, rejected: Fingerprint) -> BoxFuture<'_, Result<(), TokenUnavailable>>;

    /// Returns whether a call could be served now: there is a valid token or key, or one would be requested on demand and the app's
    /// own credential is not refused.
    fn may_serve(&self) -> bool;

    /// Returns whether requests can be authorized.
    fn current_state(&self) -> CredentialState;

    /// Returns the state of the credential and what happened to it.
    fn status(&self) -> CredentialStatus;

    /// Returns the unverified claims of the token in service, if it is a JWT that an identity provider issued. Does not count as
    /// use of the token.
    fn claims(&self) -> Option<Claims>;
}

/// A source without bearers, for code that sets `Authorization` itself, such as `doctor`.
#[derive(Debug)]
pub(crate) struct NoBearer;

impl BearerSource for NoBearer {
    fn current(&self, _url: RequestUrl<'_>) -> Option<Bearer> {
        None
    }

    fn acquire(&self) -> BoxFuture<'_, Result<(), TokenUnavailable>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn replace(&self, _rejected: Fingerprint) -> BoxFuture<'_, Result<(), TokenUnavailable>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn may_serve(&self) -> bool {
        false
    }

    fn current_state(&self) -> CredentialState {
        CredentialState::Starting
    }

    fn status(&self) -> CredentialStatus {
        CredentialStatus {
            state: self.current_state(),
            since: None,
            fingerprint: None,
            obtained_at: None,
            expires_at: None,
            expired_at: None,
            next_at: None,
            last_success: None,
            failures: 0,
            failing_since: None,
            last_failure: None,
        }
    }

    fn claims(&self) -> Option<Claims> {
        None
    }
}

/// The state of a credential, for `/status` and `/readyz`.
#[derive(Clone, Debug)]
pub struct CredentialStatus {
    /// Whether requests can be authorized.
    pub state: CredentialState,
    /// Since when it has this state.
    pub since: Option<SystemTime>,
    /// The fingerprint of the token in service.
    pub fingerprint: Option<Fingerprint>,
    /// When the token in service was obtained.
    pub obtained_at: Option<SystemTime>,
    /// When the token expires, by this host's clock.
    pub expires_at: Option<SystemTime>,
    /// When the last token expired, if it is no longer used and there is no other.
    pub expired_at: Option<SystemTime>,
    /// When the next acquisition is due: a renewal, or another try after a failure.
    pub next_at: Option<SystemTime>,
    /// When the last acquisition succeeded.
    pub last_success: Option<SystemTime>,
    /// How many acquisitions failed since the last one that succeeded.
    pub failures: u32,
    /// When the first of them failed.
    pub failing_since: Option<SystemTime>,
    /// The last acquisition that failed, even if later ones succeeded.
    pub last_failure: Option<Arc<FailedAcquisition>>,
}

impl CredentialStatus {
    /// Returns the error of the last acquisition, if it failed, with its sources in one line.
    pub fn error(&self) -> Option<String> {
        let failed = self.last_failure.as_ref().filter(|_| self.failures > 0)?;
        Some(in_one_line(&*failed.cause as &(dyn Error + 'static)))
    }
}

/// Whether requests can be authorized.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialState {
    /// Its token is acquired on demand, and no call has needed it lately.
    Unused,
    /// The first acquisition has not ended.
    Starting,
    /// A valid token is in service.
    Ready,
    /// A valid token is in service, but the last refresh failed.
    Stale,
    /// There is no valid token.
    Unavailable,
}

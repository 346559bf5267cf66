//! The bearer, and the trait through which the request path obtains it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use futures_util::future::BoxFuture;
use http::HeaderValue;

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

    /// Returns the state of the credential.
    fn status(&self) -> CredentialStatus;
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

    fn status(&self) -> CredentialStatus {
        CredentialStatus {
            state: CredentialState::Starting,
            fingerprint: None,
            expires_at: None,
            last_success: None,
            last_error: None,
        }
    }
}

/// The URL of the request that a bearer authorizes, without its query. A token of an access key is valid for this URL only.
#[derive(Clone, Copy, Debug)]
pub struct RequestUrl<'a> {
    /// `https://host[:port]` of the endpoint.
    pub origin: &'a str,
    /// The path as the caller sent it.
    pub path: &'a str,
}

/// An `Authorization` value. Cloning increments a reference count. `Debug` shows only the fingerprint.
#[derive(Clone)]
pub struct Bearer {
    header: HeaderValue,
    fingerprint: Fingerprint,
}

impl Bearer {
    /// Creates the `Authorization` value of a token.
    ///
    /// # Errors
    /// [`NotAToken`] if the token is empty or has bytes that RFC 6750 section 2.1 does not allow.
    pub fn new(token: &str) -> Result<Self, NotAToken> {
        Self::with_fingerprint(token, Fingerprint::of(token))
    }

    /// Creates the `Authorization` value of a token with another fingerprint: that of the access key that signed it.
    pub(crate) fn with_fingerprint(token: &str, fingerprint: Fingerprint) -> Result<Self, NotAToken> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if token.is_empty() || !token.bytes().all(allowed) {
            return Err(NotAToken);
        }
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_invalid| NotAToken)?;
        header.set_sensitive(true);
        Ok(Self { header, fingerprint })
    }

    /// Returns the `Authorization` value, which is marked sensitive.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// Returns the fingerprint that identifies the token in logs.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bearer({})", self.fingerprint)
    }
}

/// The error for a token that is empty or has characters that RFC 6750 does not allow.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token is empty or has characters that a bearer token cannot have")]
pub struct NotAToken;

/// The identifier of a token in logs and on the admin pages: the first eight hex digits of its SHA-256. Tokens that an access
/// key signs have the fingerprint of the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u32);

impl Fingerprint {
    /// Computes the fingerprint of a token, given without `Bearer `.
    pub fn of(token: &str) -> Self {
        let digest = digest::digest(&digest::SHA256, token.as_bytes());
        Self(digest.as_ref().iter().take(4).fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The error when there is no valid bearer. All callers that waited for the same acquisition get the same cause.
#[derive(Clone, Debug)]
pub struct TokenUnavailable {
    /// When the next acquisition is due.
    pub retry_after: Duration,
    /// Who must act. This may be sent to callers.
    pub who_acts: Actor,
    /// The cause, for logs and the admin pages. It names tenants and hosts, so it must not be sent to callers.
    pub cause: Arc<dyn Error + Send + Sync>,
}

/// Who must act on a missing token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// The gateway: it retries.
    Gateway,
    /// The operator of the gateway: the configuration, the proof or the app registration.
    Operator,
    /// An administrator of the endpoint's tenant.
    TenantAdministrator,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Gateway => "no action is needed, the gateway retries",
            Self::Operator => "the gateway's operator must act",
            Self::TenantAdministrator => "an administrator of the endpoint's tenant must act",
        })
    }
}

impl fmt::Display for TokenUnavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("no valid token")
    }
}

impl Error for TokenUnavailable {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.cause)
    }
}

/// The state of a credential, for `/status` and `/readyz`.
#[derive(Clone, Debug)]
pub struct CredentialStatus {
    /// Whether requests can be authorized.
    pub state: CredentialState,
    /// The fingerprint of the token in service.
    pub fingerprint: Option<Fingerprint>,
    /// When the token expires, by this host's clock.
    pub expires_at: Option<SystemTime>,
    /// When the last acquisition succeeded.
    pub last_success: Option<SystemTime>,
    /// The error of the last acquisition, if it failed, with its sources in one line.
    pub last_error: Option<String>,
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_the_token() {
        let bearer = Bearer::new("canary-token").unwrap();
        assert!(!format!("{bearer:?} {:?}", bearer.header()).contains("canary"));
        assert_eq!(format!("{bearer:?}"), "Bearer(4b598de5)");
    }

    #[test]
    fn rejects_characters_that_a_bearer_token_cannot_have() {
        for token in ["", "two words", "line\nbreak", "quote\"", "nul\0", "ü"] {
            assert_eq!(Bearer::new(token).err(), Some(NotAToken), "{token:?}");
        }
    }

    #[test]
    fn missing_token_states_its_cause() {
        let cause = Arc::new(std::io::Error::other("Entra is unreachable"));
        let unavailable = TokenUnavailable { retry_after: Duration::ZERO, who_acts: Actor::Gateway, cause };
        assert_eq!(unavailable.to_string(), "no valid token");
        assert_eq!(unavailable.source().unwrap().to_string(), "Entra is unreachable");
    }
}

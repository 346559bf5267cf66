//! The bearer, and the error if there is none.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::digest;
use http::HeaderValue;

use super::jwt::{self, Claims};

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

    /// Returns the unverified claims of the token, if it is a JWT.
    pub fn claims(&self) -> Option<Claims> {
        jwt::claims(self.header.to_str().ok()?.strip_prefix("Bearer ")?)
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
            Self::Gateway => "the gateway retries; its operator acts if that goes on",
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

//! The bearer and the seam between those who obtain it and those who use it.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::digest;
use futures_util::future::BoxFuture;
use http::HeaderValue;

/// Where bearers come from: one per configured credential, shared by all workers.
pub trait BearerSource: fmt::Debug + Send + Sync {
    /// Returns the bearer for a request to `url` (scheme, authority and path, without query), if one is valid now.
    /// Takes no lock and does no I/O.
    fn ready(&self, url: RequestUrl<'_>) -> Option<Bearer>;

    /// Waits until there is a bearer, sharing the acquisition under way or starting one.
    ///
    /// # Errors
    /// [`TokenUnavailable`] when the acquisition failed, or when the last one failed and the next is not due.
    ///
    /// # Cancel safety
    /// Safe: acquisitions run in tasks of their own and their outcome is kept.
    fn acquire(&self) -> BoxFuture<'_, Result<(), TokenUnavailable>>;

    /// Gets another bearer in place of `refused` (an endpoint answered 401 to it), if that is still the current one, and
    /// waits for it. Callers that report the same bearer share one acquisition. Until another is there the refused one
    /// stays in service: other endpoints may take it, and one that answers 401 to everything must not stop them.
    ///
    /// # Errors
    /// [`TokenUnavailable`] when there is no other bearer to be had now: the acquisition failed, a forced one was made
    /// a moment ago, or what came back is byte for byte the one that was refused.
    ///
    /// # Cancel safety
    /// Safe, as [`BearerSource::acquire`].
    fn replace(&self, refused: Fingerprint) -> BoxFuture<'_, Result<(), TokenUnavailable>>;

    /// Says how the credential is doing.
    fn status(&self) -> CredentialStatus;
}

/// In the place of an endpoint's bearers where whoever calls it brings their own, as the doctor does.
#[derive(Debug)]
pub(crate) struct NoBearer;

impl BearerSource for NoBearer {
    fn ready(&self, _url: RequestUrl<'_>) -> Option<Bearer> {
        None
    }

    fn acquire(&self) -> BoxFuture<'_, Result<(), TokenUnavailable>> {
        Box::pin(std::future::ready(Ok(())))
    }

    fn replace(&self, _refused: Fingerprint) -> BoxFuture<'_, Result<(), TokenUnavailable>> {
        Box::pin(std::future::ready(Ok(())))
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

/// The URL a bearer is wanted for, in the parts a signer needs. The query is not part of an access key's audience.
#[derive(Clone, Copy, Debug)]
pub struct RequestUrl<'a> {
    /// `https://host[:port]` of the endpoint.
    pub origin: &'a str,
    /// The path as the caller sent it.
    pub path: &'a str,
}

/// A ready `Authorization` value. Cloning is a reference count; it never prints.
#[derive(Clone)]
pub struct Bearer {
    header: HeaderValue,
    fingerprint: Fingerprint,
}

impl Bearer {
    /// Makes the `Authorization` value of a token.
    ///
    /// # Errors
    /// [`NotAToken`] when the token is empty or has bytes that RFC 6750 section 2.1 does not allow.
    pub fn new(token: &str) -> Result<Self, NotAToken> {
        Self::named(token, Fingerprint::of(token))
    }

    /// Makes the `Authorization` value of a token that goes by the name of the key that signed it.
    pub(crate) fn named(token: &str, fingerprint: Fingerprint) -> Result<Self, NotAToken> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
        if token.is_empty() || !token.bytes().all(allowed) {
            return Err(NotAToken);
        }
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_invalid| NotAToken)?;
        header.set_sensitive(true);
        Ok(Self { header, fingerprint })
    }

    /// Returns the value for `Authorization`. It is marked sensitive.
    pub fn header(&self) -> &HeaderValue {
        &self.header
    }

    /// Returns the name of the token in logs.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Bearer({})", self.fingerprint)
    }
}

/// A token is empty or not of the form that RFC 6750 allows in a header.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token is empty or has characters that a bearer token cannot have")]
pub struct NotAToken;

/// The name of a token in logs and on pages: the first eight hex digits of its SHA-256. Tokens that an access key signs
/// (one for each request) go by the name of the key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(u32);

impl Fingerprint {
    /// Takes the fingerprint of a token, without the `Bearer ` before it.
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

/// There is no valid bearer, and why. All callers that waited for one acquisition get the same cause.
#[derive(Clone, Debug)]
pub struct TokenUnavailable {
    /// When it is worth asking again.
    pub retry_after: Duration,
    /// Who can do something about it. This much callers may know.
    pub who_acts: Actor,
    /// What went wrong. For logs and the admin pages; it names tenants and hosts, so it is not for callers.
    pub cause: Arc<dyn Error + Send + Sync>,
}

/// Who can do something about a token that is not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Actor {
    /// Nobody has to: it is tried again.
    Nobody,
    /// Whoever runs the gateway: its configuration, its proof, its app registration.
    Operator,
    /// An administrator of the tenant that the endpoint lives in.
    TenantAdministrator,
}

impl fmt::Display for Actor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nobody => "nobody needs to act, the gateway tries again by itself",
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

/// How a credential is doing, for `/status` and `/readyz`.
#[derive(Clone, Debug)]
pub struct CredentialStatus {
    /// Whether requests can be signed.
    pub state: CredentialState,
    /// The token in service.
    pub fingerprint: Option<Fingerprint>,
    /// When that token expires, by this host's clock.
    pub expires_at: Option<SystemTime>,
    /// When the last acquisition succeeded.
    pub last_success: Option<SystemTime>,
    /// Why the last acquisition failed, if it did: the chain of causes in one line.
    pub last_error: Option<String>,
}

/// Whether requests can be signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CredentialState {
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
    fn a_bearer_never_prints() {
        let bearer = Bearer::new("canary-token").unwrap();
        assert!(!format!("{bearer:?} {:?}", bearer.header()).contains("canary"));
        assert_eq!(format!("{bearer:?}"), "Bearer(4b598de5)");
    }

    #[test]
    fn refuses_what_cannot_be_a_bearer_token() {
        for token in ["", "two words", "line\nbreak", "quote\"", "nul\0", "ü"] {
            assert_eq!(Bearer::new(token).err(), Some(NotAToken), "{token:?}");
        }
    }
}

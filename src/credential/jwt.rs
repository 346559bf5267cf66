//! JSON Web Tokens: encodes segments and reads claims.
//!
//! Signatures are not verified. A token may also be opaque: Microsoft's own APIs may use such tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE_NO_PAD, URL_SAFE_NO_PAD_INDIFFERENT};
use serde_json::{Map, Value};

use super::lifetime;

/// The claims of a token.
pub type Claims = Map<String, Value>;

/// Encodes bytes as a segment (RFC 7515 section 2, base64url without padding).
pub(crate) fn encode(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns the unverified claims of a token, if it is a JWT. They are used for display and for the expiry.
pub(crate) fn claims(token: &str) -> Option<Claims> {
    let mut segments = token.split('.');
    let (_header, payload, _signature) = (segments.next()?, segments.next()?, segments.next()?);
    let payload = URL_SAFE_NO_PAD_INDIFFERENT.decode(payload).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// Returns the `exp` claim (RFC 7519 section 4.1.4), truncated to seconds.
pub(crate) fn expiry(claims: &Claims) -> Option<SystemTime> {
    time(claims, "exp")
}

/// Returns the time in a claim, truncated to seconds.
pub(crate) fn time(claims: &Claims, claim: &str) -> Option<SystemTime> {
    lifetime::timestamp(claims.get(claim)?)
}

/// Converts a time to whole seconds since 1970, the format of JWTs.
pub(crate) fn unix_seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn reads_the_expiry_of_a_jwt() {
        let token = |payload: &str| format!("e30.{}.sig", encode(payload.as_bytes()));
        let exp = |token: &str| claims(token).as_ref().and_then(expiry);
        assert_eq!(exp(&token(r#"{"exp":1800000000}"#)), Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
        assert_eq!(exp(&token(r#"{"exp":1800000000.5}"#)), Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
        assert_eq!(exp(&token(r#"{"exp":"1800000000"}"#)), Some(UNIX_EPOCH + Duration::from_secs(1_800_000_000)));
        for payload in [r#"{"exp":-1}"#, r#"{"exp":1e300}"#, r#"{"exp":"soon"}"#, "{}", "[]", "not json"] {
            assert_eq!(exp(&token(payload)), None, "{payload}");
        }
        assert_eq!(claims("opaque"), None);
        assert_eq!(claims("a.b"), None);
    }
}

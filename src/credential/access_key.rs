//! Access keys: the gateway signs a token for each request with the key of the SignalR resource.
//!
//! For the official emulator and for resources with local authentication.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;

use super::bearer::{Bearer, Fingerprint, RequestUrl};
use super::jwt;

/// The lifetime of a signed token. Chosen: a request takes seconds; the rest tolerates a service clock that is ahead.
const LIFETIME: Duration = Duration::from_secs(10 * 60);

/// Subtracted from the current time for `nbf`: the service's clock may be behind.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(60);

/// An access key, which signs a token for each request.
#[derive(Clone)]
pub(crate) struct AccessKey {
    /// Behind an `Arc` because it is larger than a bearer, the other variant of `TokenOrKey`.
    key: Arc<hmac::Key>,
    fingerprint: Fingerprint,
}

impl AccessKey {
    /// Creates a key from the text in the Azure portal. The bytes of the text are the key, although they look like base64.
    /// Source: Azure SignalR SDK, `AuthUtility.cs`.
    pub(crate) fn new(key: &str) -> Self {
        let fingerprint = Fingerprint::of(key);
        Self { key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())), fingerprint }
    }

    /// Returns the fingerprint of the key. All tokens that it signs share this fingerprint.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Signs a token for a request. `aud` is the URL of the request without its query.
    /// Source: Azure SignalR data-plane REST reference, "Authenticate via Azure SignalR Service `AccessKey`".
    pub(crate) fn sign(&self, url: RequestUrl<'_>, now: SystemTime) -> Option<Bearer> {
        // {"alg":"HS256","typ":"JWT"}
        const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
        let audience = serde_json::to_string(&format!("{}{}", url.origin, url.path)).ok()?;
        let now = jwt::unix_seconds(now);
        let (not_before, expires) = (now.saturating_sub(CLOCK_TOLERANCE.as_secs()), now + LIFETIME.as_secs());
        let claims = format!(r#"{{"aud":{audience},"iat":{now},"nbf":{not_before},"exp":{expires}}}"#);
        let mut token = format!("{HEADER}.{}", jwt::encode(claims.as_bytes()));
        let signature = hmac::sign(&self.key, token.as_bytes());
        token.push('.');
        token.push_str(&jwt::encode(signature.as_ref()));
        Bearer::with_fingerprint(&token, self.fingerprint).ok()
    }
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AccessKey({})", self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use serde_json::json;

    use super::*;

    fn token(key: &AccessKey, path: &str) -> String {
        let url = RequestUrl { origin: "https://contoso.service.signalr.net", path };
        let bearer = key.sign(url, UNIX_EPOCH + Duration::from_secs(1_800_000_000)).unwrap();
        bearer.header().to_str().unwrap().strip_prefix("Bearer ").unwrap().to_owned()
    }

    #[test]
    fn signs_the_url_without_its_query() {
        let token = token(&AccessKey::new("key text"), "/api/hubs/chat/:send");
        let claims = jwt::claims(&token).unwrap();
        assert_eq!(claims["aud"], json!("https://contoso.service.signalr.net/api/hubs/chat/:send"));
        assert_eq!((&claims["iat"], &claims["nbf"]), (&json!(1_800_000_000), &json!(1_799_999_940)));
        assert_eq!(claims["exp"], json!(1_800_000_600));
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"key text");
        assert_eq!(signature, jwt::encode(hmac::sign(&key, signed.as_bytes()).as_ref()));
    }

    #[test]
    fn quotes_in_a_path_are_escaped_in_the_audience() {
        let path = "/api/hubs/x\",\"exp\":9999999999,\"y\":\"\\";
        let claims = jwt::claims(&token(&AccessKey::new("k"), path)).unwrap();
        assert_eq!(claims["aud"], json!(format!("https://contoso.service.signalr.net{path}")));
        assert_eq!(claims["exp"], json!(1_800_000_600));
    }
}

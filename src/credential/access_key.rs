//! Access keys: a token of our own making for each request, signed with the key of the SignalR resource.
//!
//! For the official emulator and for resources with local authentication. Knows nothing of Entra.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_lc_rs::hmac;

use super::bearer::{Bearer, Fingerprint, RequestUrl};
use super::jwt;

/// How long a token is valid. Chosen: a request lasts seconds; the rest is for a service whose clock is ahead.
const LIFE: Duration = Duration::from_secs(10 * 60);

/// How far `nbf` lies back, for a service whose clock is behind.
const BACKDATED: Duration = Duration::from_secs(60);

/// A key that signs a token for each request.
#[derive(Clone)]
pub(crate) struct AccessKey {
    /// Shared, since it is large and goes where a bearer could be.
    key: Arc<hmac::Key>,
    fingerprint: Fingerprint,
}

impl AccessKey {
    /// Takes a key as the portal shows it. Its bytes are the text's own; it is not decoded.
    /// Source: Azure SignalR SDK, `AuthUtility.cs`.
    pub(crate) fn new(key: &str) -> Self {
        let fingerprint = Fingerprint::of(key);
        Self { key: Arc::new(hmac::Key::new(hmac::HMAC_SHA256, key.as_bytes())), fingerprint }
    }

    /// Returns the name of the *key* in logs. Its tokens have no name of their own: there is one for each request.
    pub(crate) fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    /// Signs the token of a request. `aud` is the request's URL without its query.
    /// Source: Azure SignalR data-plane REST reference, "Authenticate via Azure SignalR Service `AccessKey`".
    pub(crate) fn sign(&self, url: RequestUrl<'_>, now: SystemTime) -> Option<Bearer> {
        // {"alg":"HS256","typ":"JWT"}
        const HEADER: &str = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9";
        let audience = serde_json::to_string(&format!("{}{}", url.origin, url.path)).ok()?;
        let now = jwt::unix(now);
        let (not_before, expires) = (now.saturating_sub(BACKDATED.as_secs()), now + LIFE.as_secs());
        let claims = format!(r#"{{"aud":{audience},"iat":{now},"nbf":{not_before},"exp":{expires}}}"#);
        let mut token = format!("{HEADER}.{}", jwt::encode(claims.as_bytes()));
        let signature = hmac::sign(&self.key, token.as_bytes());
        token.push('.');
        token.push_str(&jwt::encode(signature.as_ref()));
        Bearer::named(&token, self.fingerprint).ok()
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
    fn no_path_breaks_out_of_the_audience() {
        let odd = "/api/hubs/x\",\"exp\":9999999999,\"y\":\"\\";
        let claims = jwt::claims(&token(&AccessKey::new("k"), odd)).unwrap();
        assert_eq!(claims["aud"], json!(format!("https://contoso.service.signalr.net{odd}")));
        assert_eq!(claims["exp"], json!(1_800_000_600));
    }
}

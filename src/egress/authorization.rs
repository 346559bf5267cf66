//! The `Proxy-Authorization` header of one proxy.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;

use super::error::TunnelError;
use super::settings::ProxyCredentials;
use super::url::ProxyUrl;
use crate::files::{Secret, SecretSource, SecretSourceError};

/// How long a password is used before it is read again. Chosen: a burst of connections reads the file once, and a new password
/// is used at once.
const REUSED_FOR: Duration = Duration::from_secs(1);

/// The source of the `Proxy-Authorization` header of one proxy.
#[derive(Debug)]
pub struct Authorization {
    credentials: Option<ProxyCredentials>,
    /// The last value and when it was read.
    last: Mutex<Option<(Instant, HeaderValue)>>,
}

impl Authorization {
    /// Creates the source. Reads nothing.
    pub fn new(credentials: Option<ProxyCredentials>) -> Self {
        Self { credentials, last: Mutex::default() }
    }

    /// Returns the header value, or `None` if the proxy needs none. Reads the password, unless it was read a moment ago.
    ///
    /// # Errors
    /// [`TunnelError::Password`] or [`TunnelError::UnusableVariable`] if there is no user name or password.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn value(&self) -> Result<Option<HeaderValue>, TunnelError> {
        let Some(credentials) = &self.credentials else { return Ok(None) };
        if let Some((read_at, value)) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner)
            && read_at.elapsed() < REUSED_FOR
        {
            return Ok(Some(value.clone()));
        }
        let (username, password) = match credentials {
            ProxyCredentials::Configured { username, password } => (username.clone(), password.read().await?.secret),
            ProxyCredentials::UrlInVariable(name) => {
                let url = SecretSource::Env(name.clone()).read().await?.secret;
                user_of(name, &url)?
            }
        };
        let pair = Secret::new(format!("{username}:{}", password.expose()));
        let encoded = Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())));
        // Base64 is always valid in a header.
        let mut value = HeaderValue::try_from(encoded.expose()).unwrap_or_else(|_invalid| HeaderValue::from_static(""));
        value.set_sensitive(true);
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((Instant::now(), value.clone()));
        Ok(Some(value))
    }
}

/// Returns the user name and password in the URL in a variable.
fn user_of(name: &str, url: &Secret) -> Result<(String, Secret), TunnelError> {
    let user = ProxyUrl::parse(url.expose()).ok().and_then(|url| url.user);
    user.ok_or_else(|| TunnelError::UnusableVariable(name.to_owned()))
}

impl From<SecretSourceError> for TunnelError {
    fn from(err: SecretSourceError) -> Self {
        Self::Password(err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn password_is_read_when_it_is_used_and_the_header_is_hidden_from_logs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let configured = |path: &std::path::Path| {
            let password = SecretSource::File(path.to_owned());
            Authorization::new(Some(ProxyCredentials::Configured { username: "gateway".to_owned(), password }))
        };
        let authorization = configured(&path);
        assert!(matches!(authorization.value().await, Err(TunnelError::Password(_))), "the file does not exist");
        std::fs::write(&path, "correct horse\n").unwrap();
        let value = authorization.value().await.unwrap().unwrap();
        assert_eq!(value, "Basic Z2F0ZXdheTpjb3JyZWN0IGhvcnNl");
        assert!(!format!("{authorization:?} {value:?}").contains("Z2F0"), "{authorization:?}");
        // Another source, since the value is reused for a moment.
        std::fs::write(&path, "another").unwrap();
        assert_ne!(configured(&path).value().await.unwrap().unwrap(), value);
        assert_eq!(Authorization::new(None).value().await.unwrap(), None);
    }

    #[test]
    fn user_of_a_variable_is_in_its_url() {
        let (name, password) = user_of("HTTPS_PROXY", &Secret::new("http://me:pa%20ss@proxy:1".to_owned())).unwrap();
        assert_eq!((name.as_str(), password.expose()), ("me", "pa ss"));
        let err = user_of("HTTPS_PROXY", &Secret::new("http://proxy:1".to_owned())).unwrap_err();
        assert!(err.to_string().contains("HTTPS_PROXY"), "{err}");
    }
}

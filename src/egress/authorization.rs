//! The `Proxy-Authorization` header of one proxy.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::HeaderValue;
use tokio::io::{AsyncRead, AsyncWrite};

use super::acceptance::Acceptance;
use super::error::TunnelError;
use super::settings::{EgressProxy, ProxyCredentials};
use super::tunnel::{Target, open_tunnel};
use super::url::ProxyUrl;
use crate::files::{Secret, SecretSource, SecretSourceError, SecretText};
use crate::runbook::{Condition, Section};

/// How long a password is used before it is read again. Chosen: a burst of connections reads the file once, and a new password
/// is used at once.
const REUSED_FOR: Duration = Duration::from_secs(1);

/// The source of the `Proxy-Authorization` header of one proxy.
#[derive(Debug)]
pub struct Authorization {
    /// The address of the proxy.
    address: String,
    credentials: Option<ProxyCredentials>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The last value and when it was read.
    last: Option<(Instant, Value)>,
    /// What is remarkable about the file of the password that was read last.
    warnings: Vec<String>,
}

/// A header value.
#[derive(Clone, Debug)]
struct Value {
    header: HeaderValue,
    acceptance: Arc<Acceptance>,
}

impl Authorization {
    /// Creates the source. Reads nothing.
    pub fn new(proxy: &EgressProxy) -> Self {
        Self { address: proxy.to_string(), credentials: proxy.credentials.clone(), state: Mutex::default() }
    }

    /// Asks the proxy for a tunnel to `target`, with the user name and password if it needs them. Those that it has refused a
    /// moment ago are not sent again by any client, and only one connection at a time sends those that it has not accepted yet.
    ///
    /// # Errors
    /// [`TunnelError`]. `stream` cannot be used then.
    ///
    /// # Cancel safety
    /// `stream` cannot be used after a cancellation.
    pub async fn open_tunnel<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        stream: &mut S,
        target: &Target,
    ) -> Result<(), TunnelError> {
        let Some(Value { header, acceptance }) = self.value().await? else {
            return open_tunnel(stream, target, None).await;
        };
        let _turn = acceptance.admit().await?;
        let opened = open_tunnel(stream, target, Some(&header)).await;
        acceptance.record(&opened);
        opened
    }

    /// Returns the header value, or `None` if the proxy needs none. Reads the password, unless it was read a moment ago, and logs
    /// new warnings about its file.
    ///
    /// # Errors
    /// [`TunnelError::Password`] or [`TunnelError::UnusableVariable`] if there is no user name or password.
    ///
    /// # Cancel safety
    /// Safe.
    async fn value(&self) -> Result<Option<Value>, TunnelError> {
        let Some(credentials) = &self.credentials else { return Ok(None) };
        if let Some((read_at, value)) = &self.state().last
            && read_at.elapsed() < REUSED_FOR
        {
            return Ok(Some(value.clone()));
        }
        let (header, warnings) = read(credentials).await?;
        let value = Value { acceptance: Acceptance::of(&self.address, &header), header };
        let mut state = self.state();
        if warnings != state.warnings {
            for warning in &warnings {
                let section = Section::Condition(Condition::CredentialFile);
                tracing::warn!(side = "configuration", remedy = section.remedy(), runbook = %section, "the password of the proxy: {warning}");
            }
            state.warnings = warnings;
        }
        state.last = Some((Instant::now(), value.clone()));
        Ok(Some(value))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads the password of a proxy. Returns warnings about its file.
///
/// # Errors
/// [`TunnelError`] if there is no user name or password.
///
/// # Cancel safety
/// Safe.
pub async fn inspect_password(proxy: &EgressProxy) -> Result<Vec<String>, TunnelError> {
    match &proxy.credentials {
        Some(credentials) => read(credentials).await.map(|(_, warnings)| warnings),
        None => Ok(Vec::new()),
    }
}

/// Reads the password. Returns the header value, and warnings about the file.
async fn read(credentials: &ProxyCredentials) -> Result<(HeaderValue, Vec<String>), TunnelError> {
    let (username, password, warnings) = match credentials {
        ProxyCredentials::Configured { username, password } => {
            let SecretText { secret, warnings } = password.read().await?;
            (username.clone(), secret, warnings)
        }
        ProxyCredentials::UrlInVariable(name) => {
            let url = SecretSource::Env(name.clone()).read().await?.secret;
            let (username, password) = user_of(name, &url)?;
            (username, password, Vec::new())
        }
    };
    let pair = Secret::new(format!("{username}:{}", password.expose()));
    let encoded = Secret::new(format!("Basic {}", STANDARD.encode(pair.expose())));
    // Base64 is always valid in a header.
    let mut value = HeaderValue::try_from(encoded.expose()).unwrap_or_else(|_invalid| HeaderValue::from_static(""));
    value.set_sensitive(true);
    Ok((value, warnings))
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
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::error::{ProxyLayer, RefusalKind};
    use super::*;

    /// Returns the source for a client of the proxy at `host`, with the password in a file.
    fn client(host: &str, password: &std::path::Path) -> Authorization {
        let password = SecretSource::File(password.to_owned());
        Authorization::new(&EgressProxy {
            tls: false,
            host: host.to_owned(),
            port: 3128,
            ca_file: None,
            credentials: Some(ProxyCredentials::Configured { username: "gateway".to_owned(), password }),
            configured_by: "egress.proxy".to_owned(),
        })
    }

    #[tokio::test]
    async fn password_is_read_when_it_is_used_and_the_header_is_hidden_from_logs() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        let authorization = client("hidden.example", &path);
        assert!(matches!(authorization.value().await, Err(TunnelError::Password(_))), "the file does not exist");
        std::fs::write(&path, "correct horse\n").unwrap();
        let value = authorization.value().await.unwrap().unwrap().header;
        assert_eq!(value, "Basic Z2F0ZXdheTpjb3JyZWN0IGhvcnNl");
        assert!(!format!("{authorization:?} {value:?}").contains("Z2F0"), "{authorization:?}");
        // Another source, since the value is reused for a moment.
        std::fs::write(&path, "another").unwrap();
        assert_ne!(client("hidden.example", &path).value().await.unwrap().unwrap().header, value);
    }

    #[test]
    fn user_of_a_variable_is_in_its_url() {
        let (name, password) = user_of("HTTPS_PROXY", &Secret::new("http://me:pa%20ss@proxy:1".to_owned())).unwrap();
        assert_eq!((name.as_str(), password.expose()), ("me", "pa ss"));
        let err = user_of("HTTPS_PROXY", &Secret::new("http://proxy:1".to_owned())).unwrap_err();
        assert!(err.to_string().contains("HTTPS_PROXY"), "{err}");
    }

    /// Asks a proxy that answers 407 for a tunnel. Returns whether it was asked, and the outcome.
    async fn ask(authorization: &Authorization) -> (bool, Result<(), TunnelError>) {
        let (mut ours, mut theirs) = tokio::io::duplex(1024);
        let answer = async {
            let mut first = [0; 1024];
            let asked = theirs.read(&mut first).await.unwrap() > 0;
            let _gone = theirs.write_all(b"HTTP/1.1 407 x\r\n\r\n").await;
            asked
        };
        let asked = async {
            let opened = authorization.open_tunnel(&mut ours, &Target::new("east.example", 443)).await;
            drop(ours);
            opened
        };
        tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(answer, asked) }).await.unwrap()
    }

    #[tokio::test]
    async fn refused_password_is_not_sent_again_at_once_by_any_client_but_another_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        std::fs::write(&path, "wrong").unwrap();
        let (one, other) = (client("refused.example", &path), client("refused.example", &path));
        // Either reads the password first.
        let (first, second) = tokio::join!(ask(&one), ask(&other));
        let ((true, Err(refused)), (false, Err(err))) = (if first.0 { (first, second) } else { (second, first) })
        else {
            panic!("one of the two is asked");
        };
        assert!(matches!(refused, TunnelError::Refused(_)), "{refused}");
        assert!(matches!(err, TunnelError::RefusedBefore { .. }), "{err}");
        assert_eq!(err.layer(), ProxyLayer::Refused(RefusalKind::WrongCredentials));
        assert!(!ask(&one).await.0, "the client that was refused does not send it again either");
        assert!(ask(&client("another.example", &path)).await.0, "another proxy");

        std::fs::write(&path, "another").unwrap();
        // The value is reused for a moment.
        one.state().last = None;
        assert!(ask(&one).await.0);
    }

    #[tokio::test]
    async fn connections_wait_for_no_others_once_the_password_is_accepted() {
        let value = HeaderValue::from_static("Basic eDp5");
        let acceptance = Acceptance::of("http://accepted.example:3128", &value);
        let first = acceptance.admit().await.unwrap();
        assert!(first.is_some());
        acceptance.record(&Ok(()));
        let others =
            async { (acceptance.admit().await.unwrap().is_some(), acceptance.admit().await.unwrap().is_some()) };
        assert_eq!(others.await, (false, false));
    }

    #[tokio::test(start_paused = true)]
    async fn proxy_that_does_not_answer_the_first_connection_delays_the_others_for_a_second() {
        let acceptance = Acceptance::default();
        let _unanswered = acceptance.admit().await.unwrap();
        let started = tokio::time::Instant::now();
        let (second, third) = tokio::join!(acceptance.admit(), acceptance.admit());
        assert!(second.is_ok() && third.is_ok());
        assert_eq!(started.elapsed().as_secs(), 1);
    }
}

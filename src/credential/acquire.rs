//! The trait that every source of tokens implements, and the retries within one acquisition.
//!
//! `refresh.rs` and `schedule.rs` decide when an acquisition starts.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout};

use super::access_key::AccessKey;
use super::authority::{Authority, Requester};
use super::bearer::{Bearer, Fingerprint, RequestUrl};
use super::error::CredentialError;
use super::lifetime::Lifetime;
use super::record::AcquisitionRecord;
use super::schedule::ErrorClass;
use super::settings::AppSettings;
use super::waiting_callers::WaitingCallers;

/// The deadline of one acquisition, including all retries and steps, without the time in the queue of its authority. Chosen: if a
/// request times out after ten seconds, there is time for another that Entra may answer more slowly, and calls that wait (30 s by
/// default) get to know why there is no token.
const ACQUISITION_DEADLINE: Duration = Duration::from_secs(25);

/// A try with less time than this is not made.
const SHORTEST_TRY: Duration = Duration::from_secs(1);

/// The maximum number of tries within one acquisition. Chosen: Microsoft recommends few immediate retries; the refresh task
/// makes later ones.
const TRIES: u32 = 3;

/// The wait before the second try; the third waits three times as long. Source: IMDS requires a back-off of at least a second
/// in total (here 0.4 s + 1.2 s).
const FIRST_WAIT: Duration = Duration::from_millis(400);

/// A way to obtain a bearer token or an access key.
#[async_trait]
pub(crate) trait Acquire: fmt::Debug + Send + Sync {
    /// Requests a new token, or reads the token or key again. Uses no cache.
    async fn acquire(&self, record: &AcquisitionRecord) -> Result<Acquired, CredentialError>;

    /// Returns the files that an acquisition reads, and what they hold.
    fn watched_files(&self) -> WatchedFiles;

    /// Returns the app registration that authenticates, if the credential is one.
    fn app(&self) -> Option<&AppSettings> {
        None
    }

    /// Checks the files and variables that an acquisition reads. Sends nothing and runs no program.
    async fn inspect(&self, _record: &AcquisitionRecord) -> Result<(), CredentialError> {
        Ok(())
    }
}

/// The files that an acquisition reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct WatchedFiles {
    pub(crate) paths: Vec<PathBuf>,
    pub(crate) content: FileContent,
}

/// What watched files hold. A change of them starts an acquisition after a failed one; this decides what it starts otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum FileContent {
    /// A token of another identity, which a program replaces every few minutes: a change starts nothing.
    #[default]
    Assertion,
    /// What an operator replaces, such as a secret or a certificate: a change is tried with one token of the app.
    Proof,
    /// The token or key itself: a change always starts an acquisition.
    Token,
}

/// The result of a successful acquisition.
#[derive(Debug)]
pub(crate) struct Acquired {
    pub(crate) token_or_key: TokenOrKey,
    /// The lifetime of the token. `None` if the token or key does not expire.
    pub(crate) lifetime: Option<Lifetime>,
}

impl Acquired {
    /// Creates the result from a token that expires.
    pub(crate) fn bearer(token: &str, lifetime: Lifetime) -> Result<Self, CredentialError> {
        Ok(Self { token_or_key: TokenOrKey::Bearer(Bearer::new(token)?), lifetime: Some(lifetime) })
    }
}

/// A bearer token, or a key that signs bearer tokens.
#[derive(Clone, Debug)]
pub(crate) enum TokenOrKey {
    /// A token that is sent unchanged.
    Bearer(Bearer),
    /// A key that signs a token for each request.
    AccessKey(AccessKey),
}

impl TokenOrKey {
    /// Returns the bearer for a request.
    pub(crate) fn bearer(&self, url: RequestUrl<'_>) -> Option<Bearer> {
        match self {
            Self::Bearer(bearer) => Some(bearer.clone()),
            Self::AccessKey(key) => key.sign(url, SystemTime::now()),
        }
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Bearer(bearer) => bearer.fingerprint(),
            Self::AccessKey(key) => key.fingerprint(),
        }
    }
}

/// An acquirer that retries transient failures until a deadline. Each try waits for its turn at the authority. After a request that
/// timed out, the next one gets all the time that is left: the endpoint may be slow. It does not retry a
/// failure with `Retry-After`: the refresh task waits that long.
#[derive(Debug)]
pub(crate) struct WithRetries<A> {
    inner: A,
    authority: Arc<Authority>,
    requester: Requester,
}

impl<A> WithRetries<A> {
    /// Wraps an acquirer that sends its requests to `authority`. `callers` counts those that wait for its token.
    pub(crate) fn new(inner: A, authority: Arc<Authority>, callers: Arc<WaitingCallers>) -> Self {
        Self { inner, authority, requester: Requester::new(callers) }
    }
}

#[async_trait]
impl<A: Acquire> Acquire for WithRetries<A> {
    async fn acquire(&self, record: &AcquisitionRecord) -> Result<Acquired, CredentialError> {
        let mut left = ACQUISITION_DEADLINE;
        let mut wait = FIRST_WAIT;
        let mut last = None;
        for _ in 0..TRIES {
            if last.is_some() {
                let pause = wait.mul_f64(0.8 + 0.4 * fastrand::f64()).min(left);
                let started = Instant::now();
                sleep(pause).await;
                left = left.saturating_sub(started.elapsed());
                wait *= 3;
                if left < SHORTEST_TRY {
                    break;
                }
            }
            if last.as_ref().is_some_and(CredentialError::is_timeout) {
                // Less than what is left, so that the request times out and says so.
                record.set_request_timeout(Duration::from_secs(left.saturating_sub(SHORTEST_TRY / 10).as_secs()));
            }
            let attempt = async {
                let started = Instant::now();
                (timeout(left, self.inner.acquire(record)).await, started.elapsed())
            };
            let (outcome, took) = self.authority.run(&self.requester, attempt).await;
            left = left.saturating_sub(took);
            match outcome {
                Ok(Err(err)) if err.class() == ErrorClass::Transient && err.retry_after().is_none() => last = Some(err),
                Ok(outcome) => return outcome,
                Err(_elapsed) => break,
            }
        }
        Err(last.unwrap_or(CredentialError::Deadline(ACQUISITION_DEADLINE)))
    }

    fn watched_files(&self) -> WatchedFiles {
        self.inner.watched_files()
    }

    fn app(&self) -> Option<&AppSettings> {
        self.inner.app()
    }

    async fn inspect(&self, record: &AcquisitionRecord) -> Result<(), CredentialError> {
        self.inner.inspect(record).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::credential::authority::Authorities;
    use crate::credential::identity_endpoint::{IdentityEndpoint, IdentityEndpointKind};
    use crate::credential::local_error::SecretError;
    use crate::credential::response_error::NoResponse;
    use crate::metrics::{MetricRegistry, TokenMetrics};
    use crate::redact::in_one_line;

    /// An endpoint that answers after a time.
    #[derive(Debug)]
    struct Slow(Duration);

    #[async_trait]
    impl Acquire for Slow {
        async fn acquire(&self, record: &AcquisitionRecord) -> Result<Acquired, CredentialError> {
            let limit = record.request_timeout().unwrap_or(Duration::from_secs(10));
            if timeout(limit, sleep(self.0)).await.is_err() {
                let CredentialError::NoResponse { endpoint, .. } = unreachable_endpoint() else { unreachable!() };
                return Err(CredentialError::NoResponse { endpoint, source: NoResponse::Timeout(limit) });
            }
            Ok(Acquired { token_or_key: TokenOrKey::Bearer(Bearer::new("token").unwrap()), lifetime: None })
        }

        fn watched_files(&self) -> WatchedFiles {
            WatchedFiles::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_endpoint_that_answers_after_twelve_seconds_is_waited_for_by_the_second_request() {
        let authorities = Authorities::new(TokenMetrics::register(&mut MetricRegistry::default()).unwrap());
        let acquire = async |secs| {
            let slow = Slow(Duration::from_secs(secs));
            let slow = WithRetries::new(slow, authorities.get("https://login.example"), Arc::default());
            slow.acquire(&AcquisitionRecord::default()).await
        };
        acquire(12).await.unwrap();
        let started = Instant::now();
        let error = in_one_line(&acquire(20).await.unwrap_err());
        assert!(error.contains("no response within 14s"), "{error}");
        assert!(started.elapsed() <= ACQUISITION_DEADLINE, "{:?}", started.elapsed());
    }

    /// An acquirer that fails for some tries, each after a delay, then obtains a token.
    #[derive(Debug)]
    struct Flaky {
        failures: u32,
        delay: Duration,
        error: fn() -> CredentialError,
        tries: AtomicU32,
    }

    #[async_trait]
    impl Acquire for Flaky {
        async fn acquire(&self, _record: &AcquisitionRecord) -> Result<Acquired, CredentialError> {
            sleep(self.delay).await;
            if self.tries.fetch_add(1, Ordering::SeqCst) < self.failures {
                return Err((self.error)());
            }
            Ok(Acquired { token_or_key: TokenOrKey::Bearer(Bearer::new("token").unwrap()), lifetime: None })
        }

        fn watched_files(&self) -> WatchedFiles {
            WatchedFiles::default()
        }
    }

    fn unreachable_endpoint() -> CredentialError {
        let endpoint = IdentityEndpoint { kind: IdentityEndpointKind::Entra, authority: "login.example".into() };
        CredentialError::NoResponse { endpoint, source: NoResponse::Timeout(Duration::from_secs(10)) }
    }

    async fn tries(
        failures: u32,
        delay: Duration,
        error: fn() -> CredentialError,
    ) -> (u32, Result<Acquired, CredentialError>) {
        let authorities = Authorities::new(TokenMetrics::register(&mut MetricRegistry::default()).unwrap());
        let flaky = Flaky { failures, delay, error, tries: AtomicU32::new(0) };
        let flaky = WithRetries::new(flaky, authorities.get("https://login.example"), Arc::default());
        let outcome = flaky.acquire(&AcquisitionRecord::default()).await;
        (flaky.inner.tries.into_inner(), outcome)
    }

    #[tokio::test(start_paused = true)]
    async fn retries_a_transient_failure_twice() {
        let started = Instant::now();
        assert!(matches!(tries(2, Duration::ZERO, unreachable_endpoint).await, (3, Ok(_))));
        assert!(matches!(
            tries(9, Duration::ZERO, unreachable_endpoint).await,
            (3, Err(CredentialError::NoResponse { .. }))
        ));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn does_not_retry_a_permanent_failure() {
        let local = || SecretError::Empty { location: "x".into() }.into();
        assert!(matches!(tries(9, Duration::ZERO, local).await, (1, Err(CredentialError::Unreadable(_)))));
    }

    #[tokio::test(start_paused = true)]
    async fn reports_the_last_failure_at_the_deadline() {
        let started = Instant::now();
        let (_, never) = tries(0, Duration::from_secs(3600), unreachable_endpoint).await;
        assert_eq!(never.unwrap_err().to_string(), "no token within 25s");
        assert_eq!(started.elapsed(), ACQUISITION_DEADLINE);
        let (_, slow) = tries(9, Duration::from_secs(10), unreachable_endpoint).await;
        assert!(matches!(slow, Err(CredentialError::NoResponse { .. })), "{slow:?}");
        assert_eq!(started.elapsed(), 2 * ACQUISITION_DEADLINE);
    }
}

//! One acquisition: the seam between those who know how a token is obtained and the cell that keeps it.
//!
//! Does not know when an acquisition is made: that is `refresh.rs` and `schedule.rs`.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout_at};

use super::access_key::AccessKey;
use super::bearer::{Bearer, Fingerprint, RequestUrl};
use super::error::CredentialError;
use super::legs::Legs;
use super::lifetime::Lifetime;
use super::schedule::ErrorClass;

/// How long one acquisition may take, all its tries and legs included. Chosen: one request that hangs until its own
/// deadline still leaves time for another.
const ACQUISITION_DEADLINE: Duration = Duration::from_secs(15);

/// How often a transient failure is tried within one acquisition. Chosen: Microsoft asks for few tries at once; the
/// longer waits are the cell's.
const TRIES: u32 = 3;

/// The first wait between tries; the next is three times as long. Source: IMDS asks for a back-off of at least a second in
/// all (0.4 s + 1.2 s).
const FIRST_WAIT: Duration = Duration::from_millis(400);

/// Obtains what signs requests. One for each way.
#[async_trait]
pub(crate) trait Acquire: fmt::Debug + Send + Sync {
    /// Obtains it afresh; nothing is taken from a cache.
    async fn acquire(&self, legs: &Legs) -> Result<Acquired, CredentialError>;

    /// Says which files it is made from, and when their change is worth an acquisition.
    fn files(&self) -> Files;

    /// Reads what lies on this host for an acquisition, as far as that can be judged here. Sends nothing and runs nothing.
    async fn inspect(&self, _legs: &Legs) -> Result<(), CredentialError> {
        Ok(())
    }
}

/// The files that an acquisition reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    pub(crate) paths: Vec<PathBuf>,
    /// Whether they are followed at all times (they hold the token itself), or only while the last acquisition failed.
    pub(crate) always: bool,
}

/// What came of an acquisition.
#[derive(Debug)]
pub(crate) struct Acquired {
    pub(crate) material: Material,
    /// How long it may be used; `None` for something that does not expire.
    pub(crate) life: Option<Lifetime>,
}

impl Acquired {
    /// Makes a bearer of a token that expires.
    pub(crate) fn bearer(token: &str, life: Lifetime) -> Result<Self, CredentialError> {
        Ok(Self { material: Material::Bearer(Bearer::new(token)?), life: Some(life) })
    }
}

/// What signs requests.
#[derive(Clone, Debug)]
pub(crate) enum Material {
    /// A token that goes into the header as it is.
    Bearer(Bearer),
    /// A key that signs a token for each request.
    AccessKey(AccessKey),
}

impl Material {
    /// Returns the bearer of a request.
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

/// Makes a few quick tries while a failure is transient, under the deadline of an acquisition. A failure that comes with
/// `Retry-After` is not tried again: the cell waits as long as it was asked to.
#[derive(Debug)]
pub(crate) struct QuickTries<A>(pub(crate) A);

#[async_trait]
impl<A: Acquire> Acquire for QuickTries<A> {
    async fn acquire(&self, legs: &Legs) -> Result<Acquired, CredentialError> {
        let deadline = Instant::now() + ACQUISITION_DEADLINE;
        let mut wait = FIRST_WAIT;
        let mut last = None;
        for _try in 0..TRIES {
            if last.is_some() {
                sleep(wait.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
                wait *= 3;
            }
            match timeout_at(deadline, self.0.acquire(legs)).await {
                Ok(Err(err)) if err.class() == ErrorClass::Transient && err.retry_after().is_none() => last = Some(err),
                Ok(outcome) => return outcome,
                Err(_elapsed) => break,
            }
        }
        Err(last.unwrap_or(CredentialError::Deadline(ACQUISITION_DEADLINE)))
    }

    fn files(&self) -> Files {
        self.0.files()
    }

    async fn inspect(&self, legs: &Legs) -> Result<(), CredentialError> {
        self.0.inspect(legs).await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;
    use crate::credential::identity_endpoint::{IdentityEndpoint, IdentityEndpointKind};
    use crate::credential::local_error::SecretError;
    use crate::credential::refusal::NoAnswer;

    /// Fails for some tries, each after a while, then obtains a token.
    #[derive(Debug)]
    struct Flaky {
        failures: u32,
        takes: Duration,
        error: fn() -> CredentialError,
        tries: AtomicU32,
    }

    #[async_trait]
    impl Acquire for Flaky {
        async fn acquire(&self, _legs: &Legs) -> Result<Acquired, CredentialError> {
            sleep(self.takes).await;
            if self.tries.fetch_add(1, Ordering::SeqCst) < self.failures {
                return Err((self.error)());
            }
            Ok(Acquired { material: Material::Bearer(Bearer::new("token").unwrap()), life: None })
        }

        fn files(&self) -> Files {
            Files::default()
        }
    }

    fn unreachable_endpoint() -> CredentialError {
        let endpoint = IdentityEndpoint { kind: IdentityEndpointKind::Entra, authority: "login.example".into() };
        CredentialError::NoAnswer { endpoint, source: NoAnswer::Timeout(Duration::from_secs(10)) }
    }

    async fn tries(
        failures: u32,
        takes: Duration,
        error: fn() -> CredentialError,
    ) -> (u32, Result<Acquired, CredentialError>) {
        let flaky = QuickTries(Flaky { failures, takes, error, tries: AtomicU32::new(0) });
        let outcome = flaky.acquire(&Legs::default()).await;
        (flaky.0.tries.into_inner(), outcome)
    }

    #[tokio::test(start_paused = true)]
    async fn a_hiccup_is_tried_again_at_once_and_an_outage_is_left_to_the_cell() {
        let started = Instant::now();
        assert!(matches!(tries(2, Duration::ZERO, unreachable_endpoint).await, (3, Ok(_))));
        assert!(matches!(
            tries(9, Duration::ZERO, unreachable_endpoint).await,
            (3, Err(CredentialError::NoAnswer { .. }))
        ));
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_must_be_mended_is_tried_once() {
        let local = || SecretError::Empty { place: "x".into() }.into();
        assert!(matches!(tries(9, Duration::ZERO, local).await, (1, Err(CredentialError::Unreadable(_)))));
    }

    #[tokio::test(start_paused = true)]
    async fn an_acquisition_ends_at_its_deadline_with_the_best_explanation_there_is() {
        let started = Instant::now();
        let (_, never) = tries(0, Duration::from_secs(3600), unreachable_endpoint).await;
        assert_eq!(never.unwrap_err().to_string(), "no token within 15s");
        assert_eq!(started.elapsed(), ACQUISITION_DEADLINE);
        let (_, slow) = tries(9, Duration::from_secs(10), unreachable_endpoint).await;
        assert!(matches!(slow, Err(CredentialError::NoAnswer { .. })), "{slow:?}");
        assert_eq!(started.elapsed(), 2 * ACQUISITION_DEADLINE);
    }
}

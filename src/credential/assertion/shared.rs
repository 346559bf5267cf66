//! Assertions that all tenants of an app use while they live.
//!
//! The assertion of a managed identity, an identity provider or a program does not depend on the tenant that it is sent to. It is
//! obtained once and used by all credentials with the same source until shortly before it expires. So a start with 1,000 tenants
//! asks the provider once, and not 1,000 times: the metadata service of Azure answers 20 requests a second, and each run of a
//! program may take a second. That includes GitHub Actions and Azure Pipelines, whose tokens are bound to the job and the audience
//! alone. The output of a program is used for a minute at most: what it reads may change at any time, as a file may.
//!
//! A failure is shared with those who waited for it and for a second more, or as long as the provider asks. An assertion that Entra
//! rejects is shared for five seconds after it was obtained. Secrets that obtain an assertion are read at each use; if one has
//! changed, nothing is shared.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::federated;
use super::fresh::FreshAssertion;
use crate::credential::bearer::Fingerprint;
use crate::credential::error::{CredentialError, OtherRequestError, Relation};
use crate::credential::proof_settings::AssertionSettings;
use crate::credential::record::AcquisitionRecord;
use crate::credential::schedule;
use crate::credential::secret::read_secret;
use crate::credential::transport::IdentityClient;
use crate::files::Secret;
use crate::metrics::TokenStage;

/// How long a failure is shared. Chosen: a provider that fails at once gets one request a second.
const FAILURE_SHARED_FOR: Duration = Duration::from_secs(1);

/// How long after it was obtained an assertion is shared that Entra rejects. Chosen: tenants that do not trust it cause at most
/// twelve requests a minute to the provider.
const REJECTED_SHARED_FOR: Duration = Duration::from_secs(5);

/// How long the output of a program is shared at most. Chosen: the start of many tenants takes less, and an operator who changes
/// what the program reads waits no longer.
const OUTPUT_SHARED_FOR: Duration = Duration::from_secs(60);

/// The shared assertions by their source.
#[derive(Debug, Default)]
pub(crate) struct SharedAssertions(Mutex<HashMap<AssertionSettings, Weak<SharedAssertion>>>);

/// The assertion of one source.
#[derive(Debug)]
pub(crate) struct SharedAssertion {
    settings: AssertionSettings,
    last: Mutex<Option<Outcome>>,
    /// Held while an assertion is obtained.
    fetching: tokio::sync::Mutex<()>,
}

/// The outcome of the last request for an assertion.
#[derive(Clone, Debug)]
struct Outcome {
    result: Result<Arc<Secret>, Arc<CredentialError>>,
    /// When it was obtained.
    at: Instant,
    /// The end of its use for requests that begin later, on both clocks: the monotonic clock may stop while the host is suspended.
    shared_until: Option<(Instant, SystemTime)>,
    /// The secret with which it was obtained.
    secret: Option<Fingerprint>,
}

impl SharedAssertions {
    /// Returns the shared assertion of a source.
    pub(crate) fn get(&self, settings: &AssertionSettings) -> Arc<SharedAssertion> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = known.get(settings).and_then(Weak::upgrade) {
            return shared;
        }
        known.retain(|_, shared| shared.strong_count() > 0);
        let shared = Arc::new(SharedAssertion::new(settings.clone()));
        known.insert(settings.clone(), Arc::downgrade(&shared));
        shared
    }
}

impl SharedAssertion {
    fn new(settings: AssertionSettings) -> Self {
        Self { settings, last: Mutex::default(), fetching: tokio::sync::Mutex::default() }
    }

    /// Returns the source.
    pub(crate) const fn settings(&self) -> &AssertionSettings {
        &self.settings
    }

    /// Returns the assertion if it lives. Otherwise waits for the request that is under way, or sends one.
    ///
    /// # Cancel safety
    /// Safe: if the request is cancelled, one of those who wait for it sends another.
    pub(crate) async fn get(
        &self,
        client: &IdentityClient,
        record: &AcquisitionRecord,
    ) -> Result<Arc<Secret>, CredentialError> {
        let started = Instant::now();
        let secret = match federated::secret(&self.settings) {
            Some(source) => Some(Fingerprint::of(read_secret(source, record).await?.expose())),
            None => None,
        };
        if let Some(shared) = self.shared(started, secret) {
            return shared.record(started, record);
        }
        let _fetching = self.fetching.lock().await;
        if let Some(shared) = self.shared(started, secret) {
            return shared.record(started, record);
        }
        let mut outcome = Outcome::new(federated::request(&self.settings, client, record).await, secret);
        if matches!(self.settings, AssertionSettings::Command(_)) {
            outcome.share_at_most(OUTPUT_SHARED_FOR);
        }
        *self.last() = Some(outcome.clone());
        outcome.into_result()
    }

    /// Tells that Entra rejects the assertion.
    pub(crate) fn rejected(&self) {
        if let Some(outcome) = self.last().as_mut().filter(|last| last.result.is_ok()) {
            outcome.share_at_most(REJECTED_SHARED_FOR);
        }
    }

    /// Returns the last outcome if a request uses it that began at `started` and has read the same secret.
    fn shared(&self, started: Instant, secret: Option<Fingerprint>) -> Option<Outcome> {
        let last = self.last();
        let outcome = last.as_ref().filter(|last| last.secret == secret)?;
        (outcome.at > started || outcome.is_shared()).then(|| outcome.clone())
    }

    fn last(&self) -> MutexGuard<'_, Option<Outcome>> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outcome {
    fn new(result: Result<FreshAssertion, CredentialError>, secret: Option<Fingerprint>) -> Self {
        let at = Instant::now();
        let (result, shared_for) = match result {
            Ok(FreshAssertion { token, lifetime }) => {
                let left = lifetime.and_then(|lifetime| {
                    schedule::assertion_use(lifetime.duration)?.checked_sub(at.duration_since(lifetime.starts))
                });
                (Ok(Arc::new(token)), left)
            }
            Err(error) => {
                let retry_after = error.retry_after().map(|retry_after| schedule::pause(Some(retry_after)));
                (Err(Arc::new(error)), Some(retry_after.unwrap_or_default().max(FAILURE_SHARED_FOR)))
            }
        };
        let shared_until =
            shared_for.and_then(|left| Some((at.checked_add(left)?, SystemTime::now().checked_add(left)?)));
        Self { result, at, shared_until, secret }
    }

    /// Ends its use this long after it was obtained, if it does not end sooner.
    fn share_at_most(&mut self, longest: Duration) {
        if let Some((until, _)) = &mut self.shared_until {
            *until = (*until).min(self.at + longest);
        }
    }

    fn is_shared(&self) -> bool {
        self.shared_until.is_some_and(|(instant, clock)| Instant::now() < instant && SystemTime::now() < clock)
    }

    fn into_result(self) -> Result<Arc<Secret>, CredentialError> {
        self.result.map_err(|cause| {
            let retry_at = cause.retry_after().and(self.shared_until).map(|(until, _)| until);
            OtherRequestError { cause, relation: Relation::Assertion, retry_at }.into()
        })
    }

    /// Returns the result of another request, and records it as a step of an acquisition.
    fn record(self, started: Instant, record: &AcquisitionRecord) -> Result<Arc<Secret>, CredentialError> {
        let result = self.into_result();
        let subject = "assertion that the tenants of the app share".to_owned();
        record.add_local_step(TokenStage::Assertion, subject, started, None, result.as_deref());
        result
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::credential::lifetime::Lifetime;
    use crate::credential::proof_settings::{ManagedIdentity, ManagedIdentitySettings};

    fn obtained(lifetime: Duration) -> SharedAssertion {
        let identity = ManagedIdentitySettings { id: ManagedIdentity::System, imds_endpoint: None };
        let shared =
            SharedAssertion::new(AssertionSettings::ManagedIdentity { identity, audience: "api://x".to_owned() });
        let lifetime = Lifetime { starts: Instant::now(), duration: lifetime, refresh_in: None };
        let fresh = FreshAssertion { token: Secret::new("token".to_owned()), lifetime: Some(lifetime) };
        *shared.last() = Some(Outcome::new(Ok(fresh), None));
        shared
    }

    #[tokio::test(start_paused = true)]
    async fn an_assertion_is_shared_while_it_lives() {
        let shared = obtained(Duration::from_secs(3600));
        tokio::time::advance(Duration::from_secs(3299)).await;
        assert!(shared.shared(Instant::now(), None).is_some());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(shared.shared(Instant::now(), None).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_rejected_assertion_is_shared_for_five_seconds() {
        let shared = obtained(Duration::from_secs(3600));
        tokio::time::advance(Duration::from_secs(3)).await;
        shared.rejected();
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(shared.shared(Instant::now(), None).is_some());
        tokio::time::advance(Duration::from_secs(2)).await;
        assert!(shared.shared(Instant::now(), None).is_none());
        let old = obtained(Duration::from_secs(3600));
        tokio::time::advance(Duration::from_secs(60)).await;
        old.rejected();
        assert!(old.shared(Instant::now(), None).is_none(), "an older one is not shared at all");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_is_shared_after_the_secret_has_changed() {
        let shared = obtained(Duration::from_secs(3600));
        assert!(shared.shared(Instant::now(), Some(Fingerprint::of("new"))).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_shared_with_those_who_waited_and_for_a_second() {
        let shared = obtained(Duration::from_secs(3600));
        let waiting_since = Instant::now();
        tokio::time::advance(Duration::from_secs(5)).await;
        *shared.last() = Some(Outcome::new(Err(CredentialError::ExpiredOnArrival), None));
        tokio::time::advance(Duration::from_secs(2)).await;
        let outcome = shared.shared(waiting_since, None).unwrap();
        assert_eq!(outcome.into_result().unwrap_err().to_string(), "the token had expired when it arrived");
        assert!(shared.shared(Instant::now(), None).is_none());
    }
}

//! Where calls claim their keys.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::calls::{Calls, OtherCall};
use super::claim::{Claim, ClaimError};
use super::fingerprint::Fingerprint;
use super::key::CallKey;
use super::leg::Legs;
use super::settings::IdempotencySettings;
use super::shared::{Claimed, KeyOwner, SharedClaim, SharedStore, WhenStoreIsOut};

/// The calls with a key. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub struct IdempotencyStore {
    calls: Arc<Calls>,
    shared: Option<Arc<SharedStore>>,
}

impl IdempotencyStore {
    /// Returns the same calls, which replicas share by another store, or by none.
    #[must_use]
    pub fn with_shared(&self, shared: Option<Arc<SharedStore>>) -> Self {
        Self { calls: Arc::clone(&self.calls), shared }
    }

    /// Returns the store that replicas share.
    pub fn shared(&self) -> Option<&Arc<SharedStore>> {
        self.shared.as_ref()
    }

    /// Claims the key of a call. Waits at most for `wait` while another request holds it.
    ///
    /// # Errors
    /// [`ClaimError`] if it cannot be claimed. Nothing may be sent then.
    pub async fn claim(
        &self,
        key: &CallKey,
        fingerprint: Fingerprint,
        settings: IdempotencySettings,
        wait: Duration,
    ) -> Result<Claim, ClaimError> {
        let deadline = Instant::now() + wait;
        let call = self.calls.call(key, fingerprint, settings).map_err(|OtherCall| ClaimError::OtherCall)?;
        let locked = tokio::time::timeout_at(deadline, call.legs.lock_owned()).await;
        let mut legs = locked.map_err(|_late| ClaimError::InProgress)?;
        let shared = match &self.shared {
            Some(store) => claim_shared(store, key, fingerprint, settings, deadline, &mut legs).await?,
            None => None,
        };
        Ok(Claim::new(&self.calls, call.number, legs, shared))
    }
}

/// Claims a key in the shared store, and adds what it knows to the legs. Returns `None` if the store is out and replicas go on
/// alone.
async fn claim_shared(
    store: &SharedStore,
    key: &CallKey,
    fingerprint: Fingerprint,
    settings: IdempotencySettings,
    deadline: Instant,
    legs: &mut Legs,
) -> Result<Option<SharedClaim>, ClaimError> {
    let claimed = match KeyOwner::new(key, fingerprint, settings.expires_after) {
        Ok(owner) => SharedClaim::claim(store, owner, deadline).await,
        Err(err) => Err(err),
    };
    match claimed {
        Ok(Claimed::Held(claim, known)) => {
            legs.merge(&known);
            Ok(Some(*claim))
        }
        Ok(Claimed::OtherCall) => Err(ClaimError::OtherCall),
        Ok(Claimed::InProgress) => Err(ClaimError::InProgress),
        Err(err) => match store.settings().when_out {
            WhenStoreIsOut::Refuse => Err(ClaimError::StoreOut(err)),
            WhenStoreIsOut::Local => Ok(None),
        },
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method, StatusCode, Uri};

    use super::*;
    use crate::idempotency::key::Network;
    use crate::idempotency::leg::LegState;
    use crate::idempotency::outcome::Outcome;

    const SETTINGS: IdempotencySettings = IdempotencySettings { expires_after: Duration::from_secs(60), keys: 10 };

    #[tokio::test(start_paused = true)]
    async fn one_request_holds_the_claim_and_the_next_finds_what_it_left() {
        let store = IdempotencyStore::default();
        let key = CallKey { listener: "inside".into(), caller: "".into(), network: Network::Local, key: "k".into() };
        let fingerprint = |body| Fingerprint::of(["r", ""], &Method::POST, &Uri::from_static("/"), None, body);
        let claim = |body| store.claim(&key, fingerprint(body), SETTINGS, Duration::from_secs(1));
        let first = claim(b"a").await.unwrap();
        assert_eq!(claim(b"b").await.unwrap_err(), ClaimError::OtherCall);
        assert_eq!(claim(b"a").await.unwrap_err(), ClaimError::InProgress);
        first.mark_sent("east", "https://e").await.unwrap();
        drop(first);
        let second = claim(b"a").await.unwrap();
        assert!(second.legs().has_unknown_outcome());
        let outcome = Arc::new(Outcome::of(StatusCode::ACCEPTED, &HeaderMap::new(), None));
        second.record("east", "https://e", LegState::Done(Arc::clone(&outcome))).await.unwrap();
        drop(second);
        assert_eq!(claim(b"a").await.unwrap().legs().outcome(), Some(&outcome));
    }
}

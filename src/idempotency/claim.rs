//! The claim of a key: the right of one request to send its call.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::calls::Calls;
use super::leg::{LegState, Legs};
use super::shared::{SharedClaim, Step, StoreError, WhenStoreIsOut};

/// The right of one request to send the call of a key. Dropping it gives the right to the next request of the same call,
/// which finds the states that this one left.
pub struct Claim {
    calls: Arc<Calls>,
    number: u64,
    legs: RefCell<OwnedMutexGuard<Legs>>,
    /// `None` without a shared store, or while it is out and replicas go on alone.
    shared: Option<SharedClaim>,
}

/// Why a key cannot be claimed, a leg not sent or its outcome not recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// The key belongs to another call.
    OtherCall,
    /// The same call is in progress, and was for as long as this one could wait; or another replica has taken it over.
    InProgress,
    /// The shared store is out. Nothing was sent.
    StoreOut(StoreError),
    /// The outcome could not be recorded in the shared store. `None` if another replica has taken the call over.
    NotRecorded(Option<StoreError>),
}

impl Claim {
    pub(super) fn new(
        calls: &Arc<Calls>,
        number: u64,
        legs: OwnedMutexGuard<Legs>,
        shared: Option<SharedClaim>,
    ) -> Self {
        Self { calls: Arc::clone(calls), number, legs: RefCell::new(legs), shared }
    }

    /// Returns the states at all endpoints.
    pub fn legs(&self) -> Legs {
        self.legs.borrow().clone()
    }

    /// Marks a leg as sent. To be called before the first byte can go out.
    ///
    /// # Errors
    /// [`ClaimError`] if it may not be sent. Nothing may be sent then.
    ///
    /// # Cancel safety
    /// A shared store may mark the leg, until the claim is dropped. Nothing may be sent.
    pub async fn mark_sent(&self, endpoint: &str, origin: &str) -> Result<(), ClaimError> {
        if let Some(shared) = &self.shared {
            match shared.send(endpoint, origin).await {
                Ok(Step::Done) => {}
                Ok(Step::Lost) => return Err(ClaimError::InProgress),
                Err(err) => match shared.when_out() {
                    WhenStoreIsOut::Refuse => return Err(ClaimError::StoreOut(err)),
                    WhenStoreIsOut::Local => {}
                },
            }
            shared.keep(endpoint, origin);
        }
        self.set(endpoint, origin, LegState::Sent);
        Ok(())
    }

    /// Marks a leg as not sent: its endpoint did not process what it received.
    pub fn unsend(&self, endpoint: &str, origin: &str) {
        if let Some(shared) = &self.shared {
            shared.unsend(endpoint, origin);
        }
        self.set(endpoint, origin, LegState::Claimed);
    }

    /// Records what became of a leg. To be called before the caller is answered.
    ///
    /// # Errors
    /// [`ClaimError::NotRecorded`] if it could not be recorded. Other replicas then find a leg that was sent.
    ///
    /// # Cancel safety
    /// It may not be recorded.
    pub async fn record(&self, endpoint: &str, origin: &str, state: LegState) -> Result<(), ClaimError> {
        let outcome = match &state {
            LegState::Claimed => {
                self.unsend(endpoint, origin);
                return Ok(());
            }
            LegState::Sent => None,
            LegState::Done(outcome) => Some(Arc::clone(outcome)),
        };
        self.set(endpoint, origin, state);
        let (Some(outcome), Some(shared)) = (outcome, &self.shared) else { return Ok(()) };
        let not_recorded = match shared.record(endpoint, origin, &outcome).await {
            Ok(Step::Done) => return Ok(()),
            Ok(Step::Lost) => None,
            Err(err) => Some(err),
        };
        match shared.when_out() {
            WhenStoreIsOut::Refuse => Err(ClaimError::NotRecorded(not_recorded)),
            WhenStoreIsOut::Local => Ok(()),
        }
    }

    fn set(&self, endpoint: &str, origin: &str, state: LegState) {
        self.legs.borrow_mut().set(endpoint, origin, state);
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.calls.resize(self.number, self.legs.borrow().size());
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("legs", &self.legs.borrow()).finish_non_exhaustive()
    }
}

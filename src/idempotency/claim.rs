//! The claim of a key: the right of one request to send its call.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use tokio::sync::OwnedMutexGuard;

use super::calls::Calls;
use super::leg::{LegState, Legs};

/// The right of one request to send the call of a key. Dropping it gives the right to the next request of the same call,
/// which finds the states that this one left.
pub struct Claim {
    calls: Arc<Calls>,
    number: u64,
    legs: RefCell<OwnedMutexGuard<Legs>>,
}

/// Why a key cannot be claimed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClaimError {
    /// It belongs to another call.
    OtherCall,
    /// The same call is in progress, and was for as long as this one could wait.
    InProgress,
}

impl Claim {
    pub(super) fn new(calls: &Arc<Calls>, number: u64, legs: OwnedMutexGuard<Legs>) -> Self {
        Self { calls: Arc::clone(calls), number, legs: RefCell::new(legs) }
    }

    /// Returns the states at all endpoints.
    pub fn legs(&self) -> Legs {
        self.legs.borrow().clone()
    }

    /// Marks a leg as sent. To be called before the first byte can go out.
    ///
    /// # Errors
    /// [`ClaimError`] if it may not be sent. Nothing may be sent then.
    #[expect(clippy::unused_async, reason = "a shared store is asked")]
    pub async fn mark_sent(&self, endpoint: &str, origin: &str) -> Result<(), ClaimError> {
        self.legs.borrow_mut().set(endpoint, origin, LegState::Sent);
        Ok(())
    }

    /// Marks a leg as not sent: its endpoint did not process what it received.
    pub fn unsend(&self, endpoint: &str, origin: &str) {
        self.legs.borrow_mut().set(endpoint, origin, LegState::Claimed);
    }

    /// Records what became of a leg. To be called before the caller is answered.
    ///
    /// # Errors
    /// [`ClaimError`] if it could not be recorded. A repeat then finds a leg that was sent.
    #[expect(clippy::unused_async, reason = "a shared store is told")]
    pub async fn record(&self, endpoint: &str, origin: &str, state: LegState) -> Result<(), ClaimError> {
        self.legs.borrow_mut().set(endpoint, origin, state);
        Ok(())
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

//! Remembers calls that carry an `Idempotency-Key`, so that a repeated call gets the outcome of the first and is not sent
//! again. Independent of operations and of HTTP connections.
//!
//! A call *claims* its key before it sends anything. Each endpoint that it goes to is a *leg*: claimed (nothing was sent),
//! sent (it may have received the call) or done (its response is known). Whoever holds the claim may send; a repeat that
//! comes meanwhile waits for it. A leg that was sent and is not done is never sent again.
//!
//! Each gateway has a store of its own in memory. With a `shared` store, which replicas have in common, a request claims its
//! key in both, and a state is known if either of them knows it.
//!
//! Source: draft-ietf-httpapi-idempotency-key-header-07. The draft has a server refuse a repeated call while the first
//! is in progress (409). The gateway lets it wait as long as its deadline allows, and refuses it then: most likely the
//! caller timed out and would have to repeat the call once more.

mod calls;
mod claim;
mod fingerprint;
mod key;
mod leg;
mod outcome;
mod settings;
mod shared;
mod store;

pub use claim::{Claim, ClaimError};
pub use fingerprint::Fingerprint;
pub use key::{CallKey, Network};
pub use leg::{LegState, Legs};
pub use outcome::Outcome;
pub use settings::IdempotencySettings;
pub use shared::{
    HAS_CLIENT, SharedStore, StoreAddress, StoreAddressError, StoreCheck, StoreError, StoreFailure, StoreSettings,
    StoreStatus, WhenStoreIsOut,
};
pub use store::IdempotencyStore;

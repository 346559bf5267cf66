//! The store that replicas share: a Redis server that every replica asks before it sends a call with a key.
//!
//! A request claims its key in the store, and gets a lease: a replica that dies holds the key only so long. Before the first
//! byte of a leg goes out, the store marks it as sent, if the request still holds the claim. So a request whose claim was
//! taken over can no longer send, however late it wakes. A leg that was sent is never sent by another.
//!
//! | file | content |
//! |---|---|
//! | `settings.rs` | the validated settings |
//! | `scripts.rs` | the atomic steps |
//! | `claim.rs` | the claim of one request in the store |
//! | `store.rs` | what all claims share: the client, metrics, the state for operators |
//! | `client.rs`, `connect.rs` | the connection (feature `redis`); `absent.rs` stands for them without it |
//! | `durability.rs` | whether the store may lose keys |

mod claim;
#[cfg(not(feature = "redis"))]
#[path = "absent.rs"]
mod client;
#[cfg(feature = "redis")]
mod client;
#[cfg(feature = "redis")]
mod connect;
mod durability;
mod error;
mod scripts;
mod settings;
mod store;

pub(super) use claim::{Claimed, KeyOwner, SharedClaim, Step};
pub use error::{StoreError, StoreFailure};
pub use settings::{StoreAddress, StoreAddressError, StoreSettings, WhenStoreIsOut};
pub use store::{SharedStore, StoreCheck, StoreStatus};

/// Whether this build has a client for a shared store.
pub const HAS_CLIENT: bool = cfg!(feature = "redis");

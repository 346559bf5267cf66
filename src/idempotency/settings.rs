//! Validated settings. No serde, no I/O.

use std::time::Duration;

/// How long and how many keys are remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IdempotencySettings {
    /// How long a key is remembered after it was first seen.
    pub expires_after: Duration,
    /// The maximum number of keys that this gateway remembers.
    pub keys: usize,
}

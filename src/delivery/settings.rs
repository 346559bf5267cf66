//! Validated settings of delivery. No serde, no I/O.

use std::time::Duration;

use super::retry::RetrySettings;
use crate::idempotency::IdempotencySettings;
use crate::limits::QueueSettings;

/// How calls are delivered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeliverySettings {
    /// The largest request head (request line, headers and the bearer that is added), in bytes. The service's own limit
    /// is 16 KiB.
    pub max_header_bytes: usize,
    /// How long one attempt may take until the head of its response. Waits for the caller's upload do not count.
    pub try_timeout: Duration,
    /// The queue of calls beyond a concurrency limit.
    pub queue: QueueSettings,
    /// The maximum number of idle connections to endpoints, over all endpoints and workers.
    pub max_idle_connections: usize,
    /// How attempts are retried.
    pub retry: RetrySettings,
    /// How long calls that carry an `Idempotency-Key` are remembered.
    pub idempotency: IdempotencySettings,
}

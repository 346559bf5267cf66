//! The phases of a stopping server, and the time that a new connection has for its first request.

use std::time::Duration;

/// How long connections stay open after the last was accepted, since the first request of a new connection may not have arrived.
/// Chosen: TCP repeats a lost packet after a second at the latest (RFC 6298, 2.1), and a busy machine runs a caller later than that
/// rarely. A stop waits for it only while connections are open.
pub(super) const FIRST_REQUEST_GRACE: Duration = Duration::from_secs(1);
/// The interval at which the remaining connections are counted.
pub(super) const DRAIN_POLL_INTERVAL: Duration = Duration::from_millis(10);

/// The phase of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Accepting and serving.
    Serving,
    /// Accepting, but every response asks the caller to close its connection.
    DrainDelay,
    /// Not accepting; requests in flight end, idle connections close.
    Draining,
    /// Remaining connections are aborted.
    Aborting,
}

//! The phases of a stopping server, and how long each leaves to callers.

use std::time::Duration;

/// How long connections stay open after the last was accepted: the first request of a new connection is still on its way.
/// Chosen: a few round trips between regions.
pub(super) const LAST_CALL: Duration = Duration::from_millis(250);
/// The interval at which the remaining connections are counted.
pub(super) const LAST_CALL_POLL: Duration = Duration::from_millis(10);

/// The phase of a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Accepting and answering.
    Serving,
    /// Accepting, but every response asks the caller to close its connection.
    Leaving,
    /// Not accepting; requests in flight end, idle connections close.
    Draining,
    /// Remaining connections are cut off.
    Ended,
}

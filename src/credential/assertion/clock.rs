//! The clocks of this host and of Entra, which differ.

use std::time::{Duration, SystemTime};

/// The difference between the two clocks that is tolerated. Source: Entra tolerates five minutes.
pub(super) const CLOCK_TOLERANCE: Duration = Duration::from_secs(5 * 60);

/// Returns whether an assertion that expires at `at` is too old to be sent. It is sent for [`CLOCK_TOLERANCE`] after that: this
/// host's clock may be ahead, and Entra decides.
pub(super) fn has_expired(at: SystemTime, now: SystemTime) -> bool {
    at + CLOCK_TOLERANCE < now
}

//! Debug lines about each step of a request. Of many requests, some are logged in full, so that debug lines cannot fill a disk.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// The target of the lines.
pub const STEPS: &str = "signalr_gateway::steps";
/// The requests a second whose steps are logged. Chosen: their lines can be read, and take 10 MB in ten minutes.
const MAX_PER_SECOND: u64 = 10;
/// The bits of [`BEGUN`] that hold the number of requests.
const COUNT_BITS: u32 = 16;

/// The second in which the last of these requests began, and how many began in it.
static BEGUN: AtomicU64 = AtomicU64::new(0);

/// Returns whether the steps of a request that begins now are logged.
pub(super) fn are_logged() -> bool {
    tracing::enabled!(target: STEPS, tracing::Level::DEBUG) && is_within_rate()
}

#[cold]
fn is_within_rate() -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let next = |begun: u64| {
        let count = if begun >> COUNT_BITS == now { begun & ((1 << COUNT_BITS) - 1) } else { 0 };
        (count < MAX_PER_SECOND).then_some((now << COUNT_BITS) | (count + 1))
    };
    BEGUN.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next).is_ok()
}

/// Logs a step of a request if its steps are logged: `step!(state, "message", field = value, …)`.
macro_rules! step {
    ($state:expr, $message:literal $(, $($fields:tt)+)?) => {
        if $state.logs_steps() {
            tracing::debug!(
                target: $crate::delivery::STEPS,
                request_id = $state.head().request_id().to_str().unwrap_or_default(),
                $($($fields)+,)?
                $message
            );
        }
    };
}
pub(crate) use step;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_a_few_requests_a_second_are_logged() {
        let logged = (0..10_000).filter(|_| is_within_rate()).count();
        // A slow machine may need several seconds.
        assert!((10..1000).contains(&logged), "{logged}");
    }
}

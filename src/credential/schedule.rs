//! When a token is refreshed, how long it is used, and how long to wait after a failure: pure arithmetic without a clock.
//!
//! Jitter is an argument from -1 to 1.

use std::time::Duration;

/// How long before its expiry a token is no longer used: the service's clock may be ahead of Entra's, and a request takes time.
/// Chosen: clocks in data centres differ by less than a second. Short tokens lose a tenth of their lifetime.
const MARGIN: Duration = Duration::from_secs(30);

/// Issuers truncate `exp` to whole seconds, so a token may expire up to a second before `expires_in` says.
const ROUNDING: Duration = Duration::from_secs(1);

/// A refresh is due at least this long before expiry, to leave time for several tries.
const MIN_TIME_BEFORE_EXPIRY: Duration = Duration::from_secs(5 * 60);

/// The shortest time between refreshes, unless the token lives for less than twice as long.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(30);

/// How often a key without expiry is read again, apart from changes of its file.
pub(crate) const UNEXPIRING_REFRESH: Duration = Duration::from_secs(60 * 60);

/// The longest `Retry-After` that is honoured, so that a faulty intermediary cannot stop the gateway for hours.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

const FIRST_TRANSIENT_WAIT: Duration = Duration::from_secs(1);
const MAX_TRANSIENT_WAIT: Duration = Duration::from_secs(30);
const FIRST_PERMANENT_WAIT: Duration = Duration::from_secs(60);
const MAX_PERMANENT_WAIT: Duration = Duration::from_secs(5 * 60);

/// The wait while a new enterprise application or federated credential propagates, which takes some minutes …
const PROPAGATION_WAIT: Duration = Duration::from_secs(30);
/// … for this many tries (ten minutes). After that, the failure counts as permanent.
const PROPAGATION_TRIES: u32 = 20;

/// How the acquisition after a failed one is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The failure may end without action: no response, a 5xx, throttling.
    Transient,
    /// The refusal is one that Entra also gives for some minutes after an enterprise application or federated credential was
    /// created, until the change has propagated.
    Propagation,
    /// Somebody must change something.
    Permanent,
}

/// Returns how much of a token's lifetime is not used.
pub(crate) fn margin(lifetime: Duration) -> Duration {
    MARGIN.min(lifetime / 10).max(ROUNDING.min(lifetime / 3))
}

/// Returns when a token is refreshed, from the start of its lifetime: at the issuer's `refresh_in`, otherwise after two thirds,
/// with a jitter of a tenth so that a fleet does not refresh at once.
pub(crate) fn refresh_after(lifetime: Duration, refresh_in: Option<Duration>, jitter: f64) -> Duration {
    let wanted = refresh_in.unwrap_or(lifetime * 2 / 3).mul_f64(1.0 + 0.1 * jitter.clamp(-1.0, 1.0));
    let half = lifetime / 2;
    let latest = lifetime.saturating_sub(MIN_TIME_BEFORE_EXPIRY).max(half);
    wanted.clamp(MIN_REFRESH_INTERVAL.min(half), latest)
}

/// Returns how long to wait after the `failures`th failure in a row (1 is the first).
pub(crate) fn back_off(class: ErrorClass, failures: u32, retry_after: Option<Duration>, jitter: f64) -> Duration {
    let doubled = |first: Duration, max: Duration| {
        let factor = 2_u32.saturating_pow(failures.saturating_sub(1));
        first.saturating_mul(factor).min(max)
    };
    let wait = match class {
        ErrorClass::Transient => doubled(FIRST_TRANSIENT_WAIT, MAX_TRANSIENT_WAIT),
        ErrorClass::Propagation if failures <= PROPAGATION_TRIES => PROPAGATION_WAIT,
        ErrorClass::Propagation => MAX_PERMANENT_WAIT,
        ErrorClass::Permanent => doubled(FIRST_PERMANENT_WAIT, MAX_PERMANENT_WAIT),
    };
    let wait = wait.mul_f64(1.0 + 0.2 * jitter.clamp(-1.0, 1.0));
    // Jitter must not shorten `Retry-After`.
    wait.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn refreshes_at_two_thirds_or_at_refresh_in() {
        assert_eq!(refresh_after(60 * MINUTE, None, 0.0), 40 * MINUTE);
        assert_eq!(refresh_after(60 * MINUTE, None, -1.0), 36 * MINUTE);
        assert_eq!(refresh_after(60 * MINUTE, None, 1.0), 44 * MINUTE);
        assert_eq!(refresh_after(24 * 60 * MINUTE, Some(12 * 60 * MINUTE), 0.0), 12 * 60 * MINUTE);
        assert_eq!(refresh_after(60 * MINUTE, Some(59 * MINUTE), 0.0), 55 * MINUTE, "five minutes before expiry");
        assert_eq!(refresh_after(60 * MINUTE, Some(Duration::from_secs(1)), 0.0), MIN_REFRESH_INTERVAL);
        assert_eq!(refresh_after(6 * MINUTE, None, 0.0), 3 * MINUTE, "a short token is refreshed at half its lifetime");
    }

    #[test]
    fn margin_covers_an_expiry_truncated_to_seconds() {
        let margins = [1, 3, 9, 20, 100, 3600].map(|lifetime| margin(Duration::from_secs(lifetime)).as_millis());
        assert_eq!(margins, [333, 1000, 1000, 2000, 10_000, 30_000]);
    }

    #[test]
    fn backs_off_by_error_class() {
        let waits = |class| [1, 2, 3, 4, 30].map(|failures| back_off(class, failures, None, 0.0).as_secs());
        assert_eq!(waits(ErrorClass::Transient), [1, 2, 4, 8, 30]);
        assert_eq!(waits(ErrorClass::Permanent), [60, 120, 240, 300, 300]);
        assert_eq!(waits(ErrorClass::Propagation), [30, 30, 30, 30, 300]);
    }

    #[test]
    fn honours_retry_after_up_to_five_minutes() {
        let wait = |secs| back_off(ErrorClass::Transient, 1, Some(Duration::from_secs(secs)), -1.0).as_secs_f64();
        assert!((wait(0) - 0.8).abs() < 1e-9, "a zero does not disable the back-off");
        assert!((wait(17) - 17.0).abs() < 1e-9);
        assert!((wait(7200) - 300.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn refresh_is_due_before_the_margin(
            lifetime in 1_u64..=48 * 3600, refresh_in in proptest::option::of(0_u64..=48 * 3600), jitter in -1.0..=1.0_f64,
        ) {
            let lifetime = Duration::from_secs(lifetime);
            let after = refresh_after(lifetime, refresh_in.map(Duration::from_secs), jitter);
            prop_assert!(after > Duration::ZERO && after + margin(lifetime) < lifetime);
            prop_assert!(lifetime < 2 * MIN_TIME_BEFORE_EXPIRY || after + MIN_TIME_BEFORE_EXPIRY <= lifetime);
        }
    }
}

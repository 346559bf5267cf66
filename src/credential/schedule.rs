//! When a token is refreshed, until when it is used, and how long a failure is left alone: pure arithmetic.
//!
//! Jitter comes in as a number from -1 to 1. Reads no clock.

use std::time::Duration;

/// How long before its expiry a token leaves service: the service's clock may be ahead of Entra's, and a request takes time
/// on its way. Chosen: clocks in data centres differ by less than a second. Short tokens lose a tenth of their life.
const MARGIN: Duration = Duration::from_secs(30);

/// Issuers cut `exp` to whole seconds, so up to one second of what `expires_in` promises may not be there.
const ROUNDING: Duration = Duration::from_secs(1);

/// A refresh is due this long before expiry at the latest, so that several tries fit in between.
const LATEST_REFRESH: Duration = Duration::from_secs(5 * 60);

/// Refreshes come no faster than this while the token's life allows it.
const EARLIEST_REFRESH: Duration = Duration::from_secs(30);

/// Something that does not expire is looked at this often, besides when its file changes.
pub(crate) const UNEXPIRING_REFRESH: Duration = Duration::from_secs(60 * 60);

/// The longest that a `Retry-After` is believed: beyond, an intermediary's mistake would stop the gateway for hours.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

const FIRST_TRANSIENT_WAIT: Duration = Duration::from_secs(1);
const MAX_TRANSIENT_WAIT: Duration = Duration::from_secs(30);
const FIRST_PERMANENT_WAIT: Duration = Duration::from_secs(60);
const MAX_PERMANENT_WAIT: Duration = Duration::from_secs(5 * 60);

/// New enterprise applications and federated credentials are known everywhere after some minutes: probed at this pace …
const PROPAGATION_WAIT: Duration = Duration::from_secs(30);
/// … this many times (ten minutes), then as a permanent refusal.
const PROPAGATION_TRIES: u32 = 20;

/// What a failed acquisition says about the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// It may pass by itself: no answer, a 5xx, throttling.
    Transient,
    /// It is refused, in a way that newly made enterprise applications and federated credentials are refused for some
    /// minutes until Entra knows them everywhere.
    Propagation,
    /// Somebody has to mend something.
    Permanent,
}

/// Returns how much of a token's life is not used.
pub(crate) fn margin(life: Duration) -> Duration {
    MARGIN.min(life / 10).max(ROUNDING.min(life / 3))
}

/// Returns when a token is refreshed, counted from the start of its life: when the issuer says so, else after two thirds of
/// it; give or take a tenth, so that a fleet does not ask at once.
pub(crate) fn refresh_after(life: Duration, refresh_in: Option<Duration>, jitter: f64) -> Duration {
    let wanted = refresh_in.unwrap_or(life * 2 / 3).mul_f64(1.0 + 0.1 * jitter.clamp(-1.0, 1.0));
    let half = life / 2;
    let latest = life.saturating_sub(LATEST_REFRESH).max(half);
    wanted.clamp(EARLIEST_REFRESH.min(half), latest)
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
    // Never earlier than asked, so the jitter is not applied to it.
    wait.max(retry_after.unwrap_or_default().min(MAX_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn refreshes_at_two_thirds_or_when_told() {
        assert_eq!(refresh_after(60 * MINUTE, None, 0.0), 40 * MINUTE);
        assert_eq!(refresh_after(60 * MINUTE, None, -1.0), 36 * MINUTE);
        assert_eq!(refresh_after(60 * MINUTE, None, 1.0), 44 * MINUTE);
        assert_eq!(refresh_after(24 * 60 * MINUTE, Some(12 * 60 * MINUTE), 0.0), 12 * 60 * MINUTE);
        assert_eq!(refresh_after(60 * MINUTE, Some(59 * MINUTE), 0.0), 55 * MINUTE, "five minutes before expiry");
        assert_eq!(refresh_after(60 * MINUTE, Some(Duration::from_secs(1)), 0.0), EARLIEST_REFRESH);
        assert_eq!(refresh_after(6 * MINUTE, None, 0.0), 3 * MINUTE, "a short token is refreshed at half its life");
    }

    #[test]
    fn leaves_out_the_second_that_rounding_may_take() {
        let margins = [1, 3, 9, 20, 100, 3600].map(|life| margin(Duration::from_secs(life)).as_millis());
        assert_eq!(margins, [333, 1000, 1000, 2000, 10_000, 30_000]);
    }

    #[test]
    fn probes_what_is_permanent_slowly() {
        let waits = |class| [1, 2, 3, 4, 30].map(|failures| back_off(class, failures, None, 0.0).as_secs());
        assert_eq!(waits(ErrorClass::Transient), [1, 2, 4, 8, 30]);
        assert_eq!(waits(ErrorClass::Permanent), [60, 120, 240, 300, 300]);
        assert_eq!(waits(ErrorClass::Propagation), [30, 30, 30, 30, 300]);
    }

    #[test]
    fn honours_retry_after_up_to_five_minutes() {
        let wait = |secs| back_off(ErrorClass::Transient, 1, Some(Duration::from_secs(secs)), -1.0).as_secs_f64();
        assert!((wait(0) - 0.8).abs() < 1e-9, "zero is no permission to hammer");
        assert!((wait(17) - 17.0).abs() < 1e-9);
        assert!((wait(7200) - 300.0).abs() < 1e-9);
    }

    proptest! {
        #[test]
        fn a_refresh_lies_within_the_used_life(
            life in 1_u64..=48 * 3600, refresh_in in proptest::option::of(0_u64..=48 * 3600), jitter in -1.0..=1.0_f64,
        ) {
            let life = Duration::from_secs(life);
            let after = refresh_after(life, refresh_in.map(Duration::from_secs), jitter);
            prop_assert!(after > Duration::ZERO && after + margin(life) < life);
            prop_assert!(life < 2 * LATEST_REFRESH || after + LATEST_REFRESH <= life);
        }
    }
}

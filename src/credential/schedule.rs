//! Computes when a token is refreshed, how long it is used, and how long to wait after a failure. Does not read the clock.
//!
//! Jitter is an argument from -1 to 1.

use std::time::Duration;

/// The time before its expiry in which a token is not used: the service's clock may be ahead of Entra's, and a request takes
/// time. Chosen: clocks in data centres differ by less than a second. It is shorter for tokens that live less than five
/// minutes.
const MARGIN: Duration = Duration::from_secs(30);

/// Issuers truncate `exp` to whole seconds, so a token may expire up to a second before `expires_in` says.
const ROUNDING: Duration = Duration::from_secs(1);

/// The shortest time between a refresh and the expiry. It leaves time for several tries.
const MIN_TIME_BEFORE_EXPIRY: Duration = Duration::from_secs(5 * 60);

/// The shortest time between two refreshes of a token that lives for at least 75 seconds.
const MIN_REFRESH_INTERVAL: Duration = Duration::from_secs(30);

/// The interval at which a key without expiry is read again. A change of its file is also detected sooner.
pub(crate) const UNEXPIRING_REFRESH: Duration = Duration::from_secs(60 * 60);

/// The longest `Retry-After` that is honoured. A faulty intermediary must not stop the gateway for hours.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(5 * 60);

/// How long the requests of a throttled tenant or app pause if the response has no `Retry-After`.
const DEFAULT_PAUSE: Duration = Duration::from_secs(10);
/// The shortest pause.
const MIN_PAUSE: Duration = Duration::from_secs(1);

const FIRST_TRANSIENT_WAIT: Duration = Duration::from_secs(1);
const MAX_TRANSIENT_WAIT: Duration = Duration::from_secs(30);
const FIRST_PERMANENT_WAIT: Duration = Duration::from_secs(60);
const MAX_PERMANENT_WAIT: Duration = Duration::from_secs(5 * 60);

/// The wait between tries while a new enterprise application or federated credential propagates.
const PROPAGATION_WAIT: Duration = Duration::from_secs(30);
/// The number of tries while a change propagates, which are made within ten minutes. After that, the failure counts as
/// permanent.
const PROPAGATION_TRIES: u32 = 20;

/// How the acquisition after a failed one is scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// The failure may end without action, such as a timeout, a 5xx or throttling.
    Transient,
    /// The failure may end when a change has propagated: Entra returns this error also in the first minutes after an enterprise
    /// application or federated credential was created.
    Propagation,
    /// The failure lasts until the configuration, the proof or Entra is changed.
    Permanent,
}

/// Returns the time before its expiry in which a token is not used.
pub(crate) fn margin(lifetime: Duration) -> Duration {
    MARGIN.min(lifetime / 10).max(ROUNDING.min(lifetime / 3))
}

/// Returns the time from the start of a token's lifetime to its refresh: the issuer's `refresh_in`, or two thirds of the
/// lifetime, within the limits for tokens of that lifetime. A jitter of a tenth spreads the refreshes of many gateways, and of the
/// many tenants whose tokens were obtained together.
pub(crate) fn refresh_after(lifetime: Duration, refresh_in: Option<Duration>, jitter: f64) -> Duration {
    let half = lifetime / 2;
    let latest = lifetime.saturating_sub(MIN_TIME_BEFORE_EXPIRY).max(half);
    let earliest = MIN_REFRESH_INTERVAL.min(half * 4 / 5);
    let wanted = refresh_in.unwrap_or(lifetime * 2 / 3).clamp(earliest, latest);
    // At a limit, the whole jitter goes to the other side: a limit must not collect the refreshes that it moves.
    let width = wanted.mul_f64(0.2);
    let first = wanted.mul_f64(0.9).min(latest.saturating_sub(width)).max(earliest);
    (first + width.mul_f64(0.5 + jitter.clamp(-1.0, 1.0) / 2.0)).min(latest)
}

/// Returns how long the requests of a throttled tenant or app pause.
pub(crate) fn pause(retry_after: Option<Duration>) -> Duration {
    retry_after.unwrap_or(DEFAULT_PAUSE).clamp(MIN_PAUSE, MAX_RETRY_AFTER)
}

/// Returns how long an assertion with this lifetime is shared: it must not expire on the way to Entra. `None` if it lives too
/// short.
pub(crate) fn assertion_use(lifetime: Duration) -> Option<Duration> {
    let margin = (lifetime / 10).clamp(MARGIN, MIN_TIME_BEFORE_EXPIRY);
    lifetime.checked_sub(margin).filter(|used| !used.is_zero())
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
        assert_eq!(refresh_after(60 * MINUTE, Some(59 * MINUTE), 1.0), 55 * MINUTE, "five minutes before expiry");
        assert_eq!(refresh_after(60 * MINUTE, Some(59 * MINUTE), -1.0), 44 * MINUTE);
        assert_eq!(refresh_after(60 * MINUTE, Some(Duration::from_secs(1)), -1.0), MIN_REFRESH_INTERVAL);
        assert_eq!(refresh_after(6 * MINUTE, None, 1.0), 3 * MINUTE, "a short token is refreshed at half its lifetime");
    }

    #[test]
    fn ten_thousand_tokens_obtained_in_one_burst_are_refreshed_at_different_times() {
        let mut random = fastrand::Rng::with_seed(15);
        let second = Duration::from_secs(1);
        for (lifetime, refresh_in) in [
            (60 * MINUTE, None),
            (60 * MINUTE, Some(59 * MINUTE)),
            (60 * MINUTE, Some(30 * MINUTE)),
            (60 * MINUTE, Some(second)),
            (75 * MINUTE, None),
            (24 * 60 * MINUTE, Some(12 * 60 * MINUTE)),
            (9 * MINUTE, None),
            (MINUTE, None),
        ] {
            let mut due: Vec<f64> = (0..10_000)
                .map(|_| refresh_after(lifetime, refresh_in, 2.0 * random.f64() - 1.0).as_secs_f64())
                .collect();
            due.sort_by(f64::total_cmp);
            let (first, last) = (due[0], due[due.len() - 1]);
            assert!(last - first > 0.15 * last, "{lifetime:?}: from {first} to {last}");
            // Evenly: no twentieth of that time has more than twice its share.
            let most = due
                .iter()
                .map(|from| due.iter().filter(|at| (0.0..(last - first) / 20.0).contains(&(*at - from))).count());
            assert!(most.step_by(100).max().unwrap() < 1000, "{lifetime:?}");
        }
    }

    #[test]
    fn an_assertion_is_shared_until_shortly_before_it_expires() {
        let shared = |secs| assertion_use(Duration::from_secs(secs)).map(|used| used.as_secs());
        assert_eq!(
            [24 * 3600, 3600, 300, 31, 30, 5].map(shared),
            [Some(86_100), Some(3300), Some(270), Some(1), None, None]
        );
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

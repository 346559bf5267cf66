//! The thresholds of a circuit breaker, and the classes of calls that an endpoint throttles separately.

use std::time::Duration;

use super::window::Counts;

/// The thresholds of an endpoint's circuit breaker. Calls avoid an endpoint with an open circuit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// The minimum number of failures that open the circuit, within the window or in a row.
    pub failures: u32,
    /// The minimum share of failures among the calls of the window that opens the circuit.
    pub failure_ratio: FailureRatio,
    /// The length of the window in which calls are counted.
    pub window: Duration,
    /// The time for which the circuit stays open before a trial. It doubles with each failed trial, up to a minute.
    pub pause: Duration,
    /// The interval of health probes.
    pub probe_interval: Duration,
}

/// A share of calls, in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailureRatio(u16);

impl FailureRatio {
    /// All calls.
    pub const ALL: Self = Self(1000);

    /// Returns the ratio that is closest to `ratio`; `None` unless it is above 0 and at most 1.
    pub fn new(ratio: f64) -> Option<Self> {
        let is_share = ratio > 0.0 && ratio <= 1.0;
        let thousandths = (1..=1000).find(|thousandths| f64::from(*thousandths) >= ratio * 1000.0 - 0.5);
        thousandths.filter(|_| is_share).map(Self)
    }

    /// Returns whether the share of failures is at least this one.
    pub(super) fn is_reached(self, counts: Counts) -> bool {
        counts.failures * 1000 >= u64::from(self.0) * (counts.failures + counts.successes)
    }
}

/// A class of calls that an endpoint throttles separately. The code that uses [`Health`](super::Health) defines the classes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallClass(pub(super) usize);

impl CallClass {
    /// The number of classes.
    pub const COUNT: usize = 8;

    /// Returns the class with this number. Larger numbers share the last class.
    pub const fn new(number: usize) -> Self {
        Self(if number < Self::COUNT { number } else { Self::COUNT - 1 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ratio_must_be_above_zero_and_at_most_one() {
        for (ratio, thousandths) in [
            (0.5, Some(500)),
            (1.0, Some(1000)),
            (0.0001, Some(1)),
            (0.0, None),
            (1.1, None),
            (-1.0, None),
            (f64::NAN, None),
        ] {
            assert_eq!(FailureRatio::new(ratio).map(|FailureRatio(thousandths)| thousandths), thousandths, "{ratio}");
        }
    }
}

//! Quantiles of what a histogram counted in an interval.

use crate::metrics::Distribution;

/// What a histogram counted in an interval.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Deltas {
    /// The upper bound of each bucket in seconds, and how many values are in it.
    buckets: Vec<(f64, u32)>,
    /// How many values are above the last bound.
    above: u32,
}

impl Deltas {
    /// Returns what was counted between two states of a histogram.
    pub(super) fn between(before: &Distribution, after: &Distribution) -> Self {
        let new = after.count.saturating_sub(before.count);
        if new == 0 {
            return Self::default();
        }
        let mut known = 0;
        let buckets = after.buckets.iter().enumerate().map(|(index, (bound, cumulative))| {
            let earlier = before.buckets.get(index).map_or(0, |(_, earlier)| *earlier);
            let so_far = cumulative.saturating_sub(earlier);
            let count = so_far.saturating_sub(known);
            known = so_far.max(known);
            (*bound, u32::try_from(count).unwrap_or(u32::MAX))
        });
        let buckets = buckets.filter(|(bound, _)| bound.is_finite()).collect();
        Self { buckets, above: u32::try_from(new.saturating_sub(known)).unwrap_or(u32::MAX) }
    }

    /// Adds another interval of the same histogram.
    pub(super) fn merge(&mut self, other: &Self) {
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
        } else {
            for ((_, count), (_, more)) in self.buckets.iter_mut().zip(&other.buckets) {
                *count = count.saturating_add(*more);
            }
        }
        self.above = self.above.saturating_add(other.above);
    }

    /// Returns the quantile `share`, in milliseconds, interpolated within its bucket as Prometheus does. Values above the last bound
    /// count as that. `None` if there are no values.
    pub(super) fn quantile_ms(&self, share: f64) -> Option<f64> {
        let total = self.buckets.iter().map(|(_, count)| u64::from(*count)).sum::<u64>() + u64::from(self.above);
        if total == 0 {
            return None;
        }
        let rank = share * float(total);
        let (mut below, mut lower) = (0.0, 0.0);
        for (bound, count) in &self.buckets {
            let count = f64::from(*count);
            if count > 0.0 && below + count >= rank {
                return Some((lower + (bound - lower) * ((rank - below) / count)) * 1000.0);
            }
            below += count;
            lower = *bound;
        }
        Some(lower * 1000.0)
    }
}

/// Converts a count.
#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^52")]
pub(super) fn float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_interpolated_within_their_bucket() {
        let distribution = |counts: [u64; 3], count| Distribution {
            buckets: [0.001, 0.002, 0.01].into_iter().zip(counts).collect(),
            count,
        };
        let before = distribution([5, 5, 5], 5);
        let mut deltas = Deltas::between(&before, &distribution([15, 25, 25], 26));
        let close = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 0.01;
        assert!(close(deltas.quantile_ms(0.25), 0.525), "{deltas:?}");
        assert!(close(deltas.quantile_ms(0.5), 1.05), "{deltas:?}");
        assert!(close(deltas.quantile_ms(0.999), 10.0), "values above the last bound count as that");
        assert_eq!(Deltas::between(&before, &before).quantile_ms(0.5), None);
        deltas.merge(&deltas.clone());
        assert!(close(deltas.quantile_ms(0.5), 1.05), "{deltas:?}");
    }
}

//! Counts the successful and failed calls of all workers within a sliding window.
//!
//! Successes are counted in stripes, each on its own cache lines, so that workers do not contend. An endpoint has none until the
//! first success.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::available_parallelism;
use std::time::Duration;

/// The number of buckets of a window. Counts expire one bucket at a time.
const BUCKETS: usize = 16;
/// The maximum number of stripes. Workers beyond this number, or beyond the number of processors, share stripes.
const MAX_STRIPES: usize = 16;

/// The call counts of one endpoint.
pub(super) struct Window {
    bucket_ms: u64,
    successes: OnceLock<Box<[Stripe]>>,
    failures: Ring,
}

/// A ring on its own pair of cache lines, since processors prefetch lines in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Stripe(Ring);

/// Counts by bucket. Each word has the number of its bucket since the start in the upper half and the count in the lower half.
#[derive(Default)]
struct Ring([AtomicU64; BUCKETS]);

/// The counts of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) successes: u64,
    pub(super) failures: u64,
}

impl Window {
    pub(super) fn new(length: Duration) -> Self {
        let length_ms = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        Self {
            bucket_ms: length_ms.div_ceil(BUCKETS as u64).max(1),
            successes: OnceLock::new(),
            failures: Ring::default(),
        }
    }

    /// Counts a success. `now_ms` is the time since the start in milliseconds.
    pub(super) fn succeeded(&self, now_ms: u64) {
        let stripe = STRIPE.with(|stripe| *stripe);
        if let Some(Stripe(ring)) = self.successes.get_or_init(new_stripes).get(stripe) {
            ring.add(self.bucket(now_ms));
        }
    }

    /// Counts a failure.
    pub(super) fn failed(&self, now_ms: u64) {
        self.failures.add(self.bucket(now_ms));
    }

    /// Returns the counts of the window that ends now.
    pub(super) fn counts(&self, now_ms: u64) -> Counts {
        let bucket = self.bucket(now_ms);
        Counts {
            successes: self.successes.get().into_iter().flatten().map(|Stripe(ring)| ring.sum(bucket)).sum(),
            failures: self.failures.sum(bucket),
        }
    }

    /// Resets all counts.
    pub(super) fn clear(&self) {
        self.successes.get().into_iter().flatten().for_each(|Stripe(ring)| ring.clear());
        self.failures.clear();
    }

    fn bucket(&self, now_ms: u64) -> u32 {
        u32::try_from(now_ms / self.bucket_ms).unwrap_or(u32::MAX)
    }
}

thread_local! {
    static STRIPE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % stripes()
    };
}

#[cold]
fn new_stripes() -> Box<[Stripe]> {
    (0..stripes()).map(|_| Stripe::default()).collect()
}

/// Returns the number of stripes.
fn stripes() -> usize {
    static STRIPES: OnceLock<usize> = OnceLock::new();
    *STRIPES.get_or_init(|| available_parallelism().map_or(1, usize::from).min(MAX_STRIPES))
}

impl Ring {
    fn add(&self, number: u32) {
        let Some(bucket) = self.0.get(number as usize % BUCKETS) else { return };
        let found = bucket.load(Ordering::Relaxed);
        if found >> 32 == u64::from(number) {
            bucket.fetch_add(1, Ordering::Relaxed);
        } else {
            replace(bucket, found, number);
        }
    }

    fn sum(&self, now: u32) -> u64 {
        let is_within = |bucket: &u64| u64::from(now).wrapping_sub(bucket >> 32) < BUCKETS as u64;
        let buckets = self.0.iter().map(|bucket| bucket.load(Ordering::Relaxed));
        buckets.filter(is_within).map(|bucket| bucket & u64::from(u32::MAX)).sum()
    }

    fn clear(&self) {
        self.0.iter().for_each(|bucket| bucket.store(0, Ordering::Relaxed));
    }
}

/// Replaces an expired bucket with a new one whose count is 1.
#[cold]
fn replace(bucket: &AtomicU64, found: u64, number: u32) {
    let first = u64::from(number) << 32 | 1;
    if bucket.compare_exchange(found, first, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        // Another thread replaced it first. If its bucket is older than `number`, the call is counted in the wrong bucket.
        bucket.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LENGTH_MS: u64 = 1600;

    fn window() -> Window {
        Window::new(Duration::from_millis(LENGTH_MS))
    }

    #[test]
    fn calls_of_all_threads_are_counted() {
        let window = window();
        std::thread::scope(|scope| {
            for _ in 0..40 {
                scope.spawn(|| (0..100).for_each(|_| window.succeeded(10)));
            }
        });
        window.failed(20);
        // Threads that replace a bucket concurrently may miscount by one each.
        let Counts { successes, failures } = window.counts(30);
        assert!((3960..=4000).contains(&successes), "{successes}");
        assert_eq!(failures, 1);
        window.clear();
        assert_eq!(window.counts(30), Counts { successes: 0, failures: 0 });
    }

    proptest! {
        /// All calls of the last 15 buckets are counted, and none that is older than 16 buckets.
        #[test]
        fn recent_calls_are_counted_and_old_ones_expire(steps in prop::collection::vec((0..400_u64, any::<bool>()), 1..200)) {
            let window = window();
            let (mut now, mut events) = (0, Vec::new());
            for (pause, ok) in steps {
                now += pause;
                if ok { window.succeeded(now) } else { window.failed(now) }
                events.push((now, ok));
                let younger_than = |age: u64, ok: bool| {
                    events.iter().filter(|(at, was_ok)| *was_ok == ok && now - at < age).count() as u64
                };
                let counts = window.counts(now);
                for (counted, ok) in [(counts.successes, true), (counts.failures, false)] {
                    let (least, most) = (younger_than(LENGTH_MS - 100, ok), younger_than(LENGTH_MS, ok));
                    prop_assert!((least..=most).contains(&counted), "{counted} of {least} to {most}");
                }
            }
        }
    }
}

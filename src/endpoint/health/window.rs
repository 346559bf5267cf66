//! Counts successful and failed calls of all workers within a sliding window.
//!
//! Successes are counted in stripes, each on its own cache lines, so that workers do not contend.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

/// The number of buckets of a window. Counts leave the window bucket by bucket.
const BUCKETS: usize = 16;
/// The number of stripes. Workers share stripes on hosts with more cores.
const STRIPES: usize = 16;

/// The counts of one endpoint.
pub(super) struct Window {
    bucket_ms: u64,
    successes: [Stripe; STRIPES],
    failures: Ring,
}

/// A ring on its own two cache lines, because processors load them in pairs.
#[derive(Default)]
#[repr(align(128))]
struct Stripe(Ring);

/// A count by bucket: the number of the bucket since the start in the upper half, the count in the lower one.
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
            successes: Default::default(),
            failures: Ring::default(),
        }
    }

    /// Counts a success; `now_ms` is the time since the start.
    pub(super) fn succeeded(&self, now_ms: u64) {
        let stripe = STRIPE.with(|stripe| *stripe);
        if let Some(Stripe(ring)) = self.successes.get(stripe) {
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
            successes: self.successes.iter().map(|Stripe(ring)| ring.sum(bucket)).sum(),
            failures: self.failures.sum(bucket),
        }
    }

    /// Resets all counts.
    pub(super) fn clear(&self) {
        self.successes.iter().for_each(|Stripe(ring)| ring.clear());
        self.failures.clear();
    }

    fn bucket(&self, now_ms: u64) -> u32 {
        u32::try_from(now_ms / self.bucket_ms).unwrap_or(u32::MAX)
    }
}

thread_local! {
    static STRIPE: usize = {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES
    };
}

impl Ring {
    fn add(&self, number: u32) {
        let Some(bucket) = self.0.get(number as usize % BUCKETS) else { return };
        let found = bucket.load(Ordering::Relaxed);
        if found >> 32 == u64::from(number) {
            bucket.fetch_add(1, Ordering::Relaxed);
        } else {
            begin(bucket, found, number);
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

/// Replaces an old bucket by a new one.
#[cold]
fn begin(bucket: &AtomicU64, found: u64, number: u32) {
    let first = u64::from(number) << 32 | 1;
    if bucket.compare_exchange(found, first, Ordering::Relaxed, Ordering::Relaxed).is_err() {
        // Another thread replaced it first. If that was with an older bucket, one count is off.
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
        // Threads that begin a bucket together may miss each other by one.
        let Counts { successes, failures } = window.counts(30);
        assert!((3960..=4000).contains(&successes), "{successes}");
        assert_eq!(failures, 1);
        window.clear();
        assert_eq!(window.counts(30), Counts { successes: 0, failures: 0 });
    }

    proptest! {
        /// Everything of the last 15 buckets is counted, nothing that is older than 16.
        #[test]
        fn window_holds_recent_calls_and_drops_old_ones(steps in prop::collection::vec((0..400_u64, any::<bool>()), 1..200)) {
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

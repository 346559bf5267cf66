//! The times after which callers' connections are closed.

use std::time::Duration;

use tokio::time::Instant;

use super::settings::ServeSettings;

/// The longest interval between two sweeps. A timeout is late by two intervals at most. Chosen: little compared to the
/// default timeout of a minute and a half.
const MAX_SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// The shortest interval between two sweeps.
const MIN_SWEEP_INTERVAL: Duration = Duration::from_millis(10);
/// The ages at which connections that were accepted at one time are closed, in parts of the configured age, so that their callers
/// do not reconnect at one time. Source: gRPC's `MAX_CONNECTION_AGE` has the same spread.
const AGE_SPREAD: (f32, f32) = (0.9, 1.1);

/// The times after which connections are closed.
pub(super) struct ConnectionTimeouts {
    /// Of a connection without requests.
    pub(super) idle: Duration,
    /// Of a caller that does not read.
    pub(super) write: Duration,
    /// Of every connection; `None` for no limit.
    pub(super) age: Option<Duration>,
}

impl ConnectionTimeouts {
    pub(super) fn of(settings: &ServeSettings) -> Self {
        let ServeSettings { header_read_timeout, write_timeout, connection_age, .. } = settings;
        Self { idle: *header_read_timeout, write: *write_timeout, age: *connection_age }
    }

    /// Returns the interval between two sweeps.
    pub(super) fn sweep_interval(&self) -> Duration {
        let shortest = self.idle.min(self.write).min(self.age.unwrap_or(Duration::MAX));
        (shortest / 8).clamp(MIN_SWEEP_INTERVAL, MAX_SWEEP_INTERVAL)
    }

    /// Returns when a connection that is accepted `now` reaches its age.
    pub(super) fn expiry(&self, now: Instant) -> Option<Instant> {
        let (shortest, longest) = AGE_SPREAD;
        self.age.map(|age| now + age.mul_f32(shortest + fastrand::f32() * (longest - shortest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn connections_that_are_accepted_together_do_not_expire_together() {
        let (idle, write) = (Duration::from_secs(90), Duration::from_secs(20));
        let minute = Duration::from_secs(60);
        let timeouts = ConnectionTimeouts { idle, write, age: Some(minute) };
        let now = Instant::now();
        let ages: Vec<_> = (0..100).map(|_| timeouts.expiry(now).unwrap() - now).collect();
        assert!(
            ages.iter().all(|age| (minute * 9 / 10..=minute * 11 / 10 + MIN_SWEEP_INTERVAL).contains(age)),
            "{ages:?}"
        );
        assert!(ages.iter().max().unwrap().abs_diff(*ages.iter().min().unwrap()) > Duration::from_secs(3), "{ages:?}");
        assert_eq!(ConnectionTimeouts { age: None, ..timeouts }.expiry(now), None);
    }
}

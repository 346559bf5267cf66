//! The deadline of a request.

use std::time::{Duration, Instant};

/// The deadline of a request until the head of its response. Set when the request's head was read; never extended.
#[derive(Clone, Copy, Debug)]
pub struct RequestDeadline {
    at: Instant,
    limit: Duration,
}

impl RequestDeadline {
    /// Returns the deadline of a request that may take `limit` in all.
    pub fn new(started: Instant, limit: Duration) -> Self {
        Self { at: started + limit, limit }
    }

    /// Returns the instant at which it passes.
    pub fn at(self) -> Instant {
        self.at
    }

    /// Returns the time that the request has in all.
    pub fn limit(self) -> Duration {
        self.limit
    }

    /// Returns the time that is left; zero once the deadline has passed.
    pub fn remaining(self, now: Instant) -> Duration {
        self.at.saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remaining_time_decreases_to_zero() {
        let started = Instant::now();
        let deadline = RequestDeadline::new(started, Duration::from_secs(3));
        assert_eq!(deadline.remaining(started + Duration::from_secs(1)), Duration::from_secs(2));
        assert_eq!(deadline.remaining(started + Duration::from_secs(4)), Duration::ZERO);
    }

    #[test]
    fn limit_is_the_whole_time_of_the_request() {
        let deadline = RequestDeadline::new(Instant::now(), Duration::from_secs(3));
        assert_eq!(deadline.limit(), Duration::from_secs(3));
    }
}

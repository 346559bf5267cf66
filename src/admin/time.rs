//! Times on `/status` and the page.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::diagnosis;

/// Returns a time in seconds since the Unix epoch.
pub(super) fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// Returns the current time in seconds since the Unix epoch.
pub(super) fn now() -> u64 {
    seconds(SystemTime::now())
}

/// Formats a time for people: the time of day, with the date unless that is the day of `now`.
pub(super) fn clock(at: u64, now: u64) -> String {
    let time = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
    diagnosis::clock(time(at), time(now))
}

/// Formats how long something lasts, by its two largest units.
pub(super) fn lasting(seconds: u64) -> String {
    let text = humantime::format_duration(Duration::from_secs(seconds)).to_string();
    text.split(' ').take(2).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_seconds() {
        let noon = 1_800_014_400;
        assert_eq!(clock(noon, noon + 60), "12:00:00 UTC");
        assert_eq!(lasting(90_061), "1day 1h");
    }
}

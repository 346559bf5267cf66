//! Times for people.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The seconds of a day.
const DAY: u64 = 24 * 60 * 60;

/// Formats a time for people: the time of day, with the date unless that is the day of `now`.
pub fn clock(at: SystemTime, now: SystemTime) -> String {
    // Times before 1970 are those of clocks that were never set.
    let seconds = |at: SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let text = humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds(at))).to_string();
    let (date, time) = text.split_once('T').unwrap_or((&text, ""));
    let time = time.trim_end_matches('Z');
    if seconds(at) / DAY == seconds(now) / DAY { format!("{time} UTC") } else { format!("{date} {time} UTC") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_other_days_have_a_date() {
        let noon = UNIX_EPOCH + Duration::from_secs(1_800_014_400);
        assert_eq!(clock(noon, noon + Duration::from_secs(61)), "12:00:00 UTC");
        assert_eq!(clock(noon, noon + Duration::from_secs(DAY)), "2027-01-15 12:00:00 UTC");
    }
}

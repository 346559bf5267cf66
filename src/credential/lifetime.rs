//! The lifetime of a token, and parsers for the formats that issuers use: a number, a number in a string, a date.
//!
//! Responses, files and program outputs are all read with these parsers. The parsers do not read the clock.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;
use tokio::time::Instant;

/// The lifetime of a token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lifetime {
    /// When it starts.
    pub(crate) starts: Instant,
    /// Its length.
    pub(crate) duration: Duration,
    /// The time from the start to the refresh, if the issuer sets it.
    pub(crate) refresh_in: Option<Duration>,
}

/// Parses a number of seconds: `3599`, `3599.0`, `"3599"`.
pub(crate) fn seconds(value: &Value) -> Option<i64> {
    match value {
        Value::Number(number) => number.as_i64().or_else(|| truncated(number.as_f64()?)),
        Value::String(text) => {
            let text = text.trim();
            text.parse().ok().or_else(|| truncated(text.parse().ok()?))
        }
        Value::Null | Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Parses a point in time: seconds since 1970 like [`seconds`], RFC 3339, ISO 8601, or the format of old versions of App Service
/// (`09/14/2030 08:00:00 AM +00:00`). A date without a zone is UTC.
pub(crate) fn timestamp(value: &Value) -> Option<SystemTime> {
    match seconds(value) {
        // Up to the end of the year 9999.
        Some(seconds @ 0..253_402_300_800) => UNIX_EPOCH.checked_add(Duration::from_secs(seconds.try_into().ok()?)),
        Some(_) => None,
        None => date(value.as_str()?.trim()),
    }
}

fn truncated(number: f64) -> Option<i64> {
    let whole = number.trunc();
    // A 64-bit float represents every integer in this range.
    let is_exact = whole.abs() < 9e15;
    #[expect(clippy::cast_possible_truncation, reason = "it is whole and in range")]
    let whole = whole as i64;
    is_exact.then_some(whole)
}

fn date(text: &str) -> Option<SystemTime> {
    let (text, offset) = split_utc_offset(text);
    let written = from_app_service_format(text);
    let local = humantime::parse_rfc3339_weak(written.as_deref().unwrap_or(text)).ok()?;
    match offset {
        offset if offset < 0 => local.checked_add(Duration::from_secs(offset.unsigned_abs())),
        offset => local.checked_sub(Duration::from_secs(offset.unsigned_abs())),
    }
}

/// Splits off `Z`, `+02:00` or `+0200` and returns the offset from UTC in seconds.
fn split_utc_offset(text: &str) -> (&str, i64) {
    let none = (text, 0);
    let Some(at) = text
        .rfind(['+', '-'])
        .filter(|at| text.len() - at <= 6 && text.get(..*at).is_some_and(|rest| rest.contains(':')))
    else {
        return none;
    };
    let (rest, offset) = text.split_at(at);
    let digits: String = offset.chars().filter(char::is_ascii_digit).collect();
    let (Some(Ok(hours)), Some(Ok(minutes))) =
        (digits.get(..2).map(str::parse::<i64>), digits.get(2..4).map(str::parse::<i64>))
    else {
        return none;
    };
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    (rest.trim_end(), sign * (hours * 3600 + minutes * 60))
}

/// Rewrites `9/14/2030 8:00:00 AM` as `2030-09-14 08:00:00`.
fn from_app_service_format(text: &str) -> Option<String> {
    let (date, time) = text.split_once(' ')?;
    let numbers = |text: &str, separator| {
        text.split(separator).map(|number| number.parse::<u32>().ok()).collect::<Option<Vec<_>>>()
    };
    let (time, half) = time.split_once(' ').map_or((time, ""), |(time, half)| (time, half.trim()));
    let ([month, day, year], [hour, minute, second]) =
        (<[u32; 3]>::try_from(numbers(date, '/')?).ok()?, <[u32; 3]>::try_from(numbers(time, ':')?).ok()?);
    let hour = match (half, hour) {
        ("AM", 12) => 0,
        ("PM", hour) if hour < 12 => hour + 12,
        (_, hour) => hour,
    };
    Some(format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn parses_seconds_from_numbers_and_strings() {
        for (value, expected) in [
            (json!(3599), Some(3599)),
            (json!(3599.9), Some(3599)),
            (json!("3599"), Some(3599)),
            (json!(" 3599.0 "), Some(3599)),
            (json!(-5), Some(-5)),
            (json!(1e300), None),
            (json!("NaN"), None),
            (json!("soon"), None),
            (json!(null), None),
            (json!([3599]), None),
        ] {
            assert_eq!(seconds(&value), expected, "{value}");
        }
    }

    #[test]
    fn parses_times_from_seconds_and_dates() {
        // 2030-01-15T08:00:00Z
        let expected = Some(UNIX_EPOCH + Duration::from_secs(1_894_694_400));
        for value in [
            json!(1_894_694_400),
            json!("1894694400"),
            json!(1_894_694_400.0),
            json!("2030-01-15T08:00:00Z"),
            json!("2030-01-15T08:00:00"),
            json!("2030-01-15 08:00:00"),
            json!("2030-01-15T08:00:00+00:00"),
            json!("2030-01-15T10:00:00+02:00"),
            json!("2030-01-15T03:00:00-05:00"),
            json!("2030-01-15T03:00:00-0500"),
            json!("01/15/2030 08:00:00 +00:00"),
            json!("1/15/2030 8:00:00 AM +00:00"),
        ] {
            assert_eq!(timestamp(&value), expected, "{value}");
        }
        assert_eq!(
            timestamp(&json!("1/15/2030 8:00:00 PM +00:00")),
            expected.map(|at| at + Duration::from_secs(12 * 3600))
        );
        for value in [
            json!("soon"),
            json!(-1),
            json!(253_402_300_800_u64),
            json!("2030-99-15T08:00:00Z"),
            json!(null),
            json!("1/2 3:4 5"),
        ] {
            assert_eq!(timestamp(&value), None, "{value}");
        }
    }
}

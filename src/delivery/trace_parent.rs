//! The caller's position in a trace.

use http::HeaderValue;

use crate::metrics::TraceId;

/// The flag of a trace that the caller records.
const SAMPLED: u128 = 0x01;

/// Returns the trace in the value of a `traceparent`, if it is valid and the caller records that trace.
///
/// Source: W3C Trace Context, section 3.2.
pub(super) fn recorded_trace(trace_parent: &HeaderValue) -> Option<TraceId> {
    let text = trace_parent.as_bytes();
    // The flags come first, since most traces are not recorded.
    if hex(text.get(53..55)?)? & SAMPLED == 0 {
        return None;
    }
    let (version, trace, span) = (hex(text.get(..2)?)?, hex(text.get(3..35)?)?, hex(text.get(36..52)?)?);
    let is_divided = [2, 35, 52].iter().all(|at| text.get(*at) == Some(&b'-'));
    // Later versions may have more parts.
    let is_whole = text.len() == 55 || (version != 0 && text.get(55) == Some(&b'-'));
    let is_valid = is_divided && is_whole && version != 0xff && span != 0;
    if is_valid { TraceId::new(trace) } else { None }
}

/// Parses at most 32 hex digits in lower case.
fn hex(digits: &[u8]) -> Option<u128> {
    digits.iter().try_fold(0, |number, digit| {
        let value = match digit {
            b'0'..=b'9' => digit - b'0',
            b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        Some((number << 4) | u128::from(value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_valid_positions_in_recorded_traces_have_a_trace() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        for (value, is_recorded) in [
            (format!("00-{trace}-{span}-01"), true),
            (format!("00-{trace}-{span}-03"), true),
            (format!("cc-{trace}-{span}-01"), true),
            (format!("cc-{trace}-{span}-01-what-the-future"), true),
            (format!("00-{trace}-{span}-00"), false),
            (format!("00-{trace}-{span}-02"), false),
            (format!("00-{trace}-{span}-01-more"), false),
            (format!("cc-{trace}-{span}-01more"), false),
            (format!("ff-{trace}-{span}-01"), false),
            (format!("00-{trace}-{span}-1"), false),
            (format!("00-{trace}-{span}-0x"), false),
            (format!("00-{}-{span}-01", trace.to_uppercase()), false),
            (format!("00-{}-{span}-01", "0".repeat(32)), false),
            (format!("00-{trace}-{}-01", "0".repeat(16)), false),
            (format!("00_{trace}-{span}-01"), false),
            (format!("00-{}\"-{span}-01", &trace[1..]), false),
            (String::new(), false),
        ] {
            let found = recorded_trace(&HeaderValue::try_from(&value).unwrap());
            let expected = is_recorded.then(|| trace.to_owned());
            assert_eq!(found.map(|trace| trace.to_string()), expected, "{value}");
        }
    }
}

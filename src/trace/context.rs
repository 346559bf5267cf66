//! The position of a request in a trace, and its header.
//!
//! Source: W3C Trace Context, sections 3.2 and 3.3.

use std::fmt;

use http::{HeaderName, HeaderValue};

use crate::metrics::TraceId;

/// The header with the position in a trace.
pub const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
/// The header with what tracing systems add to it.
pub const TRACE_STATE: HeaderName = HeaderName::from_static("tracestate");

/// The flag of a trace that is recorded.
const SAMPLED: u8 = 0x01;
/// The flag of a trace whose id is random.
const RANDOM: u8 = 0x02;

/// The id of a span. It displays as 16 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanId(u64);

impl SpanId {
    /// Returns a new id.
    pub(super) fn random() -> Self {
        Self(fastrand::u64(1..))
    }
}

impl fmt::Display for SpanId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A position in a trace, as a `traceparent` states it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceParent {
    /// The trace.
    pub trace: TraceId,
    /// The span that sends the request.
    pub span: SpanId,
    flags: u8,
}

impl TraceParent {
    /// Parses the value of a `traceparent`; `None` if it is not valid.
    pub fn parse(value: &HeaderValue) -> Option<Self> {
        let text = value.as_bytes();
        let part = |range| text.get(range).and_then(hex);
        let (version, trace, span, flags) = (part(0..2)?, part(3..35)?, part(36..52)?, part(53..55)?);
        let is_divided = [2, 35, 52].iter().all(|at| text.get(*at) == Some(&b'-'));
        // Later versions may have more parts.
        let is_whole = text.len() == 55 || (version != 0 && text.get(55) == Some(&b'-'));
        let is_valid = is_divided && is_whole && version != 0xff && span != 0;
        let (span, flags) = (SpanId(u64::try_from(span).ok()?), u8::try_from(flags).ok()?);
        TraceId::new(trace).filter(|_| is_valid).map(|trace| Self { trace, span, flags })
    }

    /// Returns the trace id in the value of a `traceparent` as it is written there; `None` if the value is not valid.
    pub fn id_in(value: &HeaderValue) -> Option<&str> {
        Self::parse(value)?;
        value.to_str().ok()?.get(3..35)
    }

    /// Returns whether the trace is recorded.
    pub fn is_sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Returns the flags of the trace.
    pub(super) fn flags(self) -> u8 {
        self.flags
    }

    /// Returns the position of a span in a recorded trace that begins with it.
    pub(super) fn first(trace: TraceId, span: SpanId) -> Self {
        Self { trace, span, flags: SAMPLED | RANDOM }
    }

    /// Returns the position of another span in the same trace.
    pub(super) fn with_span(self, span: SpanId) -> Self {
        // Flags that version 00 does not know are not passed on.
        Self { span, flags: self.flags & (SAMPLED | RANDOM), ..self }
    }

    /// Returns the value of the header; `None` never occurs.
    pub(super) fn header(self) -> Option<HeaderValue> {
        HeaderValue::try_from(self.to_string()).ok()
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-{:02x}", self.trace, self.span, self.flags)
    }
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

    fn parse(text: &str) -> Option<TraceParent> {
        TraceParent::parse(&HeaderValue::try_from(text).unwrap())
    }

    #[test]
    fn valid_headers_are_parsed_and_written_back() {
        let text = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent = parse(text).unwrap();
        assert!(parent.is_sampled());
        assert_eq!(parent.to_string(), text);
        let id = TraceParent::id_in(&HeaderValue::from_static(text)).map(str::to_owned);
        assert_eq!(id.as_deref(), Some("0af7651916cd43dd8448eb211c80319c"));
        assert!(!parse(&text.replace("-01", "-02")).unwrap().is_sampled());
        assert!(parse(&text.replace("00-0", "cc-0").replace("-01", "-01-more")).unwrap().is_sampled());
        // Unknown flags are not passed on.
        let all = parse(&text.replace("-01", "-ff")).unwrap();
        assert_eq!(all.with_span(all.span).to_string(), text.replace("-01", "-03"));
    }

    #[test]
    fn invalid_headers_are_none() {
        let (trace, span) = ("0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331");
        for text in [
            String::new(),
            format!("ff-{trace}-{span}-01"),
            format!("00-{trace}-{span}-01-more"),
            format!("00-{trace}-{span}"),
            format!("00-{trace}-{span}-1"),
            format!("00-{}-{span}-01", trace.to_uppercase()),
            format!("00-{}-{span}-01", "0".repeat(32)),
            format!("00-{trace}-{}-01", "0".repeat(16)),
            format!("00-{trace}-+{}-01", &span[1..]),
            format!("00_{trace}-{span}-01"),
            format!("00-{}\"-{span}-01", &trace[1..]),
            format!("cc-{trace}-{span}-01more"),
            format!("00-{trace}-{span}-0x"),
            format!("0-{trace}-{span}-01"),
        ] {
            assert_eq!(parse(&text), None, "{text}");
        }
    }
}

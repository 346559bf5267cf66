//! Checks one HTTP/1.x request head, line by line, strictly by RFC 9112.
//!
//! hyper repairs some heads: it accepts a bare LF as the end of a line, cuts the target at `#`, drops a `Content-Length` beside
//! a `Transfer-Encoding` or a second equal one, and accepts any coding before `chunked`. A proxy in front of the gateway may
//! read such a head differently, so it is rejected here. hyper would also reject the others, with a response that is neither
//! logged nor counted.

use super::head_error::HeadError;
use super::scan::{first_control, first_outside_target, first_outside_token};

/// The largest partial head that is held back, in bytes: the highest value of `limits.max_header`, and less than hyper buffers.
pub(super) const MAX_HEAD: usize = 64 * 1024;
/// The most header lines. hyper has the same limit.
pub(super) const MAX_FIELDS: usize = 100;
/// The longest method. Longer ones would only fill the log.
const MAX_METHOD: usize = 32;

/// How the body after a head is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyLength {
    /// By its length; 0 if there is none.
    Known(u64),
    /// By chunks.
    Chunked,
}

impl Default for BodyLength {
    fn default() -> Self {
        Self::Known(0)
    }
}

/// The progress of a head's check.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HeadCheck {
    /// The start of the first unchecked line; 0 is the request line.
    at: usize,
    is_http_1_0: bool,
    fields: usize,
    has_host: bool,
    content_length: Option<u64>,
    is_chunked: bool,
}

/// The last head that passed on a connection. The next head often differs in its target or a few lines only, and equal lines
/// need no check. This saves 3,000 of 36,100 instructions per request against a check of every head (callgrind,
/// `bench.sh --instructions`, plain, 64 connections, median of three runs, 2026-11-26).
#[derive(Debug, Default)]
pub(super) struct KnownHead {
    /// Empty if there is none or it is longer than [`MAX_KNOWN`].
    bytes: Vec<u8>,
    /// The end of its request line.
    start: usize,
    is_http_1_0: bool,
    lines: Vec<KnownLine>,
    /// The lines of the head that is being checked.
    next_lines: Vec<KnownLine>,
    body: BodyLength,
}

/// A header line of the last head.
#[derive(Clone, Copy, Debug)]
struct KnownLine {
    /// The end of the line in the head.
    end: u16,
    /// Whether it may be `host`, `content-length` or `transfer-encoding`, which are always checked.
    needs_check: bool,
}

/// The longest head that is stored, in bytes. Chosen: twice the head of usual callers.
const MAX_KNOWN: usize = 768;

impl KnownHead {
    /// Returns the last head if `bytes` begin with it.
    #[inline]
    pub(super) fn recognise(&self, bytes: &[u8]) -> Option<Head> {
        let is_same = !self.bytes.is_empty() && bytes.starts_with(&self.bytes);
        is_same.then_some(Head { end: self.bytes.len(), body: self.body })
    }

    /// Returns the end of the request line if it equals that of the last head.
    #[inline]
    fn recognise_request_line(&self, bytes: &[u8]) -> Option<usize> {
        let line = self.bytes.get(..self.start).filter(|line| !line.is_empty())?;
        bytes.starts_with(line).then_some(self.start)
    }

    fn store(&mut self, bytes: &[u8], start: usize, is_http_1_0: bool, body: BodyLength) {
        self.bytes.clear();
        if bytes.len() <= MAX_KNOWN {
            self.bytes.extend_from_slice(bytes);
        }
        (self.start, self.is_http_1_0, self.body) = (start, is_http_1_0, body);
        std::mem::swap(&mut self.lines, &mut self.next_lines);
    }
}

#[inline]
fn push_line(lines: &mut Vec<KnownLine>, end: usize, needs_check: bool) {
    if let Some(end) = u16::try_from(end).ok().filter(|_| end <= MAX_KNOWN) {
        lines.push(KnownLine { end, needs_check });
    }
}

/// A complete head that passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Head {
    /// Its end.
    pub(super) end: usize,
    pub(super) body: BodyLength,
}

/// The result of a line's check.
enum Line {
    /// The line is valid; the next begins here.
    Next(usize),
    /// The line is incomplete.
    Partial,
}

impl HeadCheck {
    /// Checks the complete lines of the head that `bytes` begin with. Returns `None` if the head is incomplete.
    ///
    /// # Errors
    /// The rule that the head violates.
    #[inline]
    pub(super) fn check(&mut self, bytes: &[u8], known: &mut KnownHead) -> Result<Option<Head>, HeadError> {
        if self.at > 0 {
            return self.check_lines(bytes, &mut KnownHead::default());
        }
        if let Some(end) = known.recognise_request_line(bytes) {
            (self.at, self.is_http_1_0) = (end, known.is_http_1_0);
        } else {
            match request_line(bytes, &mut self.is_http_1_0)? {
                Line::Next(at) => self.at = at,
                Line::Partial => return Ok(None),
            }
        }
        let start = self.at;
        known.next_lines.clear();
        let head = self.check_lines(bytes, known)?;
        if let Some(head) = head {
            known.store(bytes.get(..head.end).unwrap_or_default(), start, self.is_http_1_0, head.body);
        }
        Ok(head)
    }

    fn check_lines(&mut self, bytes: &[u8], known: &mut KnownHead) -> Result<Option<Head>, HeadError> {
        let mut rest = bytes.get(self.at..).unwrap_or_default();
        let (mut known_lines, mut known_start) = (known.lines.iter(), known.start);
        loop {
            // An incomplete line is checked again from here.
            self.at = bytes.len() - rest.len();
            if let Some(line) = known_lines.next() {
                let text = known.bytes.get(known_start..usize::from(line.end)).unwrap_or_default();
                known_start = usize::from(line.end);
                if !line.needs_check
                    && !text.is_empty()
                    && let Some(after) = rest.strip_prefix(text)
                {
                    self.count_field()?;
                    push_line(&mut known.next_lines, self.at + text.len(), false);
                    rest = after;
                    continue;
                }
            }
            let name_end = first_outside_token(rest);
            let Some((name, value)) = rest.split_at_checked(name_end) else { return Ok(None) };
            let value = match value {
                [b':', value @ ..] if name_end > 0 => value,
                [] | [b'\r'] => return Ok(None),
                [b'\r', b'\n', ..] if name_end == 0 => {
                    let end = self.at + 2;
                    // hyper would respond to a longer target on its own.
                    if end > MAX_HEAD {
                        return Err(HeadError::TooLarge { size: end });
                    }
                    return Ok(Some(Head { end, body: self.body()? }));
                }
                [other, ..] => return Err(bad_name(*other, name_end)),
            };
            let mut value_end = first_control(value);
            let after = loop {
                match value.split_at_checked(value_end) {
                    Some((_, [b'\r', b'\n', after @ ..])) => break after,
                    Some((_, [b'\t', ..])) => {
                        value_end += 1;
                        value_end += first_control(value.get(value_end..).unwrap_or_default());
                    }
                    Some((_, [] | [b'\r'])) | None => return Ok(None),
                    Some((_, [other, ..])) => return Err(bad_value(*other)),
                }
            };
            // Only `host`, `content-length` and `transfer-encoding` matter here; their lengths exclude most other names.
            let needs_check = matches!(name_end, 4 | 14 | 17);
            if needs_check {
                self.record_field(name, value.get(..value_end).unwrap_or_default())?;
            }
            self.count_field()?;
            push_line(&mut known.next_lines, bytes.len() - after.len(), needs_check);
            rest = after;
        }
    }

    #[inline]
    fn count_field(&mut self) -> Result<(), HeadError> {
        self.fields += 1;
        if self.fields > MAX_FIELDS { Err(HeadError::TooManyFields { limit: MAX_FIELDS }) } else { Ok(()) }
    }

    /// Records what a field says about the body and the host.
    #[inline]
    fn record_field(&mut self, name: &[u8], value: &[u8]) -> Result<(), HeadError> {
        if name.eq_ignore_ascii_case(b"content-length") {
            if self.content_length.is_some() {
                return Err(HeadError::Malformed("there is more than one Content-Length"));
            }
            let length = decimal(value.trim_ascii());
            self.content_length =
                Some(length.ok_or(HeadError::Malformed("Content-Length is not a decimal number below 2^63"))?);
        } else if name.eq_ignore_ascii_case(b"host") {
            if std::mem::replace(&mut self.has_host, true) {
                return Err(HeadError::Malformed("there is more than one Host"));
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            self.record_coding(value.trim_ascii())?;
        }
        Ok(())
    }

    /// Records a `Transfer-Encoding`.
    ///
    /// Source: RFC 9112 sections 6.1 and 6.3 (400 unless `chunked` is last and applied once; 501 for an unknown coding).
    fn record_coding(&mut self, value: &[u8]) -> Result<(), HeadError> {
        if std::mem::replace(&mut self.is_chunked, true) {
            return Err(HeadError::Malformed("there is more than one Transfer-Encoding"));
        }
        if self.is_http_1_0 {
            return Err(HeadError::Malformed("HTTP/1.0 does not allow Transfer-Encoding"));
        }
        let is_chunked = |coding: &&[u8]| coding.eq_ignore_ascii_case(b"chunked");
        if is_chunked(&value) {
            return Ok(());
        }
        let mut codings = value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let is_last = codings.next_back().as_ref().is_some_and(is_chunked);
        if !is_last {
            return Err(HeadError::Malformed("Transfer-Encoding does not end in chunked, so the body has no end"));
        }
        let is_coding = |coding: &[u8]| !coding.is_empty() && !is_chunked(&coding);
        Err(if codings.all(is_coding) {
            HeadError::UnknownCoding
        } else {
            HeadError::Malformed("Transfer-Encoding is not a list of codings that ends in one chunked")
        })
    }

    #[inline]
    fn body(&self) -> Result<BodyLength, HeadError> {
        match (self.content_length, self.is_chunked) {
            (Some(_), true) => Err(HeadError::Malformed("there are both Content-Length and Transfer-Encoding")),
            (length, false) => Ok(BodyLength::Known(length.unwrap_or_default())),
            (None, true) => Ok(BodyLength::Chunked),
        }
    }
}

/// Checks a request line, and the one empty line that may precede it (RFC 9112 section 2.2).
#[inline]
fn request_line(bytes: &[u8], is_http_1_0: &mut bool) -> Result<Line, HeadError> {
    const FORM: HeadError =
        HeadError::Malformed("the request line is not a method, a target and a version, separated by single spaces");
    let line = bytes.strip_prefix(b"\r\n").unwrap_or(bytes);
    let skipped = bytes.len() - line.len();
    let method_end = first_outside_token(line);
    let method = match line.get(method_end) {
        Some(b' ') if (1..=MAX_METHOD).contains(&method_end) => line.get(..method_end).unwrap_or_default(),
        None if method_end <= MAX_METHOD => return Ok(Line::Partial),
        // It may be the empty line before the request line.
        Some(_) if bytes == b"\r" => return Ok(Line::Partial),
        Some(b'\n') if method_end <= MAX_METHOD => return Err(BARE_LF),
        _ => return Err(HeadError::Malformed("the request does not begin with a method and a space")),
    };
    let target_start = method_end + 1;
    let rest = line.get(target_start..).unwrap_or_default();
    let target_end = first_outside_target(rest);
    let target = rest.get(..target_end).unwrap_or_default();
    match rest.get(target_end) {
        None => return Ok(Line::Partial),
        Some(b' ') if target_end > 0 => {}
        Some(b' ' | b'\t' | b'\r' | b'\n') => return Err(FORM),
        Some(b'#') => return Err(HeadError::Malformed("the request target has a fragment; encode `#` as %23")),
        Some(_) => return Err(HeadError::Malformed("the request target has characters that must be percent-encoded")),
    }
    if target.first() != Some(&b'/') || method == b"CONNECT" {
        check_other_form(method, target)?;
    }
    let version = rest.get(target_end + 1..).unwrap_or_default();
    let Some((version, end)) = version.split_at_checked(8) else {
        let versions = [b"HTTP/1.1".as_slice(), b"HTTP/1.0"];
        return if versions.iter().any(|known| known.starts_with(version)) {
            Ok(Line::Partial)
        } else {
            Err(bad_version(version))
        };
    };
    match version {
        b"HTTP/1.1" => {}
        b"HTTP/1.0" => *is_http_1_0 = true,
        _ => return Err(bad_version(version)),
    }
    match end {
        [b'\r', b'\n', ..] => Ok(Line::Next(skipped + target_start + target_end + 1 + 8 + 2)),
        [] | [b'\r'] => Ok(Line::Partial),
        [b'\n', ..] => Err(BARE_LF),
        [b'\r', ..] => Err(BARE_CR),
        _ => Err(FORM),
    }
}

const BARE_LF: HeadError = HeadError::Malformed("a line ends in LF alone; lines end in CR LF");
const BARE_CR: HeadError = HeadError::Malformed("a CR is not followed by LF");

/// Checks a target that is not a path: an absolute URI, or `*` (RFC 9112 section 3.2).
#[cold]
fn check_other_form(method: &[u8], target: &[u8]) -> Result<(), HeadError> {
    if method == b"CONNECT" {
        return Err(HeadError::Malformed("the gateway is not a tunnel and does not accept CONNECT"));
    }
    if target == b"*" && method == b"OPTIONS" {
        return Ok(());
    }
    let malformed = HeadError::Malformed("the request target is neither a path nor an http or https URI with a host");
    let uri = http::Uri::try_from(target).map_err(|_why| malformed)?;
    let authority = uri.authority().ok_or(malformed)?.as_str();
    // `http::Uri` drops or rewrites parts of invalid URIs, so its path is compared with the sent one.
    let length = uri.scheme_str().map_or(0, str::len) + 3 + authority.len();
    let path = target.get(length..).unwrap_or_default();
    let parsed = uri.path_and_query().map(http::uri::PathAndQuery::as_str).unwrap_or_default();
    let is_whole = path == parsed.as_bytes() || (path.is_empty() && parsed == "/");
    let is_http = matches!(uri.scheme_str(), Some("http" | "https"));
    if is_http && is_whole && !authority.contains('@') { Ok(()) } else { Err(malformed) }
}

#[cold]
fn bad_value(found: u8) -> HeadError {
    match found {
        b'\n' => BARE_LF,
        b'\r' => BARE_CR,
        _ => HeadError::Malformed("a header value has a control character"),
    }
}

#[cold]
fn bad_name(found: u8, at: usize) -> HeadError {
    match found {
        b' ' | b'\t' if at == 0 => HeadError::Malformed("a header line is folded, which HTTP/1.1 does not allow"),
        b' ' | b'\t' => HeadError::Malformed("there is white space before the colon of a header"),
        b'\n' => BARE_LF,
        b'\r' if at == 0 => BARE_CR,
        b'\r' => HeadError::Malformed("a header line has no colon"),
        b':' => HeadError::Malformed("a header line has no name"),
        _ => HeadError::Malformed("a header name has an invalid character"),
    }
}

#[cold]
fn bad_version(found: &[u8]) -> HeadError {
    if found.starts_with(b"HTTP/") {
        HeadError::Malformed("the version is not HTTP/1.1 or HTTP/1.0")
    } else {
        HeadError::Malformed("the request line does not end in a version, or the target has a space; encode it as %20")
    }
}

/// Parses a decimal number that consists of digits only and fits the length of a body.
fn decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    let number = digits.iter().try_fold(0_u64, |number, digit| {
        let digit = if digit.is_ascii_digit() { u64::from(digit - b'0') } else { return None };
        number.checked_mul(10)?.checked_add(digit)
    });
    number.filter(|number| *number <= i64::MAX.cast_unsigned())
}

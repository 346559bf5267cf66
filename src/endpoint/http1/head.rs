//! Writes the heads of requests and parses the heads of responses. Does no I/O.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use hyper::ext::ReasonPhrase;

use super::super::recycler::Recycler;
use super::error::Http1Error;
use super::framing::{Chunk, Decoder};
use super::upload::Length;

/// The number of header lines that are parsed without a heap allocation.
const STACK_LINES: usize = 100;
/// The maximum number of header lines of a response. Chosen: more than servers send. The length of the head is limited as well.
const MAX_LINES: usize = 1024;

/// A function that is called with each header line.
pub type HeaderVisitor<'a> = dyn FnMut(&HeaderName, &HeaderValue) + 'a;

/// The head of a request without the headers that frame its body.
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// The path and query, as they are sent.
    pub target: &'a str,
    /// Calls the visitor with each header line, including `Host`.
    pub lines: &'a dyn Fn(&mut HeaderVisitor<'_>),
    /// Returns whether to skip a response header while parsing, which is cheaper than to remove it later.
    pub unwanted: fn(&HeaderName) -> bool,
}

/// Writes the head of a request, including the header that frames a body of this length.
///
/// Source: RFC 9112 sections 3 and 5.
pub(super) fn write(buffer: &mut Vec<u8>, head: &RequestHead<'_>, length: Length) {
    for part in [head.method.as_str(), " ", head.target, " HTTP/1.1\r\n"] {
        buffer.extend_from_slice(part.as_bytes());
    }
    (head.lines)(&mut |name, value| {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            buffer.extend_from_slice(part);
        }
    });
    match length {
        Length::Known(0) if !anticipates_body(head.method) => {}
        Length::Known(length) => {
            buffer.extend_from_slice(b"content-length: ");
            buffer.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            buffer.extend_from_slice(b"\r\n");
        }
        Length::Unknown => buffer.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    buffer.extend_from_slice(b"\r\n");
}

/// Returns whether servers expect a body with this method. They may reject a request that does not declare an empty one (411).
///
/// Source: RFC 9110 section 8.6.
fn anticipates_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// The head of a response, with the decoder of its body.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) response: Response<()>,
    pub(super) body: Decoder,
    /// Whether the endpoint keeps the connection open after the response.
    pub(super) keeps_alive: bool,
}

/// Parses the head of the response to a request with this method. Returns the head and its length in bytes; `None` while it is
/// incomplete. Skips interim responses (1xx) and `unwanted` headers. Header values share the memory of `input`.
///
/// # Errors
/// [`Http1Error`] if the head is not HTTP/1.x or does not state unambiguously where the body ends.
pub(super) fn parse(
    input: &Bytes,
    method: &Method,
    unwanted: fn(&HeaderName) -> bool,
    recycler: &Recycler,
) -> Result<Option<(usize, Head)>, Http1Error> {
    let parser = Parser { input, method, unwanted, recycler };
    let mut start = 0;
    loop {
        let mut lines = [const { MaybeUninit::uninit() }; STACK_LINES];
        let parsed = match parser.parse_one(start, &mut lines) {
            Err(Http1Error::Syntax(httparse::Error::TooManyHeaders)) => parser.parse_many_lines(start),
            parsed => parsed,
        };
        match parsed? {
            Parsed::Incomplete => return Ok(None),
            Parsed::Interim(length) => start += length,
            Parsed::Final(length, head) => return Ok(Some((start + length, head))),
        }
    }
}

/// Returns whether a head may end within the last `new` bytes of the input. It saves parsing a long head again for each byte that
/// arrives.
#[cold]
pub(super) fn may_be_complete(input: &[u8], new: usize) -> bool {
    // An empty line ends a head, so its line end follows that of the previous line.
    let from = input.len().saturating_sub(new + 2);
    let new = input.get(from..).unwrap_or_default();
    new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
}

struct Parser<'a> {
    input: &'a Bytes,
    method: &'a Method,
    unwanted: fn(&HeaderName) -> bool,
    recycler: &'a Recycler,
}

/// The result of parsing one head.
enum Parsed {
    /// The head is incomplete.
    Incomplete,
    /// The length of the head of an interim response.
    Interim(usize),
    /// The length and the head of the final response.
    Final(usize, Head),
}

impl Parser<'_> {
    /// Parses one head that begins at `start`.
    #[inline]
    fn parse_one<'a>(
        &'a self,
        start: usize,
        lines: &mut [MaybeUninit<httparse::Header<'a>>],
    ) -> Result<Parsed, Http1Error> {
        let rest = self.input.get(start..).unwrap_or_default();
        let mut found = httparse::Response::new(&mut []);
        let mut parser = httparse::ParserConfig::default();
        // A proxy removes white space before the colon (RFC 9112 section 5.1).
        parser.allow_spaces_after_header_name_in_responses(true);
        let parsed = parser.parse_response_with_uninit_headers(&mut found, rest, lines);
        let httparse::Status::Complete(length) = parsed.map_err(Http1Error::Syntax)? else {
            return Ok(Parsed::Incomplete);
        };
        let status = StatusCode::from_u16(found.code.unwrap_or_default());
        let status = status.map_err(|_invalid| Http1Error::Syntax(httparse::Error::Status))?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Http1Error::Framing("it switches to another protocol, which the gateway did not request"));
        }
        if status.is_informational() {
            return Ok(Parsed::Interim(length));
        }
        let mut head = HeadBuilder::new(found.version == Some(1), self.recycler.take_map());
        for line in found.headers.iter() {
            head.add_line(line.name, self.input.slice_ref(line.value), self.unwanted)?;
        }
        Ok(Parsed::Final(length, head.build(status, found.reason.unwrap_or_default(), self.method)?))
    }

    #[cold]
    fn parse_many_lines(&self, start: usize) -> Result<Parsed, Http1Error> {
        self.parse_one(start, &mut vec![MaybeUninit::uninit(); MAX_LINES])
    }
}

/// A head that is built line by line.
#[derive(Default)]
struct HeadBuilder {
    headers: HeaderMap,
    is_http11: bool,
    length: Option<u64>,
    coding: Coding,
    /// Whether `Connection` has `close`.
    has_close: bool,
    /// Whether `Connection` has `keep-alive`.
    has_keep_alive: bool,
}

/// The transfer codings of a response, from all of its `Transfer-Encoding` lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    /// No transfer coding.
    #[default]
    Identity,
    /// `chunked`, once.
    Chunked,
    /// Another coding, or more than one. The body could be forwarded only after decoding.
    Unknown,
}

impl Coding {
    fn and(self, line: &HeaderValue) -> Self {
        // A list may have empty elements, but not be empty (RFC 9110 section 5.6.1.2).
        let mut codings = tokens(line).filter(|coding| !coding.is_empty());
        let is_chunked = codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
        let is_only = self == Self::Identity && codings.next().is_none();
        if is_chunked && is_only { Self::Chunked } else { Self::Unknown }
    }
}

impl HeadBuilder {
    fn new(is_http11: bool, headers: HeaderMap) -> Self {
        Self { headers, is_http11, ..Self::default() }
    }

    fn add_line(&mut self, name: &str, value: Bytes, unwanted: fn(&HeaderName) -> bool) -> Result<(), Http1Error> {
        let name = HeaderName::from_bytes(name.as_bytes());
        let name = name.map_err(|_invalid| Http1Error::Syntax(httparse::Error::HeaderName))?;
        let value = HeaderValue::from_maybe_shared(value);
        let mut value = value.map_err(|_invalid| Http1Error::Syntax(httparse::Error::HeaderValue))?;
        if name == CONTENT_LENGTH {
            let length = if let Some(length) = parse_length(value.as_bytes()) {
                length
            } else {
                let length = parse_lengths(&value).ok_or(Http1Error::Framing("a `Content-Length` is not a number"))?;
                value = length.into();
                length
            };
            match self.length {
                None => self.length = Some(length),
                // A repeated line with the same length is dropped.
                Some(known) if known == length => return Ok(()),
                Some(_) => return Err(Http1Error::Framing("it has two different lengths")),
            }
        } else if name == TRANSFER_ENCODING {
            self.coding = self.coding.and(&value);
        } else if name == CONNECTION {
            self.has_close |= has_token(&value, b"close");
            self.has_keep_alive |= has_token(&value, b"keep-alive");
        }
        if !unwanted(&name) {
            self.headers.append(name, value);
        }
        Ok(())
    }

    fn build(mut self, status: StatusCode, reason: &str, method: &Method) -> Result<Head, Http1Error> {
        let body = self.decoder(status, method)?;
        if status == StatusCode::NO_CONTENT && self.length.is_some() {
            // A 204 must not have a `Content-Length` (RFC 9110 section 8.6).
            self.headers.remove(CONTENT_LENGTH);
        }
        let ends_with_connection = body == Decoder::UntilClose;
        let keeps_alive = !self.has_close && !ends_with_connection && (self.is_http11 || self.has_keep_alive);
        let mut response = Response::new(());
        *response.status_mut() = status;
        *response.headers_mut() = self.headers;
        // hyper's server writes the canonical reason phrase unless another one is set.
        if status.canonical_reason() != Some(reason)
            && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
        {
            response.extensions_mut().insert(reason);
        }
        Ok(Head { response, body, keeps_alive })
    }

    /// Returns the decoder that determines where the body ends. Rejects the ambiguous framing that a client may repair.
    ///
    /// Source: RFC 9112 section 6.3.
    fn decoder(&self, status: StatusCode, method: &Method) -> Result<Decoder, Http1Error> {
        if *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Ok(Decoder::Ended);
        }
        match (self.coding, self.length) {
            (Coding::Identity, Some(length)) => Ok(Decoder::of_length(length)),
            (Coding::Identity, None) => Ok(Decoder::UntilClose),
            (_, Some(_)) => Err(Http1Error::Framing("it has both `Content-Length` and `Transfer-Encoding`")),
            (_, None) if !self.is_http11 => {
                Err(Http1Error::Framing("it has a `Transfer-Encoding`, which HTTP/1.0 does not support"))
            }
            (Coding::Chunked, None) => Ok(Decoder::Chunked(Chunk::Size)),
            (Coding::Unknown, None) => Err(Http1Error::TransferCoding),
        }
    }
}

/// Parses a list that repeats one number.
///
/// Source: RFC 9110 section 8.6.
#[cold]
fn parse_lengths(value: &HeaderValue) -> Option<u64> {
    let mut lengths = tokens(value).map(parse_length);
    let first = lengths.next()??;
    lengths.all(|length| length == Some(first)).then_some(first)
}

/// Parses a number that consists of digits only, without sign or white space.
fn parse_length(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    if is_number { std::str::from_utf8(value).ok()?.parse().ok() } else { None }
}

fn tokens(value: &HeaderValue) -> impl DoubleEndedIterator<Item = &[u8]> {
    value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii)
}

fn has_token(value: &HeaderValue, token: &[u8]) -> bool {
    tokens(value).any(|found| found.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_empty_line_may_complete_a_head() {
        let head = b"HTTP/1.1 200 OK\r\na: b\r\n\r\n";
        for length in 1..=head.len() {
            assert_eq!(may_be_complete(&head[..length], 1), length == head.len(), "{length}");
        }
        assert!(may_be_complete(head, 4) && may_be_complete(b"HTTP/1.1 200 OK\n\n", 1));
        assert!(!may_be_complete(b"HTTP/1.1 200 OK\n\nbody", 1), "the empty line was read earlier");
    }
}

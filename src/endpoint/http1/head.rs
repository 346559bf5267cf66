//! Heads of messages: writes that of a request, reads that of an answer. Pure.

use std::mem::MaybeUninit;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode};
use hyper::ext::ReasonPhrase;

use super::super::recycler::Recycler;
use super::error::Http1Error;
use super::framing::{Chunk, Decoder};
use super::upload::Length;

/// The header lines of an answer that are read without more memory.
const USUAL_LINES: usize = 100;
/// The most header lines of an answer. Chosen: no server sends as many; the size of the head is limited as well.
const MAX_LINES: usize = 1024;

/// Takes header lines, one after the other.
pub type HeaderVisitor<'a> = dyn FnMut(&HeaderName, &HeaderValue) + 'a;

/// What is said in the head of a request, beside what frames its body.
pub struct RequestHead<'a> {
    /// The method.
    pub method: &'a Method,
    /// Path and query, as they go onto the wire.
    pub target: &'a str,
    /// Calls what it is given with each header line, `Host` among them.
    pub lines: &'a dyn Fn(&mut HeaderVisitor<'_>),
    /// Whether a header of the answer may be left out when it is read, which is cheaper than to remove it.
    pub unwanted: fn(&HeaderName) -> bool,
}

/// Writes the head of a request, and what frames a body of that length.
///
/// Source: RFC 9112 sections 3 and 5.
pub(super) fn write(memory: &mut Vec<u8>, head: &RequestHead<'_>, length: Length) {
    for part in [head.method.as_str(), " ", head.target, " HTTP/1.1\r\n"] {
        memory.extend_from_slice(part.as_bytes());
    }
    (head.lines)(&mut |name, value| {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            memory.extend_from_slice(part);
        }
    });
    match length {
        Length::Known(0) if !anticipates_body(head.method) => {}
        Length::Known(length) => {
            memory.extend_from_slice(b"content-length: ");
            memory.extend_from_slice(itoa::Buffer::new().format(length).as_bytes());
            memory.extend_from_slice(b"\r\n");
        }
        Length::Unknown => memory.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    memory.extend_from_slice(b"\r\n");
}

/// Whether a server expects a body, and may refuse the request (411) that does not say that there is none.
///
/// Source: RFC 9110 section 8.6.
fn anticipates_body(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// The head of an answer, and what it says about what follows.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) answer: Response<()>,
    pub(super) body: Decoder,
    /// Whether the connection may carry another request.
    pub(super) keeps_alive: bool,
}

/// Reads the head of an answer to a request with this method. Returns its length in bytes, too; `None` while it is not all
/// there. Interim answers (1xx) are passed over, and so are headers that are `unwanted`. Values share the memory of `input`.
///
/// # Errors
/// It is not HTTP/1.x, or does not say clearly where its body ends.
pub(super) fn read(
    input: &Bytes,
    method: &Method,
    unwanted: fn(&HeaderName) -> bool,
    recycler: &Recycler,
) -> Result<Option<(usize, Head)>, Http1Error> {
    let reader = Reader { input, method, unwanted, recycler };
    let mut start = 0;
    loop {
        let mut lines = [const { MaybeUninit::uninit() }; USUAL_LINES];
        let step = match reader.step(start, &mut lines) {
            Err(Http1Error::NotHttp(httparse::Error::TooManyHeaders)) => reader.step_of_many_lines(start),
            step => step,
        };
        match step? {
            Step::Incomplete => return Ok(None),
            Step::Interim(length) => start += length,
            Step::Final(length, head) => return Ok(Some((start + length, head))),
        }
    }
}

/// Returns whether a head may end within the `new` last bytes of the input. A long head that comes byte by byte is not parsed
/// each time.
#[cold]
pub(super) fn may_end(input: &[u8], new: usize) -> bool {
    // The last line is empty: its end follows that of the line before.
    let from = input.len().saturating_sub(new + 2);
    let new = input.get(from..).unwrap_or_default();
    new.windows(2).any(|pair| pair == b"\n\n") || new.windows(3).any(|three| three == b"\n\r\n")
}

struct Reader<'a> {
    input: &'a Bytes,
    method: &'a Method,
    unwanted: fn(&HeaderName) -> bool,
    recycler: &'a Recycler,
}

/// What stands at some position of the input; with its length.
enum Step {
    /// The beginning of a head.
    Incomplete,
    /// The head of an interim answer.
    Interim(usize),
    /// The head of the final answer.
    Final(usize, Head),
}

impl Reader<'_> {
    #[inline]
    fn step<'a>(&'a self, start: usize, lines: &mut [MaybeUninit<httparse::Header<'a>>]) -> Result<Step, Http1Error> {
        let rest = self.input.get(start..).unwrap_or_default();
        let mut found = httparse::Response::new(&mut []);
        let mut parser = httparse::ParserConfig::default();
        // A proxy removes it (RFC 9112 section 5.1).
        parser.allow_spaces_after_header_name_in_responses(true);
        let parsed = parser.parse_response_with_uninit_headers(&mut found, rest, lines);
        let httparse::Status::Complete(length) = parsed.map_err(Http1Error::NotHttp)? else {
            return Ok(Step::Incomplete);
        };
        let status = StatusCode::from_u16(found.code.unwrap_or_default());
        let status = status.map_err(|_not_one| Http1Error::NotHttp(httparse::Error::Status))?;
        if status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Http1Error::Framing("it switches to a protocol that was not asked for"));
        }
        if status.is_informational() {
            return Ok(Step::Interim(length));
        }
        let mut head = Reading::new(found.version == Some(1), self.recycler.map());
        for line in found.headers.iter() {
            head.line(line.name, self.input.slice_ref(line.value), self.unwanted)?;
        }
        Ok(Step::Final(length, head.ended(status, found.reason.unwrap_or_default(), self.method)?))
    }

    #[cold]
    fn step_of_many_lines(&self, start: usize) -> Result<Step, Http1Error> {
        self.step(start, &mut vec![MaybeUninit::uninit(); MAX_LINES])
    }
}

/// A head that is being read line by line.
#[derive(Default)]
struct Reading {
    headers: HeaderMap,
    is_http11: bool,
    length: Option<u64>,
    coding: Coding,
    closes: bool,
    asks_to_stay: bool,
}

/// The transfer codings of an answer, from all of its `Transfer-Encoding` lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Coding {
    /// There is none.
    #[default]
    Identity,
    /// `chunked`, once.
    Chunked,
    /// Another, or more than one: the body could be passed on only after it was decoded.
    Unknown,
}

impl Coding {
    fn and(self, line: &HeaderValue) -> Self {
        // A list may have empty elements (RFC 9110 section 5.6.1.2), but not be empty.
        let mut codings = tokens(line).filter(|coding| !coding.is_empty());
        let is_chunked = codings.next().is_some_and(|coding| coding.eq_ignore_ascii_case(b"chunked"));
        let is_only = self == Self::Identity && codings.next().is_none();
        if is_chunked && is_only { Self::Chunked } else { Self::Unknown }
    }
}

impl Reading {
    fn new(is_http11: bool, headers: HeaderMap) -> Self {
        Self { headers, is_http11, ..Self::default() }
    }

    fn line(&mut self, name: &str, value: Bytes, unwanted: fn(&HeaderName) -> bool) -> Result<(), Http1Error> {
        let name = HeaderName::from_bytes(name.as_bytes());
        let name = name.map_err(|_invalid| Http1Error::NotHttp(httparse::Error::HeaderName))?;
        let value = HeaderValue::from_maybe_shared(value);
        let mut value = value.map_err(|_invalid| Http1Error::NotHttp(httparse::Error::HeaderValue))?;
        if name == CONTENT_LENGTH {
            let length = if let Some(length) = parse_length(value.as_bytes()) {
                length
            } else {
                let length = parse_lengths(&value).ok_or(Http1Error::Framing("its length is not a number"))?;
                value = length.into();
                length
            };
            match self.length {
                None => self.length = Some(length),
                // The same once more says nothing new, and goes no further.
                Some(known) if known == length => return Ok(()),
                Some(_) => return Err(Http1Error::Framing("it has two lengths")),
            }
        } else if name == TRANSFER_ENCODING {
            self.coding = self.coding.and(&value);
        } else if name == CONNECTION {
            self.closes |= has_token(&value, b"close");
            self.asks_to_stay |= has_token(&value, b"keep-alive");
        }
        if !unwanted(&name) {
            self.headers.append(name, value);
        }
        Ok(())
    }

    fn ended(mut self, status: StatusCode, reason: &str, method: &Method) -> Result<Head, Http1Error> {
        let body = self.body(status, method)?;
        if status == StatusCode::NO_CONTENT && self.length.is_some() {
            // It has none (RFC 9110 section 8.6).
            self.headers.remove(CONTENT_LENGTH);
        }
        let ends_with_connection = body == Decoder::UntilClose;
        let keeps_alive = !self.closes && !ends_with_connection && (self.is_http11 || self.asks_to_stay);
        let mut answer = Response::new(());
        *answer.status_mut() = status;
        *answer.headers_mut() = self.headers;
        // The server writes it; most are the usual words.
        if status.canonical_reason() != Some(reason)
            && let Ok(reason) = ReasonPhrase::try_from(reason.as_bytes())
        {
            answer.extensions_mut().insert(reason);
        }
        Ok(Head { answer, body, keeps_alive })
    }

    /// Says where the body ends.
    ///
    /// Source: RFC 9112 section 6.3. What it leaves to be repaired is refused here.
    fn body(&self, status: StatusCode, method: &Method) -> Result<Decoder, Http1Error> {
        if *method == Method::HEAD || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            return Ok(Decoder::Ended);
        }
        match (self.coding, self.length) {
            (Coding::Identity, Some(length)) => Ok(Decoder::of_length(length)),
            (Coding::Identity, None) => Ok(Decoder::UntilClose),
            (_, Some(_)) => Err(Http1Error::Framing("it has a length and a transfer encoding")),
            (_, None) if !self.is_http11 => Err(Http1Error::Framing("HTTP/1.0 does not have transfer encodings")),
            (Coding::Chunked, None) => Ok(Decoder::Chunked(Chunk::Size)),
            (Coding::Unknown, None) => Err(Http1Error::Coding),
        }
    }
}

/// Reads a list of the same number, again and again.
///
/// Source: RFC 9110 section 8.6.
#[cold]
fn parse_lengths(value: &HeaderValue) -> Option<u64> {
    let mut lengths = tokens(value).map(parse_length);
    let first = lengths.next()??;
    lengths.all(|length| length == Some(first)).then_some(first)
}

/// Reads digits and nothing else: no sign, no blanks, no list.
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

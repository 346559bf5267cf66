//! Fuzz target for the framing of requests.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use httparse::{EMPTY_HEADER, Header, Status};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::runtime::{Builder, Runtime};
use tokio::task::LocalSet;

use super::framing::{Framing, Rest};
use super::head::{KnownHead, MAX_FIELDS};
use super::{HeadError, Http1Check, PLACEHOLDER_HEAD};
use crate::serve::caller_stream::{ByteFilter as _, Source};
use crate::serve::listeners::ListenerId;
use crate::serve::open_connections::OpenConnections;

/// Reads the requests of a connection from `size size buffer wire`. Asserts that the result does not depend on how the bytes are
/// split, and that each request ends where `httparse` and RFC 9112 section 6.3 say.
pub(crate) fn requests(data: &[u8]) {
    let Some((&[size, other, buffer], wire)) = data.split_first_chunk() else { return };
    let sizes = [size, other].map(|size| usize::from(size).max(1));
    let whole = RUNTIME.with(|runtime| {
        LocalSet::new().block_on(runtime, async {
            let connections = OpenConnections::for_tests(Duration::from_secs(60));
            let whole = read_all(&connections, wire, [wire.len().max(1); 2], wire.len() + PLACEHOLDER_HEAD.len());
            for (sizes, buffer) in [([1, 1], wire.len().max(1)), (sizes, usize::from(buffer) + 1)] {
                assert_eq!(read_all(&connections, wire, sizes, buffer), whole, "in pieces of {sizes:?} into {buffer}");
            }
            whole
        })
    });
    assert!(wire.starts_with(&whole.passed), "the passed bytes are not the beginning of the input");
    check_framing(&whole.passed);
}

thread_local! {
    static RUNTIME: Runtime = Builder::new_current_thread().enable_time().build().unwrap_or_else(|err| panic!("{err}"));
}

/// The bytes that pass, and how the connection ends.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    passed: Vec<u8>,
    end: End,
}

#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The end of the input.
    OfInput,
    Rejected(HeadError),
    Malformed(String),
}

/// Reads a connection to its end, in pieces of alternating sizes and at most `buffer` bytes at once.
fn read_all(connections: &Rc<OpenConnections>, wire: &[u8], sizes: [usize; 2], buffer: usize) -> Outcome {
    let connection = connections.add(ListenerId::default());
    let mut source = Source::new(Vec::new(), Pieces { left: wire, sizes });
    let mut check = Http1Check::new(Rc::clone(&connection));
    let (mut passed, mut memory) = (Vec::new(), vec![0; buffer]);
    loop {
        let mut into = ReadBuf::new(&mut memory);
        match check.poll_read(&mut source, &mut Context::from_waker(Waker::noop()), &mut into) {
            Poll::Ready(Ok(())) if into.filled().is_empty() => return Outcome { passed, end: End::OfInput },
            Poll::Ready(Ok(())) => passed.extend_from_slice(into.filled()),
            Poll::Ready(Err(err)) => return Outcome { passed, end: End::Malformed(err.to_string()) },
            Poll::Pending => {
                let Some(error) = connection.take_head_error() else { panic!("it is pending without a rejected head") };
                assert!(passed.ends_with(PLACEHOLDER_HEAD), "there is no placeholder for the rejected head");
                passed.truncate(passed.len() - PLACEHOLDER_HEAD.len());
                return Outcome { passed, end: End::Rejected(error) };
            }
        }
    }
}

/// Asserts that [`Framing`] tracks the passed requests correctly. The bytes end with a head or within a body.
fn check_framing(passed: &[u8]) {
    let (mut framing, mut known, mut rest) = (Framing::Head, KnownHead::default(), passed);
    while !rest.is_empty() {
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let mut request = httparse::Request::new(&mut fields);
        let Ok(Status::Complete(length)) = request.parse(rest) else { panic!("passed an invalid head: {rest:?}") };
        let (head, after) = rest.split_at(length);
        track(&mut framing, head, &mut known);
        let body = body_length(request.headers, after);
        assert_eq!(framing == Framing::Head, body == Some(0), "{framing:?} after the head, {body:?} by its fields");
        match body {
            Some(0) => rest = after,
            Some(length) => {
                let (body, next) = after.split_at(length);
                let Some((last, body)) = body.split_last() else { return };
                track(&mut framing, body, &mut known);
                assert_ne!(framing, Framing::Head, "a body ends too early");
                track(&mut framing, &[*last], &mut known);
                assert_eq!(framing, Framing::Head, "a body ends too late");
                rest = next;
            }
            None => {
                track(&mut framing, after, &mut known);
                assert_ne!(framing, Framing::Head, "an incomplete body ends");
                return;
            }
        }
    }
}

fn track(framing: &mut Framing, bytes: &[u8], known: &mut KnownHead) {
    let (passed, rest) = framing.track(bytes, known);
    assert!(passed == bytes.len() && matches!(rest, Rest::Nothing), "{rest:?} after {passed} passed bytes");
}

/// Returns the length of the body at the start of `after`; `None` if it is incomplete.
fn body_length(fields: &[Header<'_>], after: &[u8]) -> Option<usize> {
    let named = |name: &str| fields.iter().filter(|field| field.name.eq_ignore_ascii_case(name)).collect::<Vec<_>>();
    let (lengths, codings) = (named(CONTENT_LENGTH.as_str()), named(TRANSFER_ENCODING.as_str()));
    assert!(lengths.len() + codings.len() <= 1, "{lengths:?} and {codings:?}");
    if let Some(coding) = codings.first() {
        assert!(coding.value.trim_ascii().eq_ignore_ascii_case(b"chunked"), "{coding:?}");
        return chunked_length(after);
    }
    let Some(length) = lengths.first() else { return Some(0) };
    let digits = std::str::from_utf8(length.value).map(str::trim_ascii).unwrap_or_default();
    assert!(digits.bytes().all(|digit| digit.is_ascii_digit()), "{length:?}");
    digits.parse().ok().filter(|length| *length <= after.len())
}

fn chunked_length(after: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let Ok(Status::Complete((line, size))) = httparse::parse_chunk_size(after.get(at..)?) else { return None };
        at += line;
        if size == 0 {
            break;
        }
        let end = at.checked_add(usize::try_from(size).ok()?)?;
        at = after.get(end..)?.starts_with(b"\r\n").then_some(end + 2)?;
    }
    let mut trailers = [EMPTY_HEADER; MAX_FIELDS];
    match httparse::parse_headers(after.get(at..)?, &mut trailers) {
        Ok(Status::Complete((length, _))) => Some(at + length),
        Ok(Status::Partial) | Err(_) => None,
    }
}

/// A caller that sends bytes in pieces and then closes its side.
struct Pieces<'a> {
    left: &'a [u8],
    sizes: [usize; 2],
}

impl AsyncRead for Pieces<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let [size, _] = self.sizes;
        self.sizes.reverse();
        let (piece, left) = self.left.split_at(size.min(self.left.len()).min(into.remaining()));
        into.put_slice(piece);
        self.left = left;
        Poll::Ready(Ok(()))
    }
}

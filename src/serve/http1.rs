//! Checks a caller's HTTP/1.x bytes as they were sent, before hyper parses and repairs them.
//!
//! Each head is checked in hyper's own read buffer (`head`), and each body is tracked to the start of the next head
//! (`framing`). A partial head is held back until it is complete, so hyper reads only heads that passed.
//!
//! hyper reads a small valid head in place of a rejected one, and the handler gets the [`HeadError`]. So hyper never responds on
//! its own: the handler answers such a request like any other, with a request id, a log line and a count. A malformed body ends
//! in an error. hyper reads nothing that follows either.
//!
//! A caller that half-closes the connection after a complete request still gets its response.
//!
//! HTTP/2 has no such check: h2 (0.4.20) parses `:path` into an `http::Uri`, which drops what follows a `#`. h2 resets
//! the stream of any other target that `http::Uri` does not accept.

mod chunked;
mod framing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod head;
mod head_error;
mod scan;
#[cfg(test)]
mod tests;

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, ReadBuf};
use tokio::time::Sleep;

use super::caller_stream::{ByteFilter, Source};
use super::open_connections::Connection;
use framing::{Framing, Rest};
use head::{HeadCheck, KnownHead, MAX_HEAD};
pub use head_error::HeadError;

/// The time that a response may take after the caller has half-closed the connection. TCP does not distinguish a half-closed
/// connection from a closed one until something is written. Chosen: longer than most calls take, short enough that abandoned
/// calls do not accumulate.
const HALF_CLOSED_TIME: Duration = Duration::from_secs(5);
/// How long the input of a rejected caller is read and dropped. Closing with unread bytes resets the connection, so that the
/// caller cannot read its response.
const LINGER_TIME: Duration = Duration::from_secs(1);
/// The most bytes of such input that are dropped.
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// Checks the bytes that are read from an HTTP/1.x connection.
pub(super) struct Http1Check {
    connection: Rc<Connection>,
    framing: Framing,
    known_head: KnownHead,
    /// `None` while each head is valid and complete in one read.
    slow_path: Option<Box<SlowPath>>,
}

/// The state of a connection whose bytes cannot be passed on in hyper's read buffer.
struct SlowPath {
    /// The bytes to pass on next.
    ready: Bytes,
    /// A partial head.
    held: Vec<u8>,
    /// The progress of its check.
    check: HeadCheck,
    next: Next,
}

/// What follows the bytes that are ready.
enum Next {
    /// Bytes that are read from the connection.
    Read,
    /// The placeholder of a rejected head.
    RejectHead(HeadError),
    /// The error of a malformed body.
    FailBody(&'static str),
    /// Nothing: a head or a body was rejected.
    Rejected(Linger),
    /// The end of the connection, when all requests have their responses or this time has passed.
    HalfClosed(Pin<Box<Sleep>>),
}

/// Reads and drops the input of a rejected caller.
#[derive(Default)]
struct Linger {
    dropped: usize,
    until: Option<Pin<Box<Sleep>>>,
}

impl Http1Check {
    pub(super) fn new(connection: Rc<Connection>) -> Self {
        Self { connection, framing: Framing::Head, known_head: KnownHead::default(), slow_path: None }
    }

    /// Removes from the read buffer the bytes that may not be passed on. `before` is where the bytes of this read begin.
    #[cold]
    fn take_back<S: AsyncRead + Unpin>(
        &mut self,
        source: &mut Source<S>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
        before: usize,
        (passed, rest): (usize, Rest),
    ) -> Poll<io::Result<()>> {
        let end = before + passed;
        let tail = into.filled().get(end..).unwrap_or_default();
        self.slow_path = Some(Box::new(SlowPath::new(Bytes::new(), tail, rest)));
        into.set_filled(end);
        if passed > 0 { Poll::Ready(Ok(())) } else { self.poll_slow_path(source, cx, into) }
    }

    #[cold]
    fn poll_slow_path<S: AsyncRead + Unpin>(
        &mut self,
        source: &mut Source<S>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        while let Some(slow_path) = &mut self.slow_path {
            if slow_path.ready.has_remaining() {
                let length = slow_path.ready.len().min(into.remaining());
                into.put_slice(&slow_path.ready.split_to(length));
                if slow_path.is_finished() {
                    self.slow_path = None;
                }
                return Poll::Ready(Ok(()));
            }
            match &mut slow_path.next {
                Next::Read => {
                    let before = into.filled().len();
                    ready!(Pin::new(&mut *source).poll_read(cx, into))?;
                    let read = into.filled().get(before..).unwrap_or_default();
                    if read.is_empty() {
                        if slow_path.is_rejected_at_end(&mut self.framing, &mut self.known_head) {
                            continue;
                        }
                        return self.poll_end(cx);
                    }
                    slow_path.read(read, &mut self.framing, &mut self.known_head);
                    into.set_filled(before);
                }
                Next::RejectHead(error) => {
                    self.connection.reject_next(*error);
                    slow_path.ready = Bytes::from_static(PLACEHOLDER_HEAD);
                    slow_path.next = Next::Rejected(Linger::default());
                }
                Next::FailBody(why) => {
                    let error = io::Error::new(io::ErrorKind::InvalidData, *why);
                    slow_path.next = Next::Rejected(Linger::default());
                    return Poll::Ready(Err(error));
                }
                // The response is being written, after which the connection ends.
                Next::Rejected(_) => return Poll::Pending,
                Next::HalfClosed(_) => return self.poll_end(cx),
            }
        }
        // The slow path has ended.
        self.poll_read(source, cx, into)
    }

    /// Ends the input: at once, or when all requests have their responses.
    #[cold]
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let has_pending_response = self.connection.has_requests() || self.connection.is_blocked();
        if !has_pending_response || self.framing != Framing::Head {
            return Poll::Ready(Ok(()));
        }
        let slow_path = self.slow_path.get_or_insert_with(|| Box::new(SlowPath::new(Bytes::new(), &[], Rest::Nothing)));
        if !matches!(slow_path.next, Next::HalfClosed(_)) {
            slow_path.next = Next::HalfClosed(Box::pin(tokio::time::sleep(HALF_CLOSED_TIME)));
        }
        let Next::HalfClosed(time) = &mut slow_path.next else { return Poll::Ready(Ok(())) };
        time.as_mut().poll(cx).map(Ok)
    }
}

/// The head that hyper reads in place of a rejected one. The log shows `-` as its method.
const PLACEHOLDER_HEAD: &[u8] = b"- / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";

impl SlowPath {
    fn new(ready: Bytes, tail: &[u8], rest: Rest) -> Self {
        let mut slow_path = Self { ready, held: Vec::new(), check: HeadCheck::default(), next: Next::Read };
        match rest {
            Rest::Nothing => {}
            Rest::PartialHead(_) if tail.len() > MAX_HEAD => {
                slow_path.next = Next::RejectHead(HeadError::TooLarge { size: tail.len() });
            }
            Rest::PartialHead(check) => {
                slow_path.held = tail.to_vec();
                slow_path.check = check;
            }
            Rest::RejectedHead(why) => slow_path.next = Next::RejectHead(why),
            Rest::MalformedBody(why) => slow_path.next = Next::FailBody(why),
        }
        slow_path
    }

    /// Appends the read bytes to the partial head.
    fn read(&mut self, read: &[u8], framing: &mut Framing, known: &mut KnownHead) {
        self.held.extend_from_slice(read);
        // Only complete lines are checked.
        if read.contains(&b'\n') || self.held.len() > MAX_HEAD {
            self.check_held(framing, known);
        }
    }

    /// Checks the incomplete last line of a head after the caller has closed its side. Returns whether the head is rejected, as if
    /// it had arrived in one piece.
    #[cold]
    fn is_rejected_at_end(&mut self, framing: &mut Framing, known: &mut KnownHead) -> bool {
        if !self.held.is_empty() {
            self.check_held(framing, known);
        }
        matches!(self.next, Next::RejectHead(_))
    }

    fn check_held(&mut self, framing: &mut Framing, known: &mut KnownHead) {
        let mut bytes = std::mem::take(&mut self.held);
        let (passed, rest) = framing.track_from(0, &bytes, self.check, known);
        let tail = bytes.split_off(passed);
        *self = Self::new(bytes.into(), &tail, rest);
    }

    /// Returns whether bytes can be passed on in hyper's read buffer again.
    fn is_finished(&self) -> bool {
        self.ready.is_empty() && self.held.is_empty() && matches!(self.next, Next::Read)
    }
}

impl Linger {
    fn poll(&mut self, cx: &mut Context<'_>, source: &mut (impl AsyncRead + Unpin)) -> Poll<io::Result<()>> {
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER_TIME)));
        while self.dropped < LINGER_BYTES && until.as_mut().poll(cx).is_pending() {
            let mut buffer = [0; 4096];
            let mut read = ReadBuf::new(&mut buffer);
            ready!(Pin::new(&mut *source).poll_read(cx, &mut read))?;
            if read.filled().is_empty() {
                break;
            }
            self.dropped += read.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncRead + Unpin> ByteFilter<S> for Http1Check {
    #[inline]
    fn poll_read(
        &mut self,
        source: &mut Source<S>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.slow_path.is_some() {
            return self.poll_slow_path(source, cx, into);
        }
        let before = into.filled().len();
        ready!(Pin::new(&mut *source).poll_read(cx, into))?;
        let read = into.filled().get(before..).unwrap_or_default();
        if read.is_empty() {
            return self.poll_end(cx);
        }
        let tracked = self.framing.track(read, &mut self.known_head);
        if matches!(tracked.1, Rest::Nothing) {
            Poll::Ready(Ok(()))
        } else {
            self.take_back(source, cx, into, before, tracked)
        }
    }

    /// Reads and drops the input of a rejected caller.
    fn poll_linger(&mut self, source: &mut Source<S>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.slow_path.as_deref_mut() {
            Some(SlowPath { next: Next::Rejected(linger), .. }) => linger.poll(cx, source),
            _ => Poll::Ready(Ok(())),
        }
    }
}

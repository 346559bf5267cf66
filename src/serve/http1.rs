//! Checks a caller's HTTP/1.x bytes as they were sent, before hyper parses and repairs them.
//!
//! Each head is checked in hyper's own read buffer (`head`), and each body is followed to the start of the next head
//! (`framing`). A partial head is held back until it is complete, so hyper sees only heads that passed. In place of a refused
//! head, hyper reads a small valid one, and the connection carries the [`HeadError`]: the handler answers such a request like any
//! other, with a request id, a log line and a count, and hyper never answers on its own. A malformed body ends in an error.
//! Nothing that a caller sends after either reaches hyper.
//!
//! A caller that half-closes the connection after a complete request is still answered.
//!
//! HTTP/2 has no such check: h2 (0.4.20) parses `:path` into an `http::Uri`, which cuts it at `#` without a trace. h2 resets
//! the stream for everything else that `http::Uri` does not accept.

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
/// The time and the bytes for which input of a refused caller is dropped, so that it can read its response: closing with
/// unread bytes resets the connection.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// Checks the bytes that are read from an HTTP/1.x connection.
pub(super) struct Http1Check {
    connection: Rc<Connection>,
    framing: Framing,
    known: KnownHead,
    /// `None` while each head is valid and complete in one read.
    slow_path: Option<Box<SlowPath>>,
}

/// The state of a connection whose bytes cannot be passed on in hyper's read buffer.
struct SlowPath {
    /// The bytes to pass on next.
    ready: Bytes,
    /// A partial head, and how far it is checked.
    held: Vec<u8>,
    check: HeadCheck,
    next: Next,
}

/// What follows the bytes that are ready.
enum Next {
    /// Bytes that are read from the connection.
    Read,
    /// The response to a refused head.
    Refuse(HeadError),
    /// The error of a malformed body.
    Break(&'static str),
    /// Nothing: the caller was refused.
    Refused(Linger),
    /// The end of the connection, when pending requests are answered or this time has passed.
    End(Pin<Box<Sleep>>),
}

/// Drops what a refused caller sends.
#[derive(Default)]
struct Linger {
    dropped: usize,
    until: Option<Pin<Box<Sleep>>>,
}

impl Http1Check {
    pub(super) fn new(connection: Rc<Connection>) -> Self {
        Self { connection, framing: Framing::Head, known: KnownHead::default(), slow_path: None }
    }

    /// Removes from the read buffer what may not be passed on of the bytes behind `before`.
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
                if slow_path.is_over() {
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
                        if slow_path.is_refused_at_end(&mut self.framing, &mut self.known) {
                            continue;
                        }
                        return self.poll_end(cx);
                    }
                    slow_path.read(read, &mut self.framing, &mut self.known);
                    into.set_filled(before);
                }
                Next::Refuse(error) => {
                    self.connection.reject_next(*error);
                    slow_path.ready = Bytes::from_static(STAND_IN);
                    slow_path.next = Next::Refused(Linger::default());
                }
                Next::Break(why) => {
                    let broken = io::Error::new(io::ErrorKind::InvalidData, *why);
                    slow_path.next = Next::Refused(Linger::default());
                    return Poll::Ready(Err(broken));
                }
                // The response is being written, after which the connection ends.
                Next::Refused(_) => return Poll::Pending,
                Next::End(_) => return self.poll_end(cx),
            }
        }
        // The slow path has ended.
        self.poll_read(source, cx, into)
    }

    /// Ends the caller's bytes: at once, or when pending requests are answered.
    #[cold]
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let is_answering = self.connection.has_requests() || self.connection.is_blocked();
        if !is_answering || self.framing != Framing::Head {
            return Poll::Ready(Ok(()));
        }
        let slow_path = self.slow_path.get_or_insert_with(|| Box::new(SlowPath::new(Bytes::new(), &[], Rest::Nothing)));
        if !matches!(slow_path.next, Next::End(_)) {
            slow_path.next = Next::End(Box::pin(tokio::time::sleep(HALF_CLOSED_TIME)));
        }
        let Next::End(time) = &mut slow_path.next else { return Poll::Ready(Ok(())) };
        time.as_mut().poll(cx).map(Ok)
    }
}

/// The head that hyper reads in place of a refused one. `-` is its method in the log.
const STAND_IN: &[u8] = b"- / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";

impl SlowPath {
    fn new(ready: Bytes, tail: &[u8], rest: Rest) -> Self {
        let mut slow_path = Self { ready, held: Vec::new(), check: HeadCheck::default(), next: Next::Read };
        match rest {
            Rest::Nothing => {}
            Rest::PartialHead(_) if tail.len() > MAX_HEAD => {
                slow_path.next = Next::Refuse(HeadError::TooLarge { size: tail.len() });
            }
            Rest::PartialHead(check) => {
                slow_path.held = tail.to_vec();
                slow_path.check = check;
            }
            Rest::RefusedHead(why) => slow_path.next = Next::Refuse(why),
            Rest::RefusedBody(why) => slow_path.next = Next::Break(why),
        }
        slow_path
    }

    /// Appends what was read to the partial head.
    fn read(&mut self, read: &[u8], framing: &mut Framing, known: &mut KnownHead) {
        self.held.extend_from_slice(read);
        // Only complete lines are checked.
        if read.contains(&b'\n') || self.held.len() > MAX_HEAD {
            self.check_held(framing, known);
        }
    }

    /// Checks the last line of a head that the caller will not complete. Returns whether the head is refused for it, as it would
    /// be had it arrived in one piece.
    #[cold]
    fn is_refused_at_end(&mut self, framing: &mut Framing, known: &mut KnownHead) -> bool {
        if !self.held.is_empty() {
            self.check_held(framing, known);
        }
        matches!(self.next, Next::Refuse(_))
    }

    fn check_held(&mut self, framing: &mut Framing, known: &mut KnownHead) {
        let mut bytes = std::mem::take(&mut self.held);
        let (passed, rest) = framing.follow_from(0, &bytes, self.check, known);
        let tail = bytes.split_off(passed);
        *self = Self::new(bytes.into(), &tail, rest);
    }

    /// Whether bytes can be passed on in hyper's read buffer again.
    fn is_over(&self) -> bool {
        self.ready.is_empty() && self.held.is_empty() && matches!(self.next, Next::Read)
    }
}

impl Linger {
    fn poll(&mut self, cx: &mut Context<'_>, source: &mut (impl AsyncRead + Unpin)) -> Poll<io::Result<()>> {
        let until = self.until.get_or_insert_with(|| Box::pin(tokio::time::sleep(LINGER_TIME)));
        while self.dropped < LINGER_BYTES && until.as_mut().poll(cx).is_pending() {
            let mut room = [0; 4096];
            let mut read = ReadBuf::new(&mut room);
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
        let followed = self.framing.follow(read, &mut self.known);
        if matches!(followed.1, Rest::Nothing) {
            Poll::Ready(Ok(()))
        } else {
            self.take_back(source, cx, into, before, followed)
        }
    }

    /// Drops what a refused caller sends.
    fn poll_linger(&mut self, source: &mut Source<S>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.slow_path.as_deref_mut() {
            Some(SlowPath { next: Next::Refused(linger), .. }) => linger.poll(cx, source),
            _ => Poll::Ready(Ok(())),
        }
    }
}

//! A caller's HTTP/1.x bytes, judged as they came, before hyper parses and repairs them.
//!
//! Every head is checked in hyper's own read buffer (`head`), and bodies are followed to where the next head begins (`framing`).
//! A head that did not arrive whole is held until it has, so hyper sees only heads that passed. In place of a head that is
//! refused hyper reads a small valid one, and the connection carries the [`Refusal`]: so the request is answered by the handler
//! like every other, with a request id, a log line and a count, and hyper never answers by itself. A body that is malformed
//! ends in an error. Nothing that a caller sends after either reaches hyper.
//!
//! A caller that ends its side of the connection behind a whole request is still answered.
//!
//! HTTP/2 has no such check: h2 (0.4.20) makes an `http::Uri` of `:path` before anybody sees it, and that cuts at `#`. What was
//! cut leaves no trace; everything else that `http::Uri` does not take resets the stream.

mod chunked;
mod framing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod head;
mod refusal;
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
use super::open::Connection;
use framing::{Framing, Rest};
use head::{HeadCheck, KnownHead};
pub use refusal::Refusal;

/// The most of a head that is held while the rest is on its way: what `limits.max_header` may be at most, and less than
/// what hyper buffers.
const MAX_HEAD: usize = 64 * 1024;
/// How long an answer may still take once the caller has ended its side. A caller that is gone looks the same: TCP does not
/// tell a half-closed connection from a closed one until something is written. Chosen: longer than most calls take, short
/// enough that abandoned calls do not pile up.
const HALF_CLOSED_TIME: Duration = Duration::from_secs(5);
/// How long, and how much, is read and dropped of a caller that was refused, so that it can read its answer: closing with
/// unread bytes resets the connection.
const LINGER_TIME: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 4 * 1024 * 1024;

/// The check of what is read from an HTTP/1.x connection.
pub(super) struct Inbound {
    connection: Rc<Connection>,
    framing: Framing,
    known: KnownHead,
    /// `None` while each head is valid and arrives in one read.
    slow_path: Option<Box<SlowPath>>,
}

/// The state of a connection whose bytes cannot be passed on where they were read.
struct SlowPath {
    /// What is passed on next.
    ready: Bytes,
    /// A head that goes on, and how far it is checked.
    held: Vec<u8>,
    check: HeadCheck,
    next: Next,
}

/// What comes after the bytes that are ready.
enum Next {
    /// What is read.
    Read,
    /// The answer to a head that is refused.
    Refuse(Refusal),
    /// The end of a body that is malformed.
    Break(&'static str),
    /// Nothing that the caller sends.
    Refused(Linger),
    /// The end of the connection, when what was begun is answered or this has passed.
    End(Pin<Box<Sleep>>),
}

/// Reads and drops what a refused caller sends.
#[derive(Default)]
struct Linger {
    dropped: usize,
    until: Option<Pin<Box<Sleep>>>,
}

impl Inbound {
    pub(super) fn new(connection: Rc<Connection>) -> Self {
        Self { connection, framing: Framing::Head, known: KnownHead::default(), slow_path: None }
    }

    /// Takes back what may not be passed on of what was read behind `before`.
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
                Next::Refuse(refusal) => {
                    self.connection.refuse(*refusal);
                    slow_path.ready = Bytes::from_static(STAND_IN);
                    slow_path.next = Next::Refused(Linger::default());
                }
                Next::Break(why) => {
                    let broken = io::Error::new(io::ErrorKind::InvalidData, *why);
                    slow_path.next = Next::Refused(Linger::default());
                    return Poll::Ready(Err(broken));
                }
                // Whoever waits for more has the answer on its way, after which the connection ends.
                Next::Refused(_) => return Poll::Pending,
                Next::End(_) => return self.poll_end(cx),
            }
        }
        // It is over.
        self.poll_read(source, cx, into)
    }

    /// Ends the caller's bytes: at once, or when what was begun is answered.
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

/// What hyper reads in place of a head that is refused. `-` stands for a method in the log.
const STAND_IN: &[u8] = b"- / HTTP/1.1\r\nhost: -\r\nconnection: close\r\n\r\n";

impl SlowPath {
    fn new(ready: Bytes, tail: &[u8], rest: Rest) -> Self {
        let mut slow_path = Self { ready, held: Vec::new(), check: HeadCheck::default(), next: Next::Read };
        match rest {
            Rest::Nothing => {}
            Rest::PartialHead(_) if tail.len() > MAX_HEAD => {
                slow_path.next = Next::Refuse(Refusal::TooLarge { size: tail.len() });
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

    /// Takes in what was read behind the head that is held.
    fn read(&mut self, read: &[u8], framing: &mut Framing, known: &mut KnownHead) {
        self.held.extend_from_slice(read);
        // A line that did not end needs no second look.
        if read.contains(&b'\n') || self.held.len() > MAX_HEAD {
            self.check_held(framing, known);
        }
    }

    /// Checks the line that the caller has not ended and will not end. Returns whether the head is refused for it, as it would
    /// be had it come in one piece.
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

    /// Whether what is read can be passed on where it is read again.
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

impl<S: AsyncRead + Unpin> ByteFilter<S> for Inbound {
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

    /// Drops what a refused caller still sends.
    fn poll_linger(&mut self, source: &mut Source<S>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.slow_path.as_deref_mut() {
            Some(SlowPath { next: Next::Refused(linger), .. }) => linger.poll(cx, source),
            _ => Poll::Ready(Ok(())),
        }
    }
}

//! A request on its way to a connection: its head and its body, piece by piece.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body;
use tokio::io::AsyncWrite;

use super::error::{Cause, Http1Error};

/// A body that can be sent to an endpoint.
pub trait UploadBody: Body<Data = Bytes, Error: Into<Cause>> + Unpin + 'static {}

impl<B: Body<Data = Bytes, Error: Into<Cause>> + Unpin + 'static> UploadBody for B {}

/// How long a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// So many bytes.
    Known(u64),
    /// That is seen when it has ended: it goes in chunks.
    Unknown,
}

impl Length {
    pub(super) fn of(body: &impl Body) -> Self {
        if body.is_end_stream() { Self::Known(0) } else { body.size_hint().exact().map_or(Self::Unknown, Self::Known) }
    }
}

/// What is still to be written of a request.
#[derive(Debug)]
pub(super) struct Upload<B> {
    /// `None` once all of it was read.
    body: Option<B>,
    /// What is left of it.
    left: Length,
    /// What goes before the piece: the head, or the size of a chunk.
    before: Vec<u8>,
    piece: Bytes,
    after: &'static [u8],
    /// How much of these three is written.
    written: usize,
    /// Whether the socket has taken any of the request.
    has_begun: bool,
}

/// Ends a chunk, the last chunk, and both in one.
const CHUNK_END: &[u8] = b"\r\n";
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const CHUNK_END_AND_LAST: &[u8] = b"\r\n0\r\n\r\n";

impl<B: Body<Data = Bytes, Error: Into<Cause>> + Unpin> Upload<B> {
    /// Makes a request of its head, as it goes onto the wire, and a body of the length that the head tells.
    pub(super) fn new(head: Vec<u8>, body: B, length: Length) -> Self {
        let body = if length == Length::Known(0) { None } else { Some(body) };
        Self { body, left: length, before: head, piece: Bytes::new(), after: &[], written: 0, has_begun: false }
    }

    /// Whether the socket has taken any of it. Whether the system has is the socket's to say.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Returns the memory of the head, for the next one.
    pub(super) fn into_memory(self) -> Vec<u8> {
        self.before
    }

    /// Writes as much as there is and as fits.
    ///
    /// # Errors
    /// Either side broke off. What is left cannot be sent.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Http1Error>> {
        loop {
            // The first piece goes out together with the head, if it is there.
            if self.piece.is_empty() && self.after.is_empty() {
                self.take_piece(cx)?;
            }
            let length = self.before.len() + self.piece.len() + self.after.len();
            if self.written == length {
                ready!(Pin::new(socket).poll_flush(cx))?;
                return if self.body.is_none() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            self.written += ready!(self.poll_write(cx, socket))?;
            if self.written == length {
                self.before.clear();
                self.piece = Bytes::new();
                self.after = &[];
                self.written = 0;
            }
        }
    }

    /// Takes the next piece of the body, if there is one by now.
    fn take_piece(&mut self, cx: &mut Context<'_>) -> Result<(), Http1Error> {
        while self.piece.is_empty()
            && let Some(body) = &mut self.body
        {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => {
                    self.body = None;
                    self.after = self.ending(&[], LAST_CHUNK)?;
                }
                Poll::Ready(Some(Err(err))) => return Err(Http1Error::Upload(err.into())),
                // Trailers are about the caller's framing, which ends here.
                Poll::Ready(Some(Ok(frame))) => {
                    let is_last = body.is_end_stream();
                    self.frame(frame.into_data().unwrap_or_default())?;
                    if is_last {
                        self.body = None;
                        let last = if self.piece.is_empty() { LAST_CHUNK } else { CHUNK_END_AND_LAST };
                        self.after = self.ending(self.after, last)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn frame(&mut self, piece: Bytes) -> Result<(), Http1Error> {
        match &mut self.left {
            Length::Known(left) => {
                *left = left.checked_sub(piece.len() as u64).ok_or(Http1Error::UploadLength)?;
            }
            Length::Unknown if piece.is_empty() => {}
            Length::Unknown => {
                self.before.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                self.after = CHUNK_END;
            }
        }
        self.piece = piece;
        Ok(())
    }

    /// Returns what goes after the last piece.
    fn ending(&self, of_known: &'static [u8], of_chunks: &'static [u8]) -> Result<&'static [u8], Http1Error> {
        match self.left {
            Length::Known(0) => Ok(of_known),
            Length::Known(_) => Err(Http1Error::UploadLength),
            Length::Unknown => Ok(of_chunks),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, socket: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<usize>> {
        let mut parts = [io::IoSlice::new(&self.before), io::IoSlice::new(&self.piece), io::IoSlice::new(self.after)];
        let mut parts = &mut parts[..];
        io::IoSlice::advance_slices(&mut parts, self.written);
        let written = ready!(Pin::new(socket).poll_write_vectored(cx, parts))?;
        if written == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.has_begun = true;
        Poll::Ready(Ok(written))
    }
}

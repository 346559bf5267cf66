//! Writes a request to a connection: its head and its body, as the body becomes available.

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

/// The length of a request body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// This many bytes.
    Known(u64),
    /// Unknown until the body ends; it is sent in chunks.
    Unknown,
}

impl Length {
    pub(super) fn of(body: &impl Body) -> Self {
        if body.is_end_stream() { Self::Known(0) } else { body.size_hint().exact().map_or(Self::Unknown, Self::Known) }
    }
}

/// The part of a request that is not yet written.
#[derive(Debug)]
pub(super) struct Upload<B> {
    /// The request body; `None` when it has ended.
    body: Option<B>,
    /// The remaining length of the body.
    left: Length,
    /// The bytes before `piece`: the head, or a chunk-size line.
    prefix: Vec<u8>,
    /// The current piece of the body.
    piece: Bytes,
    /// The bytes after `piece`: the end of a chunk or of the body.
    suffix: &'static [u8],
    /// The number of bytes of these three that are written.
    written: usize,
    /// Whether any byte of the request is written.
    has_begun: bool,
}

/// The end of a chunk.
const CHUNK_END: &[u8] = b"\r\n";
/// The last chunk, which ends the body.
const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
/// The end of a chunk, and the last chunk.
const CHUNK_END_AND_LAST: &[u8] = b"\r\n0\r\n\r\n";

impl<B: Body<Data = Bytes, Error: Into<Cause>> + Unpin> Upload<B> {
    /// Wraps a written head and a body of the length that the head declares.
    pub(super) fn new(head: Vec<u8>, body: B, length: Length) -> Self {
        let body = if length == Length::Known(0) { None } else { Some(body) };
        Self { body, left: length, prefix: head, piece: Bytes::new(), suffix: &[], written: 0, has_begun: false }
    }

    /// Returns whether any byte is written. It may still be in the write batch.
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Returns the buffer of the head for reuse.
    pub(super) fn into_buffer(self) -> Vec<u8> {
        self.prefix
    }

    /// Writes as much as the body provides and the socket accepts. Is ready when the whole request is written.
    ///
    /// # Errors
    /// [`Http1Error`] if the body or the connection fails. The rest of the request cannot be sent.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        socket: &mut (impl AsyncWrite + Unpin),
    ) -> Poll<Result<(), Http1Error>> {
        loop {
            // If the first piece is available, it is written together with the head.
            if self.piece.is_empty() && self.suffix.is_empty() {
                self.take_piece(cx)?;
            }
            let length = self.prefix.len() + self.piece.len() + self.suffix.len();
            if self.written == length {
                ready!(Pin::new(socket).poll_flush(cx))?;
                return if self.body.is_none() { Poll::Ready(Ok(())) } else { Poll::Pending };
            }
            self.written += ready!(self.poll_write(cx, socket))?;
            if self.written == length {
                self.prefix.clear();
                self.piece = Bytes::new();
                self.suffix = &[];
                self.written = 0;
            }
        }
    }

    /// Takes the next piece of the body, if one is available.
    fn take_piece(&mut self, cx: &mut Context<'_>) -> Result<(), Http1Error> {
        while self.piece.is_empty()
            && let Some(body) = &mut self.body
        {
            match Pin::new(&mut *body).poll_frame(cx) {
                Poll::Pending => return Ok(()),
                Poll::Ready(None) => {
                    self.body = None;
                    self.suffix = self.last_suffix(&[], LAST_CHUNK)?;
                }
                Poll::Ready(Some(Err(err))) => return Err(Http1Error::RequestBody(err.into())),
                // Trailers are not forwarded.
                Poll::Ready(Some(Ok(frame))) => {
                    let is_last = body.is_end_stream();
                    self.set_piece(frame.into_data().unwrap_or_default())?;
                    if is_last {
                        self.body = None;
                        let last = if self.piece.is_empty() { LAST_CHUNK } else { CHUNK_END_AND_LAST };
                        self.suffix = self.last_suffix(self.suffix, last)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Sets the next piece, and its chunk framing if the length is unknown.
    fn set_piece(&mut self, piece: Bytes) -> Result<(), Http1Error> {
        match &mut self.left {
            Length::Known(left) => {
                *left = left.checked_sub(piece.len() as u64).ok_or(Http1Error::RequestBodyLength)?;
            }
            Length::Unknown if piece.is_empty() => {}
            Length::Unknown => {
                self.prefix.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                self.suffix = CHUNK_END;
            }
        }
        self.piece = piece;
        Ok(())
    }

    /// Returns the suffix of the last piece: `known` for a body of known length, `chunked` for a chunked body.
    fn last_suffix(&self, known: &'static [u8], chunked: &'static [u8]) -> Result<&'static [u8], Http1Error> {
        match self.left {
            Length::Known(0) => Ok(known),
            Length::Known(_) => Err(Http1Error::RequestBodyLength),
            Length::Unknown => Ok(chunked),
        }
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, socket: &mut (impl AsyncWrite + Unpin)) -> Poll<io::Result<usize>> {
        let mut parts = [io::IoSlice::new(&self.prefix), io::IoSlice::new(&self.piece), io::IoSlice::new(self.suffix)];
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

//! A connection and the request that is on it.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, Method, Response};
use http_body::Body;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use super::super::recycler::Recycler;
use super::super::socket::{self, Socket};
use super::error::{Cause, Http1Error, MAX_HEAD_BYTES};
use super::framing::Decoder;
use super::head::{self, RequestHead};
use super::upload::{Length, Upload};
use crate::write_batch::Batched;

/// How much is read at once while a head is expected. It lies on the stack: an answer without a body leaves nothing behind.
const HEAD_READ: usize = 4 * 1024;
/// How much is read at once of a body.
const BODY_READ: usize = 64 * 1024;

/// A connection and the request that is on it.
pub(in crate::endpoint) struct Connection<B> {
    socket: Socket<Batched<TcpStream>>,
    /// Bytes that were read and not parsed yet.
    input: BytesMut,
    /// The request, until it is written.
    upload: Option<Upload<B>>,
    method: Method,
    /// The bytes that the socket had accepted when the request began; `None` if unknown.
    written_before: Option<u64>,
    unwanted: fn(&HeaderName) -> bool,
    recycler: Rc<Recycler>,
    /// Why the rest of the request cannot be written. An endpoint that answers early may stop reading early.
    write_error: Option<Http1Error>,
    body: Decoder,
    keeps_alive: bool,
}

impl<B: Body<Data = Bytes, Error: Into<Cause>> + Unpin> Connection<B> {
    /// Wraps a new connection.
    pub(in crate::endpoint) fn new(socket: Socket<Batched<TcpStream>>, recycler: Rc<Recycler>) -> Self {
        Self {
            socket,
            input: BytesMut::new(),
            upload: None,
            method: Method::GET,
            written_before: None,
            unwanted: |_| false,
            recycler,
            write_error: None,
            body: Decoder::Ended,
            keeps_alive: true,
        }
    }

    /// Whether a request may be begun: the endpoint has neither closed the connection nor sent anything that was not asked
    /// for. Makes no system call unless the runtime has seen that there is something to read.
    pub(in crate::endpoint) fn is_usable(&mut self) -> bool {
        if !socket::may_have_input(&mut self.socket) {
            return true;
        }
        let mut room = [MaybeUninit::uninit(); 1];
        let mut nobody = Context::from_waker(Waker::noop());
        Pin::new(&mut self.socket).poll_read(&mut nobody, &mut ReadBuf::uninit(&mut room)).is_pending()
    }

    /// Begins a request.
    pub(in crate::endpoint) fn begin(&mut self, head: &RequestHead<'_>, body: B) {
        let mut memory = self.recycler.head();
        let length = Length::of(&body);
        head::write(&mut memory, head, length);
        self.upload = Some(Upload::new(memory, body, length));
        self.method = head.method.clone();
        self.written_before = socket::written(&self.socket);
        self.unwanted = head.unwanted;
    }

    /// Whether no byte of the request was or will be received.
    pub(in crate::endpoint) fn is_unsent(&self) -> bool {
        // Bytes in the write batch cannot be withdrawn.
        socket::written(&self.socket).is_some_and(|now| Some(now) == self.written_before)
    }

    /// Withdraws an unsent request.
    pub(in crate::endpoint) fn withdraw(&mut self) {
        self.upload = None;
    }

    /// Whether the request was written completely, or is in the write batch.
    pub(in crate::endpoint) fn is_written(&self) -> bool {
        self.upload.is_none() && self.write_error.is_none()
    }

    /// Whether the endpoint closes the connection after the answer.
    pub(in crate::endpoint) fn will_close(&self) -> bool {
        !self.keeps_alive
    }

    /// Writes the request and reads the head of its answer.
    ///
    /// # Errors
    /// The connection cannot be used any more.
    pub(in crate::endpoint) fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<Result<Response<()>, Http1Error>> {
        self.poll_upload(cx)?;
        loop {
            let head = match ready!(self.poll_head(cx)) {
                Ok(head) => head,
                // The first error is more specific.
                Err(err) => return Poll::Ready(Err(self.write_error.take().unwrap_or(err))),
            };
            let Some(head::Head { answer, body, keeps_alive }) = head else { continue };
            self.body = body;
            self.keeps_alive = keeps_alive;
            self.body.skip_framing(&mut self.input)?;
            return Poll::Ready(Ok(answer));
        }
    }

    /// Writes the rest of the request, as far as possible.
    ///
    /// # Errors
    /// The request body failed, or nothing was written at all.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Http1Error> {
        let Some(upload) = self.upload.as_mut().filter(|_| self.write_error.is_none()) else {
            self.poll_rest(cx);
            return Ok(());
        };
        match upload.poll(cx, &mut self.socket) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                if let Some(upload) = self.upload.take() {
                    self.recycler.recycle_head(upload.into_memory());
                }
            }
            Poll::Ready(Err(Http1Error::Io(err))) if upload.has_begun() => self.write_error = Some(Http1Error::Io(err)),
            Poll::Ready(Err(err)) => return Err(err),
        }
        Ok(())
    }

    /// Flushes bytes of a written request that the socket has not accepted yet.
    fn poll_rest(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(Err(err)) = Pin::new(&mut self.socket).poll_flush(cx)
            && self.write_error.is_none()
        {
            self.write_error = Some(err.into());
        }
    }

    /// Reads, and returns the head if it is complete.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<head::Head>, Http1Error>> {
        let mut room = [MaybeUninit::uninit(); HEAD_READ];
        let mut read = ReadBuf::uninit(&mut room);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Err(Http1Error::Closed));
        }
        let input = if self.input.is_empty() {
            Bytes::copy_from_slice(read.filled())
        } else {
            self.input.extend_from_slice(read.filled());
            if self.input.len() > HEAD_READ && !head::may_end(&self.input, read.filled().len()) {
                return if self.input.len() > MAX_HEAD_BYTES {
                    Poll::Ready(Err(Http1Error::HeadTooLarge))
                } else {
                    Poll::Ready(Ok(None))
                };
            }
            self.input.split().freeze()
        };
        let Some((length, head)) = head::read(&input, &self.method, self.unwanted, &self.recycler)? else {
            if input.len() > MAX_HEAD_BYTES {
                return Poll::Ready(Err(Http1Error::HeadTooLarge));
            }
            self.input = input.into();
            return Poll::Ready(Ok(None));
        };
        self.input.extend_from_slice(input.get(length..).unwrap_or_default());
        Poll::Ready(Ok(Some(head)))
    }

    /// Reads the next part of the response body. Continues to write the request if it was answered early.
    ///
    /// # Errors
    /// The body is incomplete.
    pub(in crate::endpoint) fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Http1Error>>> {
        if let Err(err) = self.poll_upload(cx) {
            self.write_error = Some(err);
        }
        loop {
            let piece = self.body.decode(&mut self.input)?;
            self.body.skip_framing(&mut self.input)?;
            if piece.is_some() || self.body_has_ended() {
                return Poll::Ready(piece.map(Ok));
            }
            let most = self.body.left().map_or(BODY_READ, |left| usize::try_from(left).unwrap_or(BODY_READ));
            if ready!(self.poll_read(cx, most.min(BODY_READ)))? == 0 {
                self.body.close()?;
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        self.input.reserve(most);
        std::pin::pin!(tokio::io::AsyncReadExt::read_buf(&mut self.socket, &mut self.input)).poll(cx)
    }

    /// Whether the answer's body has ended.
    pub(in crate::endpoint) fn body_has_ended(&self) -> bool {
        self.body == Decoder::Ended
    }

    /// Returns the length of the rest of the answer's body, in bytes, if it is known.
    pub(in crate::endpoint) fn body_left(&self) -> Option<u64> {
        self.body.left()
    }

    /// Whether it can carry another request: this exchange is complete and both sides keep the connection open.
    pub(in crate::endpoint) fn is_free(&self) -> bool {
        self.keeps_alive && self.body_has_ended() && self.is_written() && self.input.is_empty()
    }
}

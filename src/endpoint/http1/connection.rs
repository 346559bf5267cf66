//! An HTTP/1.1 connection and its current exchange.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Instant;

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

/// The length of a read while a head is expected. The buffer is on the stack, so an idle connection needs none.
const HEAD_READ: usize = 4 * 1024;
/// The maximum length of a read from a body.
const BODY_READ: usize = 64 * 1024;

/// An HTTP/1.1 connection and its current exchange.
pub(in crate::endpoint) struct Connection<B> {
    socket: Socket<Batched<TcpStream>>,
    /// Bytes that have been read but not parsed.
    input: BytesMut,
    /// The request; `None` when it is completely written.
    upload: Option<Upload<B>>,
    method: Method,
    /// The number of bytes that the socket had accepted when the request began; `None` if unknown.
    written_before: Option<u64>,
    unwanted: fn(&HeaderName) -> bool,
    recycler: Rc<Recycler>,
    /// Why the rest of the request cannot be written. An endpoint that responds early may stop reading the request.
    write_error: Option<Http1Error>,
    body: Decoder,
    keeps_alive: bool,
    /// When it reaches its age; `None` without a limit.
    expires: Option<Instant>,
}

impl<B: Body<Data = Bytes, Error: Into<Cause>> + Unpin> Connection<B> {
    /// Wraps a new connection, which carries no further requests when it `expires`.
    pub(in crate::endpoint) fn new(
        socket: Socket<Batched<TcpStream>>,
        recycler: Rc<Recycler>,
        expires: Option<Instant>,
    ) -> Self {
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
            expires,
        }
    }

    /// Returns whether it has reached its age.
    pub(in crate::endpoint) fn has_expired(&self, now: Instant) -> bool {
        self.expires.is_some_and(|expires| now >= expires)
    }

    /// Returns whether a request may begin: the endpoint has neither closed the idle connection nor sent anything on it. Makes no
    /// system call unless the runtime has observed that the socket is readable.
    pub(in crate::endpoint) fn is_usable(&mut self) -> bool {
        if !socket::may_have_input(&mut self.socket) {
            return true;
        }
        let mut buffer = [MaybeUninit::uninit(); 1];
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.socket).poll_read(&mut cx, &mut ReadBuf::uninit(&mut buffer)).is_pending()
    }

    /// Begins a request. [`Connection::poll_response`] writes it.
    pub(in crate::endpoint) fn begin(&mut self, head: &RequestHead<'_>, body: B) {
        let mut buffer = self.recycler.take_head();
        let length = Length::of(&body);
        head::write(&mut buffer, head, length);
        self.upload = Some(Upload::new(buffer, body, length));
        self.method = head.method.clone();
        self.written_before = socket::written(&self.socket);
        self.unwanted = head.unwanted;
    }

    /// Returns whether no byte of the request has been or will be sent.
    pub(in crate::endpoint) fn is_unsent(&self) -> bool {
        // `written` is `None` while bytes are in the write batch, since those cannot be withdrawn.
        socket::written(&self.socket).is_some_and(|now| Some(now) == self.written_before)
    }

    /// Withdraws an unsent request.
    pub(in crate::endpoint) fn withdraw(&mut self) {
        self.upload = None;
    }

    /// Returns whether the request is completely written, or is in the write batch.
    pub(in crate::endpoint) fn is_written(&self) -> bool {
        self.upload.is_none() && self.write_error.is_none()
    }

    /// Returns whether the endpoint closes the connection after the response.
    pub(in crate::endpoint) fn will_close(&self) -> bool {
        !self.keeps_alive
    }

    /// Writes the request and reads the head of the response.
    ///
    /// # Errors
    /// [`Http1Error`]; the connection is not usable any more.
    pub(in crate::endpoint) fn poll_response(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Response<()>, Http1Error>> {
        self.poll_upload(cx)?;
        loop {
            let head = match ready!(self.poll_head(cx)) {
                Ok(head) => head,
                // The first error is more specific.
                Err(err) => return Poll::Ready(Err(self.write_error.take().unwrap_or(err))),
            };
            let Some(head::Head { response, body, keeps_alive }) = head else { continue };
            self.body = body;
            self.keeps_alive = keeps_alive;
            self.body.skip_framing(&mut self.input)?;
            return Poll::Ready(Ok(response));
        }
    }

    /// Writes as much of the rest of the request as possible.
    ///
    /// # Errors
    /// [`Http1Error`] if the request body failed, or if the connection failed before any byte was written.
    fn poll_upload(&mut self, cx: &mut Context<'_>) -> Result<(), Http1Error> {
        let Some(upload) = self.upload.as_mut().filter(|_| self.write_error.is_none()) else {
            self.poll_flush(cx);
            return Ok(());
        };
        match upload.poll(cx, &mut self.socket) {
            Poll::Pending => {}
            Poll::Ready(Ok(())) => {
                if let Some(upload) = self.upload.take() {
                    self.recycler.recycle_head(upload.into_buffer());
                }
            }
            Poll::Ready(Err(Http1Error::Io(err))) if upload.has_begun() => self.write_error = Some(Http1Error::Io(err)),
            Poll::Ready(Err(err)) => return Err(err),
        }
        Ok(())
    }

    /// Flushes bytes of a written request that the socket has not accepted yet.
    fn poll_flush(&mut self, cx: &mut Context<'_>) {
        if let Poll::Ready(Err(err)) = Pin::new(&mut self.socket).poll_flush(cx)
            && self.write_error.is_none()
        {
            self.write_error = Some(err.into());
        }
    }

    /// Reads once and returns the head if it is complete.
    pub(super) fn poll_head(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<head::Head>, Http1Error>> {
        let mut buffer = [MaybeUninit::uninit(); HEAD_READ];
        let mut read = ReadBuf::uninit(&mut buffer);
        ready!(Pin::new(&mut self.socket).poll_read(cx, &mut read))?;
        if read.filled().is_empty() {
            return Poll::Ready(Err(Http1Error::Closed));
        }
        let input = if self.input.is_empty() {
            Bytes::copy_from_slice(read.filled())
        } else {
            self.input.extend_from_slice(read.filled());
            if self.input.len() > HEAD_READ && !head::may_be_complete(&self.input, read.filled().len()) {
                return if self.input.len() > MAX_HEAD_BYTES {
                    Poll::Ready(Err(Http1Error::HeadTooLarge))
                } else {
                    Poll::Ready(Ok(None))
                };
            }
            self.input.split().freeze()
        };
        let Some((length, head)) = head::parse(&input, &self.method, self.unwanted, &self.recycler)? else {
            if input.len() > MAX_HEAD_BYTES {
                return Poll::Ready(Err(Http1Error::HeadTooLarge));
            }
            self.input = input.into();
            return Poll::Ready(Ok(None));
        };
        self.input.extend_from_slice(input.get(length..).unwrap_or_default());
        Poll::Ready(Ok(Some(head)))
    }

    /// Reads the next piece of the response body. Continues to write the request if the response was early.
    ///
    /// # Errors
    /// [`Http1Error`] if the body is incomplete or not valid.
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
            let length = self.body.left().map_or(BODY_READ, |left| usize::try_from(left).unwrap_or(BODY_READ));
            if ready!(self.poll_read(cx, length.min(BODY_READ)))? == 0 {
                self.body.close()?;
            }
        }
    }

    fn poll_read(&mut self, cx: &mut Context<'_>, length: usize) -> Poll<io::Result<usize>> {
        self.input.reserve(length);
        std::pin::pin!(tokio::io::AsyncReadExt::read_buf(&mut self.socket, &mut self.input)).poll(cx)
    }

    /// Returns whether the response body has ended.
    pub(in crate::endpoint) fn body_has_ended(&self) -> bool {
        self.body == Decoder::Ended
    }

    /// Returns the remaining length of the response body in bytes, if known.
    pub(in crate::endpoint) fn body_left(&self) -> Option<u64> {
        self.body.left()
    }

    /// Returns whether the connection can carry another request: the exchange is complete and the endpoint keeps it open.
    pub(in crate::endpoint) fn is_reusable(&self) -> bool {
        self.keeps_alive && self.body_has_ended() && self.is_written() && self.input.is_empty()
    }
}

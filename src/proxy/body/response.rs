//! An answer's body on its way to the caller, and what it is before it is known to go there.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use tokio::time::{Instant, Sleep};

use super::RequestBody;
use crate::endpoint::{BrokenOff, Download};
use crate::proxy::error::ProxyError;
use crate::proxy::exchange::Exchange;

/// An answer's body on its way to the caller. It carries the request's books, which close when it ends or is dropped.
#[derive(Debug)]
pub struct ResponseBody {
    content: Content,
    exchange: Option<Box<Exchange>>,
}

#[derive(Debug)]
enum Content {
    Nothing,
    Whole(Option<Bytes>),
    Streamed(Box<Timed>),
}

/// An endpoint's body and the time it has to end.
struct Timed {
    download: Download<RequestBody>,
    deadline: Pin<Box<Sleep>>,
    /// The caller's body, of which it may still be sending the rest.
    upload: Option<RequestBody>,
}

impl fmt::Debug for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timed").field("deadline", &self.deadline.deadline()).finish_non_exhaustive()
    }
}

/// Why an answer's body stopped.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The endpoint broke off.
    #[error("the endpoint broke off in the middle of its answer")]
    Broken(#[source] BrokenOff),
    /// The endpoint took too long.
    #[error("the endpoint did not finish its answer in time")]
    Deadline,
}

impl ResponseBody {
    /// A body of the gateway's own.
    pub(in crate::proxy) fn whole(bytes: Bytes, exchange: Box<Exchange>) -> Self {
        let content = if bytes.is_empty() { Content::Nothing } else { Content::Whole(Some(bytes)) };
        Self { content, exchange: Some(exchange) }
    }

    /// An endpoint's body, which may take `time` to end. An endpoint may answer before it has had all of the caller's body;
    /// what is left of `upload` then is read and forgotten.
    pub(in crate::proxy) fn streamed(
        answer: Answer,
        time: Duration,
        upload: RequestBody,
        exchange: Box<Exchange>,
    ) -> Self {
        let content = match answer {
            Answer::Streamed(download) => {
                let deadline = Box::pin(tokio::time::sleep_until(Instant::now() + time));
                let timed = Timed { download, deadline, upload: Some(upload) };
                return Self { content: Content::Streamed(Box::new(timed)), exchange: Some(exchange) };
            }
            Answer::Empty => Content::Nothing,
            Answer::Whole(bytes) => Content::Whole(Some(bytes)),
        };
        upload.discard();
        Self { content, exchange: Some(exchange) }
    }
}

/// The body of an endpoint's answer, as it comes from an attempt.
pub(in crate::proxy) enum Answer {
    /// There is none; the connection is back in its pool.
    Empty,
    /// It was read already; the connection is back in its pool.
    Whole(Bytes),
    /// It is still to be read from its connection.
    Streamed(Download<RequestBody>),
}

impl Answer {
    pub(in crate::proxy) fn new(download: Download<RequestBody>) -> Self {
        if download.is_end_stream() { Self::Empty } else { Self::Streamed(download) }
    }

    /// Drops an answer that is not needed. Its connection reads it to the end if it is small, and is used again.
    pub(in crate::proxy) fn discard(self) {
        drop(self);
    }

    /// Reads an answer to its end: `most` bytes, within `time`.
    ///
    /// # Errors
    /// The endpoint broke off, took too long or sent more.
    pub(in crate::proxy) async fn collected(self, most: usize, time: Duration) -> Result<Bytes, ProxyError> {
        let download = match self {
            Self::Empty => return Ok(Bytes::new()),
            Self::Whole(bytes) => return Ok(bytes),
            Self::Streamed(download) => download,
        };
        let collected = Limited::new(download, most).collect();
        let collected =
            tokio::time::timeout(time, collected).await.map_err(|_late| ProxyError::Deadline { limit: time })?;
        Ok(collected.map_err(ProxyError::AnswerBroken)?.to_bytes())
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = DownloadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        let this = &mut *self;
        let frame = match &mut this.content {
            Content::Nothing => None,
            Content::Whole(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Content::Streamed(timed) => ready!(timed.poll_frame(cx)),
        };
        match (&frame, &mut this.exchange) {
            (Some(Ok(frame)), Some(exchange)) => exchange.sent(frame.data_ref().map_or(0, Bytes::len)),
            (Some(Err(_)), Some(exchange)) => exchange.broke_off(),
            (Some(_), None) => {}
            (None, exchange) => {
                if let Some(exchange) = exchange.take() {
                    exchange.finish();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Nothing | Content::Whole(None) => true,
            Content::Whole(Some(_)) => false,
            Content::Streamed(timed) => timed.download.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Nothing | Content::Whole(None) => SizeHint::with_exact(0),
            Content::Whole(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streamed(timed) => timed.download.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(mut exchange) = self.exchange.take() {
            // hyper drops a body whose last byte it has without asking for the end.
            if !self.is_end_stream() {
                exchange.broke_off();
            }
            exchange.finish();
        }
    }
}

impl Timed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        match Pin::new(&mut self.download).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(upload) = self.upload.take_if(|_| self.download.is_end_stream()) {
                    upload.discard();
                }
                Poll::Ready(frame.map(|frame| frame.map_err(DownloadError::Broken)))
            }
            Poll::Pending => {
                ready!(self.deadline.as_mut().poll(cx));
                Poll::Ready(Some(Err(DownloadError::Deadline)))
            }
        }
    }
}

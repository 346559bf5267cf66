//! A response's body on its way to the caller.

use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep};

use super::record::RequestRecord;
use crate::delivery::{RequestBody, Side, UpstreamBody};
use crate::endpoint::{Download, TransportError};
use crate::redact::in_one_line;

/// A response's body on its way to the caller. It carries the request's record, which is finished when the body ends or
/// is dropped.
#[derive(Debug)]
pub struct ResponseBody {
    content: Content,
    record: Option<Box<RequestRecord>>,
}

#[derive(Debug)]
enum Content {
    Empty,
    Whole(Option<Bytes>),
    Streamed(Box<Timed>),
}

/// An endpoint's body and its deadline.
struct Timed {
    download: Download<RequestBody>,
    deadline: Pin<Box<Sleep>>,
    /// The caller's body. The endpoint may respond before the caller has sent all of it.
    request_body: Option<RequestBody>,
}

impl fmt::Debug for Timed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Timed").field("deadline", &self.deadline.deadline()).finish_non_exhaustive()
    }
}

/// Why a response's body ended early.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The endpoint ended it early.
    #[error("the endpoint's response ended early")]
    Broken(#[source] TransportError),
    /// The endpoint took too long.
    #[error("the endpoint did not finish its response in time")]
    Deadline,
}

impl ResponseBody {
    /// Returns a body of the gateway's own.
    pub(super) fn whole(bytes: Bytes, record: Box<RequestRecord>) -> Self {
        let content = if bytes.is_empty() { Content::Empty } else { Content::Whole(Some(bytes)) };
        Self { content, record: Some(record) }
    }

    /// Returns an endpoint's body, which may take as long as `timeout`. The rest of `request_body` is read and dropped
    /// once the response has ended.
    pub(super) fn streamed(
        upstream_body: UpstreamBody,
        timeout: Duration,
        request_body: RequestBody,
        record: Box<RequestRecord>,
    ) -> Self {
        let content = match upstream_body {
            UpstreamBody::Streamed(download) => {
                let deadline = Box::pin(tokio::time::sleep_until(Instant::now() + timeout));
                let timed = Timed { download, deadline, request_body: Some(request_body) };
                return Self { content: Content::Streamed(Box::new(timed)), record: Some(record) };
            }
            UpstreamBody::Empty => Content::Empty,
            UpstreamBody::Whole(bytes) => Content::Whole(Some(bytes)),
        };
        request_body.discard();
        Self { content, record: Some(record) }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = DownloadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        let this = &mut *self;
        let frame = match &mut this.content {
            Content::Empty => None,
            Content::Whole(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Content::Streamed(timed) => ready!(timed.poll_frame(cx)),
        };
        match (&frame, &mut this.record) {
            (Some(Ok(frame)), Some(record)) => record.add_response_bytes(frame.data_ref().map_or(0, Bytes::len)),
            (Some(Err(err)), Some(record)) => {
                record.set_incomplete(Side::Endpoint, || in_one_line(err));
                match err {
                    DownloadError::Broken(_) => record.count_incomplete_response(),
                    // Either side may be the slow one.
                    DownloadError::Deadline => {}
                }
            }
            (Some(_), None) => {}
            (None, record) => {
                if let Some(record) = record.take() {
                    record.finish();
                }
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty | Content::Whole(None) => true,
            Content::Whole(Some(_)) => false,
            Content::Streamed(timed) => timed.download.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty | Content::Whole(None) => SizeHint::with_exact(0),
            Content::Whole(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streamed(timed) => timed.download.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        if let Some(mut record) = self.record.take() {
            // hyper drops a body after its last byte without polling for the end.
            if !self.is_end_stream() {
                record.set_incomplete(Side::Caller, || {
                    "the caller disconnected before the end of the response".to_owned()
                });
            }
            record.finish();
        }
    }
}

impl Timed {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        match Pin::new(&mut self.download).poll_frame(cx) {
            Poll::Ready(frame) => {
                if let Some(request_body) = self.request_body.take_if(|_| self.download.is_end_stream()) {
                    request_body.discard();
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

//! The two bodies that cross the gateway. Both stream; neither looks at what it carries.

use std::cell::RefCell;
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use tokio::time::{Instant, Sleep};

use super::error::ProxyError;
use super::exchange::Exchange;
use crate::endpoint::Lease;

/// The most that is read of a body that nobody wants, so that its sender can read the answer first.
const UNWANTED_BYTES: u64 = 4 * 1024 * 1024;
/// The most that is read of an answer that nobody wants.
const UNWANTED_ANSWER: usize = 64 * 1024;
/// How long either may take.
const UNWANTED_TIME: Duration = Duration::from_secs(2);

/// A caller's body on its way upstream. It counts, holds the limit and keeps what it handed out (at most the limit), so
/// that a request that was refused can be sent again. Clones share it; only the one that was made last by
/// [`RequestBody::rewound`] is read, since an endpoint that refused early may still be asking for the rest.
#[derive(Clone)]
pub(super) struct RequestBody {
    source: Source,
    attempt: u32,
}

#[derive(Clone)]
enum Source {
    /// There is none.
    Nothing,
    /// It has all been read; `None` once it was handed out.
    Whole(Option<Bytes>),
    /// It comes from the caller.
    Upload(Rc<RefCell<Upload>>),
}

struct Upload {
    /// The attempt that may read.
    attempt: u32,
    incoming: Incoming,
    /// The length that was declared, if one was.
    declared: Option<u64>,
    limit: u64,
    received: u64,
    kept: Vec<Bytes>,
    /// The place in `kept` of what is handed out next.
    next: usize,
    /// Whether `incoming` has ended.
    ended: bool,
    /// Whether the last look at `incoming` found nothing.
    is_waiting: bool,
    failure: Option<Failure>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    TooLarge,
    Broken,
}

/// Why an upload stopped. What is told to callers is made of [`RequestBody::failure`].
#[derive(Debug, thiserror::Error)]
pub(super) enum UploadError {
    #[error("the body is larger than the limit")]
    TooLarge,
    #[error("the caller broke off")]
    Broken(#[source] hyper::Error),
    #[error("the request is being sent again elsewhere")]
    Superseded,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, limit: u64) -> Self {
        if incoming.is_end_stream() {
            return Self { source: Source::Nothing, attempt: 0 };
        }
        let declared = incoming.size_hint().exact();
        let upload = Upload {
            attempt: 0,
            incoming,
            declared,
            limit,
            received: 0,
            kept: Vec::new(),
            next: 0,
            ended: false,
            is_waiting: false,
            failure: None,
        };
        Self { source: Source::Upload(Rc::new(RefCell::new(upload))), attempt: 0 }
    }

    /// Returns the body from its first byte, for another attempt. Those handed out before end in an error.
    pub(super) fn rewound(&self) -> Self {
        let Source::Upload(upload) = &self.source else { return self.clone() };
        let attempt = {
            let mut upload = upload.borrow_mut();
            upload.next = 0;
            upload.attempt += 1;
            upload.attempt
        };
        Self { source: Source::Upload(Rc::clone(upload)), attempt }
    }

    /// Reads the body to its end and returns it as one that any number of attempts may read side by side.
    ///
    /// # Errors
    /// What the caller did wrong.
    pub(super) async fn collected(&self) -> Result<Self, ProxyError> {
        let mut body = self.rewound();
        while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
            frame.map_err(|_told_below| self.failure().unwrap_or(ProxyError::BodyBroken))?;
        }
        let Some(upload) = self.upload() else { return Ok(self.clone()) };
        let mut upload = upload.borrow_mut();
        let whole = match std::mem::take(&mut upload.kept).as_slice() {
            [] => return Ok(Self { source: Source::Nothing, attempt: 0 }),
            [only] => only.clone(),
            several => several.concat().into(),
        };
        Ok(Self { source: Source::Whole(Some(whole)), attempt: 0 })
    }

    fn upload(&self) -> Option<&Rc<RefCell<Upload>>> {
        match &self.source {
            Source::Upload(upload) => Some(upload),
            Source::Nothing | Source::Whole(_) => None,
        }
    }

    /// Returns the number of bytes the caller has sent.
    pub(super) fn received(&self) -> u64 {
        self.upload().map_or(0, |upload| upload.borrow().received)
    }

    /// Returns what the caller did wrong, if that is why an attempt failed.
    pub(super) fn failure(&self) -> Option<ProxyError> {
        let upload = self.upload()?.borrow();
        Some(match upload.failure? {
            Failure::TooLarge => ProxyError::BodyTooLarge { limit: upload.limit },
            Failure::Broken => ProxyError::BodyBroken,
        })
    }

    /// Whether the caller still owes a part of the body and the endpoint has had all that came.
    pub(super) fn is_waiting_for_caller(&self) -> bool {
        self.upload().is_some_and(|upload| {
            let upload = upload.borrow();
            upload.is_waiting && !upload.ended
        })
    }

    /// Reads on for a while and forgets what comes. Closing at once would reset the connection, and the caller, still
    /// writing, would never see the answer.
    pub(super) fn discard(self) {
        let Source::Upload(upload) = self.source else { return };
        if upload.borrow().ended || upload.borrow().failure == Some(Failure::Broken) {
            return;
        }
        // Ends by its own limits, or with the worker.
        tokio::task::spawn_local(tokio::time::timeout(UNWANTED_TIME, async move {
            let mut unwanted = 0;
            while unwanted < UNWANTED_BYTES {
                let frame = std::future::poll_fn(|cx| Pin::new(&mut upload.borrow_mut().incoming).poll_frame(cx)).await;
                let Some(Ok(frame)) = frame else { return };
                unwanted += frame.data_ref().map_or(0, |data| data.len() as u64);
            }
        }));
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = UploadError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, UploadError>>> {
        let this = &mut *self;
        let upload = match &mut this.source {
            Source::Nothing => return Poll::Ready(None),
            Source::Whole(bytes) => return Poll::Ready(bytes.take().map(|bytes| Ok(Frame::data(bytes)))),
            Source::Upload(upload) => upload,
        };
        let upload = &mut *upload.borrow_mut();
        if this.attempt != upload.attempt {
            return Poll::Ready(Some(Err(UploadError::Superseded)));
        }
        if let Some(kept) = upload.kept.get(upload.next) {
            upload.next += 1;
            return Poll::Ready(Some(Ok(Frame::data(kept.clone()))));
        }
        loop {
            upload.is_waiting = true;
            let frame = ready!(Pin::new(&mut upload.incoming).poll_frame(cx));
            upload.is_waiting = false;
            let data = match frame {
                None => {
                    upload.ended = true;
                    return Poll::Ready(None);
                }
                Some(Err(err)) => {
                    upload.failure = Some(Failure::Broken);
                    return Poll::Ready(Some(Err(UploadError::Broken(err))));
                }
                // Trailers are about the caller's framing, which ends here.
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => data,
                    Ok(_) | Err(_) => continue,
                },
            };
            upload.received += data.len() as u64;
            if upload.received > upload.limit {
                upload.failure = Some(Failure::TooLarge);
                return Poll::Ready(Some(Err(UploadError::TooLarge)));
            }
            upload.ended = upload.incoming.is_end_stream();
            upload.kept.push(data.clone());
            upload.next = upload.kept.len();
            return Poll::Ready(Some(Ok(Frame::data(data))));
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.source {
            Source::Nothing => true,
            Source::Whole(bytes) => bytes.is_none(),
            Source::Upload(upload) => {
                let upload = upload.borrow();
                upload.ended && upload.next == upload.kept.len()
            }
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.source {
            Source::Nothing => SizeHint::with_exact(0),
            Source::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Source::Upload(upload) => {
                let upload = upload.borrow();
                let handed_out: usize = upload.kept.iter().take(upload.next).map(Bytes::len).sum();
                upload.declared.map_or_else(SizeHint::default, |declared| {
                    SizeHint::with_exact(declared.saturating_sub(handed_out as u64))
                })
            }
        }
    }
}

impl fmt::Debug for RequestBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RequestBody({} bytes so far)", self.received())
    }
}

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
    Streamed(Box<Download>),
}

struct Download {
    incoming: Incoming,
    /// Given back when the body has ended; a connection whose answer was not read to the end is closed.
    lease: Option<Lease<RequestBody>>,
    deadline: Pin<Box<Sleep>>,
}

impl fmt::Debug for Download {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Download").field("lease", &self.lease).finish_non_exhaustive()
    }
}

/// Why an answer's body stopped.
#[derive(Debug, thiserror::Error)]
pub enum DownloadError {
    /// The endpoint broke off.
    #[error("the endpoint broke off in the middle of its answer")]
    Broken(#[source] hyper::Error),
    /// The endpoint took too long.
    #[error("the endpoint did not finish its answer in time")]
    Deadline,
}

impl ResponseBody {
    /// A body of the gateway's own.
    pub(super) fn whole(bytes: Bytes, exchange: Box<Exchange>) -> Self {
        let content = if bytes.is_empty() { Content::Nothing } else { Content::Whole(Some(bytes)) };
        Self { content, exchange: Some(exchange) }
    }

    /// An endpoint's body, which may take `time` to end.
    pub(super) fn streamed(answer: Answer, time: Duration, exchange: Box<Exchange>) -> Self {
        let content = match answer {
            Answer::Empty => Content::Nothing,
            Answer::Whole(bytes) => Content::Whole(Some(bytes)),
            Answer::Streamed(incoming, lease) => {
                let deadline = Box::pin(tokio::time::sleep_until(Instant::now() + time));
                Content::Streamed(Box::new(Download { incoming, lease: Some(lease), deadline }))
            }
        };
        Self { content, exchange: Some(exchange) }
    }
}

/// The body of an endpoint's answer, as it comes from an attempt.
pub(super) enum Answer {
    /// There is none; the connection is back in its pool.
    Empty,
    /// It was read already; the connection is back in its pool.
    Whole(Bytes),
    /// It is still to be read from this connection.
    Streamed(Incoming, Lease<RequestBody>),
}

impl Answer {
    pub(super) fn new(incoming: Incoming, lease: Lease<RequestBody>) -> Self {
        if incoming.is_end_stream() {
            lease.finished();
            return Self::Empty;
        }
        Self::Streamed(incoming, lease)
    }

    /// Reads an answer that nobody wants, if it is small, so that its connection can be used again.
    pub(super) fn discard(self) {
        if let Self::Streamed(..) = self {
            // Ends by its own limits, or with the worker.
            tokio::task::spawn_local(async move { self.collected(UNWANTED_ANSWER, UNWANTED_TIME).await.map(drop) });
        }
    }

    /// Reads an answer to its end: `most` bytes, within `time`.
    ///
    /// # Errors
    /// The endpoint broke off, took too long or sent more.
    pub(super) async fn collected(self, most: usize, time: Duration) -> Result<Bytes, ProxyError> {
        let (incoming, lease) = match self {
            Self::Empty => return Ok(Bytes::new()),
            Self::Whole(bytes) => return Ok(bytes),
            Self::Streamed(incoming, lease) => (incoming, lease),
        };
        let collected = Limited::new(incoming, most).collect();
        let collected =
            tokio::time::timeout(time, collected).await.map_err(|_late| ProxyError::Deadline { limit: time })?;
        let bytes = collected.map_err(ProxyError::AnswerBroken)?.to_bytes();
        lease.finished();
        Ok(bytes)
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
            Content::Streamed(download) => ready!(download.poll_frame(cx)),
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
            Content::Streamed(download) => download.lease.is_none() || download.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Nothing | Content::Whole(None) => SizeHint::with_exact(0),
            Content::Whole(Some(bytes)) => SizeHint::with_exact(bytes.len() as u64),
            Content::Streamed(download) => download.incoming.size_hint(),
        }
    }
}

impl Drop for ResponseBody {
    fn drop(&mut self) {
        // hyper drops a body whose last byte it has without asking for the end.
        let is_complete = self.is_end_stream();
        if let Content::Streamed(download) = &mut self.content
            && is_complete
            && let Some(lease) = download.lease.take()
        {
            lease.finished();
        }
        if let Some(mut exchange) = self.exchange.take() {
            if !is_complete {
                exchange.broke_off();
            }
            exchange.finish();
        }
    }
}

impl Download {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, DownloadError>>> {
        let frame = match Pin::new(&mut self.incoming).poll_frame(cx) {
            Poll::Ready(frame) => frame,
            Poll::Pending => {
                ready!(self.deadline.as_mut().poll(cx));
                self.lease = None;
                return Poll::Ready(Some(Err(DownloadError::Deadline)));
            }
        };
        match frame {
            None => {
                if let Some(lease) = self.lease.take() {
                    lease.finished();
                }
                Poll::Ready(None)
            }
            Some(Err(err)) => {
                self.lease = None;
                Poll::Ready(Some(Err(DownloadError::Broken(err))))
            }
            Some(Ok(frame)) => Poll::Ready(Some(Ok(frame))),
        }
    }
}

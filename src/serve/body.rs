//! The body of a caller's request, over HTTP/1.1 or HTTP/2.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::conn_waker::ConnWaker;

/// The body of a caller's request. It ends only where the caller ended it; any other end is an error.
#[derive(Debug)]
pub struct CallerBody(Inner);

#[derive(Debug)]
enum Inner {
    Http1 {
        incoming: Incoming,
        /// The waker of the connection.
        waker: Option<Arc<ConnWaker>>,
    },
    Http2(Http2Body),
}

/// Why a caller's body stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum CallerBodyError {
    /// On an HTTP/1.1 connection.
    #[error(transparent)]
    Http1(#[from] hyper::Error),
    /// On an HTTP/2 connection.
    #[error(transparent)]
    Http2(#[from] h2::Error),
}

impl CallerBody {
    /// Makes the body of a request on an HTTP/1.1 connection; `waker` is the connection's.
    pub(super) fn http1(incoming: Incoming, waker: Option<Arc<ConnWaker>>) -> Self {
        Self(Inner::Http1 { incoming, waker })
    }

    /// Makes the body of a request that a test receives with hyper's own server.
    #[cfg(test)]
    pub(crate) fn of_request(incoming: Incoming) -> Self {
        Self::http1(incoming, None)
    }
}

impl From<Http2Body> for CallerBody {
    fn from(body: Http2Body) -> Self {
        Self(Inner::Http2(body))
    }
}

impl Body for CallerBody {
    type Data = Bytes;
    type Error = CallerBodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CallerBodyError>>> {
        match &mut self.0 {
            Inner::Http1 { incoming, waker } => {
                let frame = match waker {
                    Some(waker) => waker.poll_body_frame(incoming, cx),
                    None => Pin::new(incoming).poll_frame(cx),
                };
                frame.map_err(CallerBodyError::from)
            }
            Inner::Http2(body) => body.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Http1 { incoming, .. } => incoming.is_end_stream(),
            Inner::Http2(body) => body.stream.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Http1 { incoming, .. } => incoming.size_hint(),
            Inner::Http2(body) => match body.left {
                _ if body.stream.is_end_stream() => SizeHint::with_exact(0),
                Some(left) => SizeHint::with_exact(left),
                None => SizeHint::default(),
            },
        }
    }
}

/// A body on an HTTP/2 stream. Releases flow-control capacity as it is read.
///
/// hyper's own body treats `RST_STREAM` with `NO_ERROR` as the end of an upload, so a partial message would pass as complete.
#[derive(Debug)]
pub(super) struct Http2Body {
    stream: RecvStream,
    /// The bytes left of the declared length. h2 rejects bodies of another length.
    left: Option<u64>,
}

impl Http2Body {
    pub(super) fn new(stream: RecvStream, declared: Option<u64>) -> Self {
        Self { stream, left: declared }
    }

    /// Waits until a stream whose declared length is 0 has ended without data. Returns at once for any other length.
    ///
    /// # Errors
    /// If the caller sends data or resets the stream.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn verify_declared_empty(&mut self) -> Result<(), h2::Error> {
        if self.left != Some(0) {
            return Ok(());
        }
        while let Some(data) = self.stream.data().await {
            data?;
        }
        self.stream.trailers().await.map(drop)
    }

    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, CallerBodyError>>> {
        let Some(data) = ready!(self.stream.poll_data(cx)).transpose()? else {
            let trailers = ready!(self.stream.poll_trailers(cx))?;
            return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
        };
        self.stream.flow_control().release_capacity(data.len())?;
        self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
        Poll::Ready(Some(Ok(Frame::data(data))))
    }
}

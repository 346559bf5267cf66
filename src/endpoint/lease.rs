//! Connections in use by a request, and response bodies that are read from them. The connection returns to its store at the end of
//! the exchange. If the request or the body is dropped earlier, the exchange is finished in the background if possible, else the
//! connection is closed.

use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::http1::{Http1Error, RequestHead, UploadBody};
use super::http2;
use super::send_error::{self, Processing, SendError, TransportError};
use super::store::{ConnectionStore, PoolConnection, TrackedConnection};

/// An upper bound of the round-trip time. A later response was sent after the endpoint had received the request.
const ROUND_TRIP: Duration = Duration::from_secs(1);

/// A connection that is leased to one request. Dropping it closes an HTTP/1.1 connection.
pub struct Lease<B> {
    connection: PoolConnection<B>,
    is_reused: bool,
    store: ConnectionStore<B>,
}

impl<B: UploadBody> Lease<B> {
    pub(super) fn new(connection: PoolConnection<B>, is_reused: bool, store: ConnectionStore<B>) -> Self {
        Self { connection, is_reused, store }
    }

    /// Returns whether the connection carried a request before. The endpoint may have just closed such a connection.
    pub fn is_reused(&self) -> bool {
        self.is_reused
    }

    /// Starts a request on the connection. The returned future writes it and waits for the head of the response.
    ///
    /// # Errors
    /// [`SendError`], which states whether the endpoint may have processed the request.
    ///
    /// # Cancel safety
    /// Not safe: the endpoint may have processed the request.
    pub fn send(self, head: &RequestHead<'_>, body: B) -> Sending<B> {
        let Self { connection, store, is_reused } = self;
        match connection {
            PoolConnection::Http1(mut tracked) => {
                tracked.connection.begin(head, body);
                Sending::Http1(Some(SendingHttp1 { tracked, is_reused, store }))
            }
            PoolConnection::Http2(mut sender, number) => {
                let request = http2::request(head, body, store.endpoint().connector().uri());
                Sending::Http2(Box::pin(async move {
                    let response = sender.try_send_request(request).await;
                    response.map(|response| response.map(|body| Download(Source::Http2(body)))).map_err(|mut err| {
                        let is_unsent = err.take_message().is_some();
                        let err = err.into_error();
                        if send_error::is_going_away(&err) || is_unsent {
                            store.retire(number);
                        }
                        let processing = if is_unsent { Processing::Unsent } else { send_error::processing(&err) };
                        SendError { processing, source: err.into() }
                    })
                }))
            }
        }
    }
}

/// The head of the response to a request, or why there is none.
type Sent<B> = Result<Response<Download<B>>, SendError>;

/// A future that writes a request and waits for the head of the response.
pub enum Sending<B> {
    /// The request on an HTTP/1.1 connection; `None` when complete.
    Http1(Option<SendingHttp1<B>>),
    /// The request on a shared HTTP/2 connection. It is boxed because it is rarer and larger.
    Http2(Pin<Box<dyn Future<Output = Sent<B>>>>),
}

/// A request that is being sent on an HTTP/1.1 connection.
pub struct SendingHttp1<B> {
    tracked: TrackedConnection<B>,
    is_reused: bool,
    store: ConnectionStore<B>,
}

impl<B: UploadBody> Future for Sending<B> {
    type Output = Sent<B>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let state = match self.get_mut() {
            Self::Http1(state) => state,
            Self::Http2(response) => return response.as_mut().poll(cx),
        };
        let Some(sending) = state else { return Poll::Pending };
        let response = ready!(sending.tracked.connection.poll_response(cx));
        let Some(sending) = state.take() else { return Poll::Pending };
        Poll::Ready(sending.finish(response))
    }
}

impl<B> Drop for Sending<B> {
    fn drop(&mut self) {
        if let Self::Http1(state) = self
            && let Some(SendingHttp1 { tracked, store, .. }) = state.take()
        {
            store.abandon(tracked, false);
        }
    }
}

impl<B: UploadBody> SendingHttp1<B> {
    fn finish(self, response: Result<Response<()>, Http1Error>) -> Sent<B> {
        match response {
            Ok(response) if response.status() == StatusCode::REQUEST_TIMEOUT && self.is_about_idle_connection() => {
                Err(SendError { processing: Processing::NotProcessed, source: Http1Error::IdleTimeout.into() })
            }
            Ok(response) => Ok(response.map(|()| Download::http1(self.tracked, self.store))),
            Err(err) => {
                let is_unsent = self.tracked.connection.is_unsent();
                let processing = if is_unsent { Processing::Unsent } else { Processing::Possible };
                Err(SendError { processing, source: err.into() })
            }
        }
    }

    /// Returns whether a 408 is a timeout of the idle connection, not of the request.
    ///
    /// The endpoint may send such a 408 just before the request is written, and closes the connection. It states that the endpoint
    /// received no complete request. A 408 for a complete request would be sent only after a timeout of the endpoint. Chromium and
    /// Firefox apply the same rule.
    ///
    /// Source: RFC 9110 section 15.5.9.
    fn is_about_idle_connection(&self) -> bool {
        let connection = &self.tracked.connection;
        let is_within_round_trip = || self.tracked.used.elapsed() < ROUND_TRIP;
        self.is_reused && connection.will_close() && (!connection.is_written() || is_within_round_trip())
    }
}

/// The body of an endpoint's response.
pub struct Download<B>(Source<B>);

enum Source<B> {
    /// The body has ended.
    Ended,
    Http1(TrackedConnection<B>, ConnectionStore<B>),
    Http2(Incoming),
}

impl<B: UploadBody> Download<B> {
    fn http1(tracked: TrackedConnection<B>, store: ConnectionStore<B>) -> Self {
        let mut download = Self(Source::Http1(tracked, store));
        download.end_if_ended();
        download
    }

    /// Returns the connection to its store if the body has ended.
    fn end_if_ended(&mut self) {
        if let Source::Http1(tracked, _) = &self.0
            && tracked.connection.body_has_ended()
            && let Source::Http1(tracked, store) = std::mem::replace(&mut self.0, Source::Ended)
        {
            store.put_back(tracked);
        }
    }
}

impl<B> Drop for Download<B> {
    fn drop(&mut self) {
        if let Source::Http1(tracked, store) = std::mem::replace(&mut self.0, Source::Ended) {
            store.abandon(tracked, true);
        }
    }
}

impl<B: UploadBody> Body for Download<B> {
    type Data = Bytes;
    type Error = TransportError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TransportError>>> {
        let frame = match &mut self.0 {
            Source::Ended => None,
            Source::Http1(tracked, _) => ready!(tracked.connection.poll_body(cx))
                .map(|piece| piece.map(Frame::data).map_err(TransportError::from)),
            Source::Http2(body) => {
                return Pin::new(body).poll_frame(cx).map(|frame| Some(frame?.map_err(TransportError::from)));
            }
        };
        match frame {
            Some(Err(_)) => self.0 = Source::Ended,
            Some(Ok(_)) | None => self.end_if_ended(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Source::Ended => true,
            // `end_if_ended` has replaced every body that has ended.
            Source::Http1(..) => false,
            Source::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Ended => SizeHint::with_exact(0),
            Source::Http1(tracked, _) => {
                tracked.connection.body_left().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Source::Http2(body) => body.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests;

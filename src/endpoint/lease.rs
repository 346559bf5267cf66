//! A connection in use, and a response body that is read from it. Either returns the connection to its store at the end of the
//! exchange. If it is dropped earlier, the exchange is finished in the background if possible, else the connection is closed.

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
use super::store::{ConnectionStore, Counted, Line};

/// The time within which a response arrives that was sent before the request was received: a generous round trip.
const ROUND_TRIP: Duration = Duration::from_secs(1);

/// A connection for one request. Dropping it closes the connection if it is HTTP/1.1.
pub struct Lease<B> {
    line: Line<B>,
    reused: bool,
    store: ConnectionStore<B>,
}

impl<B: UploadBody> Lease<B> {
    pub(super) fn new(line: Line<B>, reused: bool, store: ConnectionStore<B>) -> Self {
        Self { line, reused, store }
    }

    /// Whether the connection carried a request before. The endpoint may have just closed such a connection.
    pub fn is_reused(&self) -> bool {
        self.reused
    }

    /// Starts a request on the connection. The returned future writes it and waits for the head of the response.
    ///
    /// # Errors
    /// [`SendError`]; it says whether the request may have been received.
    ///
    /// # Cancel safety
    /// Not safe: the request may have been received.
    pub fn send(self, head: &RequestHead<'_>, body: B) -> Sending<B> {
        let Self { line, store, reused } = self;
        match line {
            Line::Http1(mut counted) => {
                counted.connection.begin(head, body);
                Sending::Http1(Some(SendingHttp1 { counted, reused, store }))
            }
            Line::Http2(mut sender, number) => {
                let request = http2::request(head, body, store.endpoint().connector().uri());
                Sending::Http2(Box::pin(async move {
                    let answer = sender.try_send_request(request).await;
                    answer.map(|answer| answer.map(|body| Download(Source::Http2(body)))).map_err(|mut err| {
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

/// The result of a request.
type Sent<B> = Result<Response<Download<B>>, SendError>;

/// Writes a request and waits for the head of the response.
pub enum Sending<B> {
    /// On an HTTP/1.1 connection; `None` when complete.
    Http1(Option<SendingHttp1<B>>),
    /// On a shared HTTP/2 connection. Boxed because it is rarer and larger.
    Http2(Pin<Box<dyn Future<Output = Sent<B>>>>),
}

/// A request that is being sent on an HTTP/1.1 connection.
pub struct SendingHttp1<B> {
    counted: Counted<B>,
    reused: bool,
    store: ConnectionStore<B>,
}

impl<B: UploadBody> Future for Sending<B> {
    type Output = Sent<B>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let on = match self.get_mut() {
            Self::Http1(on) => on,
            Self::Http2(answer) => return answer.as_mut().poll(cx),
        };
        let Some(exchange) = on else { return Poll::Pending };
        let answer = ready!(exchange.counted.connection.poll_answer(cx));
        let Some(exchange) = on.take() else { return Poll::Pending };
        Poll::Ready(exchange.ended(answer))
    }
}

impl<B> Drop for Sending<B> {
    fn drop(&mut self) {
        if let Self::Http1(on) = self
            && let Some(SendingHttp1 { counted, store, .. }) = on.take()
        {
            store.abandon(counted, false);
        }
    }
}

impl<B: UploadBody> SendingHttp1<B> {
    fn ended(self, answer: Result<Response<()>, Http1Error>) -> Sent<B> {
        match answer {
            Ok(answer) if answer.status() == StatusCode::REQUEST_TIMEOUT && self.is_about_idle_connection() => {
                Err(SendError { processing: Processing::NotProcessed, source: Http1Error::IdleTimeout.into() })
            }
            Ok(answer) => Ok(answer.map(|()| Download::http1(self.counted, self.store))),
            Err(err) => {
                let is_unsent = self.counted.connection.is_unsent();
                let processing = if is_unsent { Processing::Unsent } else { Processing::Possible };
                Err(SendError { processing, source: err.into() })
            }
        }
    }

    /// Returns whether a 408 concerns the connection, which was idle for too long, and not the request.
    ///
    /// Such a response may be in flight when the request is written, and is then read as its response. It states that the
    /// endpoint received no complete request, and closes the connection. A 408 for a complete request would come only after a
    /// timeout of the endpoint. Chromium and Firefox use the same rule.
    ///
    /// Source: RFC 9110 section 15.5.9.
    fn is_about_idle_connection(&self) -> bool {
        let connection = &self.counted.connection;
        let came_within_round_trip = || self.counted.used.elapsed() < ROUND_TRIP;
        self.reused && connection.will_close() && (!connection.is_written() || came_within_round_trip())
    }
}

/// The body of an endpoint's response.
pub struct Download<B>(Source<B>);

enum Source<B> {
    /// The body has ended.
    Ended,
    Http1(Counted<B>, ConnectionStore<B>),
    Http2(Incoming),
}

impl<B: UploadBody> Download<B> {
    fn http1(counted: Counted<B>, store: ConnectionStore<B>) -> Self {
        let mut download = Self(Source::Http1(counted, store));
        download.end_if_ended();
        download
    }

    /// Returns the connection to its store, if the body has ended.
    fn end_if_ended(&mut self) {
        if let Source::Http1(counted, _) = &self.0
            && counted.connection.body_has_ended()
            && let Source::Http1(counted, store) = std::mem::replace(&mut self.0, Source::Ended)
        {
            store.give_back(counted);
        }
    }
}

impl<B> Drop for Download<B> {
    fn drop(&mut self) {
        if let Source::Http1(counted, store) = std::mem::replace(&mut self.0, Source::Ended) {
            store.abandon(counted, true);
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
            Source::Http1(counted, _) => ready!(counted.connection.poll_body(cx))
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
            // `end_if_ended` replaces it when it has ended.
            Source::Http1(..) => false,
            Source::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Source::Ended => SizeHint::with_exact(0),
            Source::Http1(counted, _) => {
                counted.connection.body_left().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Source::Http2(body) => body.size_hint(),
        }
    }
}

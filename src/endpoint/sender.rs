//! The way requests go onto one connection: HTTP/1.1, one request at a time, or HTTP/2, many.

use std::pin::Pin;

use bytes::Bytes;
use futures_util::TryFutureExt;
use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{Request, Response, Uri, Version};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::{TrySendError, http1, http2};
use hyper::rt::Executor;

use crate::metrics::ConnectionCount;

/// A connection's sending end. Dropping an HTTP/1.1 one closes the connection; HTTP/2 ones share theirs.
pub(super) enum Sender<B> {
    Http1 { sender: http1::SendRequest<B>, count: ConnectionCount },
    Http2 { sender: http2::SendRequest<B>, scheme: Scheme, authority: Authority },
}

/// A request that got no answer.
#[derive(Debug)]
pub struct SendError<B> {
    /// The request, if nothing of it was written to the connection.
    pub unsent: Option<Request<B>>,
    /// What went wrong.
    pub source: hyper::Error,
}

impl<B: Body<Data = Bytes, Error: Into<Box<dyn std::error::Error + Send + Sync>>> + Unpin + 'static> Sender<B> {
    /// Hands a request to the connection, and returns what waits for the head of its answer. That is in a box: with room for
    /// the request in it, it would be half of every request's future.
    pub(super) fn send(&mut self, mut request: Request<B>) -> Sending<B> {
        match self {
            Self::Http1 { sender, .. } => Box::pin(sender.try_send_request(request).map_err(SendError::from)),
            Self::Http2 { sender, scheme, authority } => {
                address(&mut request, scheme, authority);
                Box::pin(sender.try_send_request(request).map_err(SendError::from))
            }
        }
    }
}

/// Waits for the head of an answer.
pub type Sending<B> = Pin<Box<dyn Future<Output = Result<Response<Incoming>, SendError<B>>>>>;

impl<B> From<TrySendError<Request<B>>> for SendError<B> {
    fn from(mut err: TrySendError<Request<B>>) -> Self {
        Self { unsent: err.take_message(), source: err.into_error() }
    }
}

/// Says in HTTP/2's way where a request goes: in the request line instead of `Host`.
///
/// Source: RFC 9113 section 8.3.1.
fn address<B>(request: &mut Request<B>, scheme: &Scheme, authority: &Authority) {
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().remove(HOST);
    let mut uri = std::mem::take(request.uri_mut()).into_parts();
    uri.scheme = Some(scheme.clone());
    uri.authority = Some(authority.clone());
    // The three of them always make a URI.
    *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
}

/// Runs the streams of HTTP/2 connections on the worker's own thread.
#[derive(Clone, Copy)]
pub(super) struct OnThisThread;

impl<F: Future<Output: 'static> + 'static> Executor<F> for OnThisThread {
    fn execute(&self, future: F) {
        // Ends with its connection, or with the worker.
        tokio::task::spawn_local(future);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn target_of_http2_keeps_path_and_query_as_they_came() {
        let target = "/api/hubs/h%2F/:send?api-version=2022-11-01&excluded=a&excluded=b";
        let mut request = Request::post(target).header("host", "east.example").body(()).unwrap();
        for _again in 0..2 {
            address(&mut request, &Scheme::HTTPS, &Authority::from_static("east.example:8443"));
            assert_eq!(request.uri().to_string(), format!("https://east.example:8443{target}"));
            assert!(!request.headers().contains_key("host"));
        }
    }
}

//! Why a request got no response, and what the endpoint may have done with it.

use std::error::Error;

use super::http1::Http1Error;

/// A request that got no response.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct SendError {
    /// What the endpoint may have done with the request.
    pub processing: Processing,
    /// What went wrong.
    pub source: TransportError,
}

/// What an endpoint may have done with an unanswered request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processing {
    /// Nothing: none of the request was sent.
    Unsent,
    /// Nothing: the endpoint states that it did not process the request.
    NotProcessed,
    /// Unknown: the request may have been received and processed.
    Possible,
}

impl SendError {
    /// Returns whether the request can be repeated without being processed twice.
    pub fn is_safe_to_repeat(&self) -> bool {
        self.processing != Processing::Possible
    }
}

/// Why a response is missing or incomplete.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// On an HTTP/1.1 connection.
    #[error(transparent)]
    Http1(#[from] Http1Error),
    /// On an HTTP/2 connection.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

impl TransportError {
    /// Returns whether the endpoint sent a response that cannot be parsed: then it processed the request. Otherwise the
    /// connection failed.
    pub fn is_invalid_response(&self) -> bool {
        match self {
            Self::Http1(err) => err.is_invalid_response(),
            Self::Http2(err) => err.is_parse() || is_invalid_response(err),
        }
    }
}

/// Returns what an error on an HTTP/2 stream says about its request.
///
/// An endpoint that resets a stream with `REFUSED_STREAM`, or that closes the connection with a `GOAWAY` whose last stream
/// is an earlier one, has not processed the request. h2 reports a `GOAWAY` of the endpoint only on streams after the last.
///
/// Source: RFC 9113 sections 6.8 and 8.7.
pub(super) fn processing(err: &hyper::Error) -> Processing {
    match h2_error(err) {
        Some(cause) if cause.is_remote() && cause.is_go_away() => Processing::NotProcessed,
        Some(cause) if cause.is_remote() && cause.reason() == Some(h2::Reason::REFUSED_STREAM) => {
            Processing::NotProcessed
        }
        _ => Processing::Possible,
    }
}

/// Returns whether the endpoint sent invalid HTTP/2, for which h2 reset the stream or closed the connection.
fn is_invalid_response(err: &hyper::Error) -> bool {
    h2_error(err).is_some_and(h2::Error::is_library)
}

fn h2_error(err: &hyper::Error) -> Option<&h2::Error> {
    err.source()?.downcast_ref()
}

/// Returns whether the endpoint accepts no more requests on the connection.
pub(super) fn is_going_away(err: &hyper::Error) -> bool {
    h2_error(err).is_some_and(h2::Error::is_go_away)
}

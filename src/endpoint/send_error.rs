//! Errors of requests without a response. Each states whether the endpoint may have processed the request.

use std::error::Error;

use super::http1::Http1Error;

/// Error of a request without a response.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub struct SendError {
    /// Whether the endpoint may have processed the request.
    pub processing: Processing,
    /// The cause.
    pub source: TransportError,
}

/// Whether an endpoint may have processed a request without a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Processing {
    /// It did not: no part of the request was sent.
    Unsent,
    /// It did not, as the endpoint states.
    NotProcessed,
    /// It may have: the request was sent at least in part.
    Possible,
}

impl SendError {
    /// Returns whether the request can be repeated without being processed twice.
    pub fn is_safe_to_repeat(&self) -> bool {
        self.processing != Processing::Possible
    }
}

/// Error of an HTTP connection, for which a response is missing or incomplete.
#[derive(Debug, thiserror::Error)]
pub enum TransportError {
    /// The error of an HTTP/1.1 connection.
    #[error(transparent)]
    Http1(#[from] Http1Error),
    /// The error of an HTTP/2 connection or stream.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

impl TransportError {
    /// Returns whether the endpoint sent an invalid response, so it has processed the request. All other errors are failures of
    /// the connection or of the request body.
    pub fn is_invalid_response(&self) -> bool {
        match self {
            Self::Http1(err) => err.is_invalid_response(),
            Self::Http2(err) => err.is_parse() || is_invalid_response(err),
        }
    }
}

/// Returns whether the endpoint may have processed the request of a failed HTTP/2 stream.
///
/// `REFUSED_STREAM` states that the endpoint has not processed the request, and so does a `GOAWAY` whose last stream is an earlier
/// one. h2 reports a remote `GOAWAY` only on streams after the last.
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

/// Returns whether h2 reset the stream or closed the connection because the endpoint sent invalid HTTP/2.
fn is_invalid_response(err: &hyper::Error) -> bool {
    h2_error(err).is_some_and(h2::Error::is_library)
}

fn h2_error(err: &hyper::Error) -> Option<&h2::Error> {
    err.source()?.downcast_ref()
}

/// Returns whether the endpoint sent `GOAWAY`, so it accepts no more requests on the connection.
pub(super) fn is_going_away(err: &hyper::Error) -> bool {
    h2_error(err).is_some_and(h2::Error::is_go_away)
}

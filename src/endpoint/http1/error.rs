//! Errors of an exchange over HTTP/1.1.

use std::io;

/// The maximum length of a response head, in bytes. Chosen: four times the usual limit of servers.
pub(super) const MAX_HEAD_BYTES: usize = 128 * 1024;

/// The error of a request body.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Error of an HTTP/1.1 exchange, for which the response is missing or incomplete.
#[derive(Debug, thiserror::Error)]
pub enum Http1Error {
    /// The endpoint closed the connection.
    #[error("the endpoint closed the connection before the response was complete")]
    Closed,
    /// The connection failed.
    #[error("the connection to the endpoint failed")]
    Io(#[from] io::Error),
    /// The response is not HTTP/1.x.
    #[error("the endpoint's response is not valid HTTP")]
    Syntax(#[source] httparse::Error),
    /// The response does not state unambiguously where it ends.
    #[error("the framing of the endpoint's response is not valid: {0}")]
    Framing(&'static str),
    /// The response has a transfer coding that the gateway does not support.
    #[error("the endpoint's response has a transfer coding other than `chunked`, which the gateway does not support")]
    TransferCoding,
    /// The head of the response is too long.
    #[error("the head of the endpoint's response is longer than {MAX_HEAD_BYTES} bytes")]
    HeadTooLarge,
    /// The endpoint closed the idle connection. Its 408 is not a response to the request.
    #[error("the endpoint closed the idle connection (408) while the request was being sent")]
    IdleTimeout,
    /// The request body could not be read from the caller.
    #[error("the request body could not be read")]
    RequestBody(#[source] Cause),
    /// The request body does not have its declared length.
    #[error("the request body does not have its declared length")]
    RequestBodyLength,
}

impl Http1Error {
    /// Returns whether the endpoint sent an invalid response.
    pub fn is_invalid_response(&self) -> bool {
        matches!(self, Self::Syntax(_) | Self::Framing(_) | Self::TransferCoding | Self::HeadTooLarge)
    }
}

//! Why an exchange over HTTP/1.1 broke off.

use std::io;

/// The largest head of an answer, in bytes. Chosen: four times what servers usually allow themselves.
pub(super) const MAX_HEAD_BYTES: usize = 128 * 1024;

/// Why a body could not be read on.
pub(super) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no answer, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum Http1Error {
    /// The endpoint closed the connection.
    #[error("the endpoint closed the connection before its answer had ended")]
    Closed,
    /// The connection broke.
    #[error("the connection to the endpoint broke")]
    Io(#[from] io::Error),
    /// What came is not HTTP/1.x.
    #[error("what the endpoint sent is not HTTP")]
    NotHttp(#[source] httparse::Error),
    /// What came does not say where it ends, or says two things.
    #[error("the endpoint's answer is not clearly framed: {0}")]
    Framing(&'static str),
    /// Its body is coded for the connection in a way that is not known here.
    #[error("the endpoint's answer has a transfer coding other than chunked, which this gateway did not ask for")]
    Coding,
    /// The head has no end.
    #[error("the head of the endpoint's answer is longer than {MAX_HEAD_BYTES} bytes")]
    HeadTooLarge,
    /// What came is no answer to the request.
    #[error("the endpoint closed the connection, which was idle for too long for it, as the request was sent (408)")]
    IdleTimeout,
    /// The caller broke off.
    #[error("the body of the request broke off")]
    Upload(#[source] Cause),
    /// The caller's body is not as long as it said.
    #[error("the body of the request is not as long as it was said to be")]
    UploadLength,
}

impl Http1Error {
    /// Returns whether the endpoint sent an answer that cannot be read.
    pub fn is_invalid_response(&self) -> bool {
        matches!(self, Self::NotHttp(_) | Self::Framing(_) | Self::Coding | Self::HeadTooLarge)
    }
}

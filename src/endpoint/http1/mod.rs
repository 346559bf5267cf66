//! HTTP/1.1 client connections to an endpoint. A connection carries one request at a time. The task of the request drives it, so it
//! needs no task, no channel and no copy of the headers of its own.
//!
//! It replaces hyper's client, whose task, channel and second header map cost 10 k of 48 k instructions per request (callgrind,
//! 2026-11). The tests compare the two clients. Ambiguous framing is rejected, not repaired. Deviations that RFC 9110 and 9112 allow
//! a proxy to accept are accepted: equal lengths, white space before a colon, head lines that end in a bare LF.

mod connection;
mod error;
mod framing;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod head;
mod upload;

#[cfg(test)]
pub(super) mod tests;

pub(super) use connection::Connection;
pub use error::Http1Error;
pub use head::{HeaderVisitor, RequestHead};
pub use upload::UploadBody;

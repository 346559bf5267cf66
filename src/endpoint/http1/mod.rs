//! An HTTP/1.1 client connection to an endpoint. The task of the request drives it: no task, no channel and no copy of the
//! headers per connection. It carries one request at a time.
//!
//! Replaces hyper's client, whose task, channel and second header map cost 10 k of 48 k instructions per request (callgrind,
//! 2026-11). `tests.rs` compares the two. Ambiguous framing is refused, not repaired; deviations that RFC 9110 and 9112 allow a
//! proxy to accept (equal lengths, white space before a colon, head lines that end in a bare LF) are accepted.

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

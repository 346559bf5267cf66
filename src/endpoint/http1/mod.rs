//! One HTTP/1.1 connection to an endpoint, driven by whoever has a request on it: no task of its own, no channel, no copy of
//! the headers. It carries one request at a time.
//!
//! hyper's client would do, and did: of 48 k instructions that a request took, 10 k went to its task, its channel and the
//! headers' second map (callgrind, 2026-11). `tests.rs` holds the two against each other. What is not plainly framed is
//! refused, not repaired; what RFC 9110 and 9112 let a proxy read (equal lengths, a blank before a colon, lines of a head that
//! end with a line feed alone) is read.

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
pub use error::Broken;
pub use head::{EachLine, RequestHead};
pub use upload::UploadBody;

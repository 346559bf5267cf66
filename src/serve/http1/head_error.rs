//! The reasons to reject a request head.

/// Why a caller's request head was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// It violates RFC 9110 or 9112 in this way.
    Malformed(&'static str),
    /// Its body has a transfer coding other than `chunked` (RFC 9112 section 6.1).
    UnknownCoding,
    /// It has more header lines than this.
    TooManyFields {
        /// The most that are accepted.
        limit: usize,
    },
    /// It has at least this many bytes and is incomplete.
    TooLarge {
        /// The bytes received.
        size: usize,
    },
}

//! Why a request was refused before it was parsed.

/// Why a caller's head was not passed on: it is malformed, or HTTP/1.1 has rules for it that the gateway does not take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It breaks a rule of RFC 9110 or 9112; says which.
    Malformed(&'static str),
    /// Its body has a transfer coding other than `chunked` (RFC 9112 section 6.1).
    UnknownCoding,
    /// It has more header lines than this.
    TooManyFields {
        /// The most that would have been taken.
        limit: usize,
    },
    /// It has at least this many bytes and did not end.
    TooLarge {
        /// What had come.
        size: usize,
    },
}

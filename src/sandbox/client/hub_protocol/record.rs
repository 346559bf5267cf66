//! The kinds of records, without their encoding.

use rmpv::Value;

use crate::sandbox::signalr::delivery::Close;

/// The largest record of a client, in bytes.
pub(crate) const MAX_RECORD: usize = 1024 * 1024;

/// The highest supported version of the hub protocol. Version 2 adds stateful reconnect for clients that negotiated it. In
/// versions 0 and 1, the sandbox sends the same records; some clients announce version 0.
pub(super) const MAX_VERSION: u64 = 2;

/// A record of a client.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Record {
    /// An invocation of a hub method. With an id, the client waits for a completion.
    Invocation {
        /// The invocation id.
        id: Option<String>,
    },
    /// The completion of an invocation.
    Completion {
        /// The invocation id.
        id: String,
        /// The value or the error message.
        result: Result<Value, String>,
    },
    /// A stream invocation, a stream item or the cancellation of a stream. Callers send the items by REST.
    Stream,
    /// An acknowledgement of every record up to this number.
    Ack(u64),
    /// The number of the next record.
    Sequence(u64),
    /// The end of the connection.
    Close,
    /// A ping, or a record that the sandbox ignores.
    Other,
}

/// A record for a client.
#[derive(Clone, Copy, Debug)]
pub(super) enum OutgoingRecord<'a> {
    Invocation { id: Option<&'a str>, target: &'a str, arguments: &'a [Value] },
    StreamItem { id: &'a str, item: &'a Value },
    Completion { id: &'a str, error: Option<&'a str> },
    Ping,
    Close(&'a Close),
    Ack(u64),
    Sequence(u64),
}

/// A violation of the hub protocol. The text is sent to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ProtocolError {
    #[error("the first record is not a handshake: {0}")]
    Handshake(String),
    #[error("the hub protocol '{0}' is not supported; use 'json' or 'messagepack'")]
    Protocol(String),
    #[error("version {0} of the hub protocol is not supported; the highest is {MAX_VERSION}")]
    Version(u64),
    #[error("a record is larger than {MAX_RECORD} bytes")]
    TooLarge,
    #[error("a record is invalid: {0}")]
    Malformed(String),
}

impl Record {
    /// Whether stateful reconnect numbers this kind of record.
    pub(crate) const fn is_numbered(&self) -> bool {
        matches!(self, Self::Invocation { .. } | Self::Completion { .. } | Self::Stream)
    }
}

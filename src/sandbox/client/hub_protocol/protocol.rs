//! Encodes the records for a client.

use bytes::Bytes;

use super::record::OutgoingRecord;
use super::{json, messagepack};
use crate::sandbox::signalr::delivery::{Close, Delivery};
use crate::sandbox::signalr::message::{Content, Invocation, Message, RECORD_SEPARATOR};

/// The encoding of records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// JSON; a record separator ends each record.
    Json,
    /// `MessagePack`; the length precedes each record.
    MessagePack,
}

impl Protocol {
    /// Whether the encoding is binary.
    pub(crate) const fn is_binary(self) -> bool {
        matches!(self, Self::MessagePack)
    }

    /// Encodes a delivery. Returns `None` for pre-encoded frames without one for this protocol.
    pub(crate) fn delivery(self, delivery: &Delivery) -> Option<Bytes> {
        Some(match delivery {
            Delivery::Message(message) => return self.message(message),
            Delivery::Invoke { id, message } => {
                let invocation = message.invocation()?;
                let (target, arguments) = (&invocation.target, &invocation.arguments);
                self.encode(OutgoingRecord::Invocation { id: Some(id), target, arguments })
            }
            Delivery::StreamItem { stream, item } => self.encode(OutgoingRecord::StreamItem { id: stream, item }),
            Delivery::StreamEnd { stream, error } => {
                self.encode(OutgoingRecord::Completion { id: stream, error: error.as_deref() })
            }
            Delivery::Close(close) => self.close(close),
        })
    }

    /// Encodes the end of a connection.
    pub(crate) fn close(self, close: &Close) -> Bytes {
        self.encode(OutgoingRecord::Close(close))
    }

    /// Encodes a ping.
    pub(crate) fn ping(self) -> Bytes {
        self.encode(OutgoingRecord::Ping)
    }

    /// Encodes an acknowledgement of every record up to a number.
    pub(crate) fn ack(self, number: u64) -> Bytes {
        self.encode(OutgoingRecord::Ack(number))
    }

    /// Encodes the number of the next record.
    pub(crate) fn sequence(self, number: u64) -> Bytes {
        self.encode(OutgoingRecord::Sequence(number))
    }

    /// Encodes the completion of a failed invocation.
    pub(crate) fn failure(self, id: &str, error: &str) -> Bytes {
        self.encode(OutgoingRecord::Completion { id, error: Some(error) })
    }

    /// Returns the record of a message. All receivers of the message share one encoded record.
    fn message(self, message: &Message) -> Option<Bytes> {
        match &message.content {
            Content::Frames { json, messagepack } => match self {
                Self::Json => json.clone(),
                Self::MessagePack => messagepack.clone(),
            },
            Content::Invocation(packed) => {
                let record = message.records.record(self.is_binary());
                if record.get().is_none() {
                    let Invocation { target, arguments } = packed.unpack()?;
                    let encoded =
                        self.encode(OutgoingRecord::Invocation { id: None, target: &target, arguments: &arguments });
                    // Another receiver may have set the same bytes in the meantime.
                    let _ = record.set(encoded);
                }
                record.get().cloned()
            }
        }
    }

    fn encode(self, outgoing: OutgoingRecord<'_>) -> Bytes {
        match self {
            Self::Json => json::encode(outgoing),
            Self::MessagePack => messagepack::encode(outgoing),
        }
    }
}

/// Encodes the response to a handshake: JSON in every protocol, and empty on success.
pub(crate) fn handshake_response(error: Option<&str>) -> Bytes {
    let body = error.map_or_else(|| serde_json::json!({}), |error| serde_json::json!({ "error": error }));
    let mut record = body.to_string().into_bytes();
    record.push(RECORD_SEPARATOR);
    record.into()
}

//! SignalR's hub protocol: the records that a client and a hub exchange, as JSON and as `MessagePack`. Knows neither
//! transports nor hubs.
//!
//! Source: HubProtocol.md of ASP.NET Core.

use bytes::{Buf, Bytes, BytesMut};
use rmpv::Value;
use serde::Deserialize;

use crate::sandbox::signalr::delivery::{Close, Delivery};
use crate::sandbox::signalr::message::{Content, Invocation, Message, RECORD_SEPARATOR};

mod json;
mod messagepack;

#[cfg(test)]
mod tests;

/// The largest record that a client may send, in bytes.
pub(super) const MAX_RECORD: usize = 1024 * 1024;

/// The highest version of the hub protocol that is spoken. Version 2 adds stateful reconnect for clients that negotiated
/// it. Older ones differ in nothing that the sandbox sends; clients exist that announce 0.
const MAX_VERSION: u64 = 2;

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// JSON, each record ended by a record separator.
    Json,
    /// `MessagePack`, each record preceded by its length.
    MessagePack,
}

/// What a client said.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Record {
    /// It calls a method of the hub; with an id it awaits an answer.
    Call {
        /// The id to answer under.
        id: Option<String>,
    },
    /// It answers a call.
    Completion {
        /// The call.
        id: String,
        /// Its value, or an error text.
        result: Result<Value, String>,
    },
    /// It asks for a stream, which callers then feed by REST; or it sends an item of one, or gives one up.
    Stream,
    /// It has received everything up to this number.
    Ack(u64),
    /// It goes on with the record of this number.
    Sequence(u64),
    /// It ends the connection.
    Close,
    /// It is there, or said something that the sandbox has no use for.
    Other,
}

/// What a client is told.
#[derive(Clone, Copy, Debug)]
enum Outgoing<'a> {
    Invocation { id: Option<&'a str>, target: &'a str, arguments: &'a [Value] },
    StreamItem { id: &'a str, item: &'a Value },
    Completion { id: &'a str, error: Option<&'a str> },
    Ping,
    Close(&'a Close),
    Ack(u64),
    Sequence(u64),
}

/// What a client's first record asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Handshake {
    /// How records are written from now on.
    pub(super) protocol: Protocol,
    /// The version of the hub protocol.
    pub(super) version: u64,
}

/// Why what a client sent is not understood. The text goes to the client.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ProtocolError {
    #[error("the first record is no handshake: {0}")]
    Handshake(String),
    #[error("the hub protocol '{0}' is not spoken here; there are 'json' and 'messagepack'")]
    Protocol(String),
    #[error("version {0} of the hub protocol is not spoken here; the highest is {MAX_VERSION}")]
    Version(u64),
    #[error("a record is larger than {MAX_RECORD} bytes")]
    TooLarge,
    #[error("a record is not understood: {0}")]
    Malformed(String),
}

impl Protocol {
    /// Whether records are bytes rather than text.
    pub(super) const fn is_binary(self) -> bool {
        matches!(self, Self::MessagePack)
    }

    /// The record of a delivery. `None` if the caller made frames itself and none for this protocol.
    pub(super) fn delivery(self, delivery: &Delivery) -> Option<Bytes> {
        Some(match delivery {
            Delivery::Message(message) => return self.message(message),
            Delivery::Invoke { id, message } => {
                let invocation = message.invocation()?;
                let (target, arguments) = (&invocation.target, &invocation.arguments);
                self.encode(Outgoing::Invocation { id: Some(id), target, arguments })
            }
            Delivery::StreamItem { stream, item } => self.encode(Outgoing::StreamItem { id: stream, item }),
            Delivery::StreamEnd { stream, error } => {
                self.encode(Outgoing::Completion { id: stream, error: error.as_deref() })
            }
            Delivery::Close(close) => self.close(close),
        })
    }

    /// The record that ends a connection.
    pub(super) fn close(self, close: &Close) -> Bytes {
        self.encode(Outgoing::Close(close))
    }

    /// The record that keeps a connection alive.
    pub(super) fn ping(self) -> Bytes {
        self.encode(Outgoing::Ping)
    }

    /// The record that acknowledges everything up to a number.
    pub(super) fn ack(self, number: u64) -> Bytes {
        self.encode(Outgoing::Ack(number))
    }

    /// The record that says which number comes next.
    pub(super) fn sequence(self, number: u64) -> Bytes {
        self.encode(Outgoing::Sequence(number))
    }

    /// How many of the records in a piece are such that stateful reconnect numbers them.
    pub(super) fn numbered_in(self, piece: &[u8]) -> u64 {
        let mut decoder = Decoder::default();
        decoder.push(piece);
        let records = std::iter::from_fn(|| decoder.next(self).ok().flatten());
        records.filter(Record::is_numbered).fold(0, |count, _| count + 1)
    }

    /// The answer to a call that failed.
    pub(super) fn call_failed(self, id: &str, error: &str) -> Bytes {
        self.encode(Outgoing::Completion { id, error: Some(error) })
    }

    /// A message's record, made once for all its receivers.
    fn message(self, message: &Message) -> Option<Bytes> {
        match &message.content {
            Content::Frames { json, messagepack } => match self {
                Self::Json => json.clone(),
                Self::MessagePack => messagepack.clone(),
            },
            Content::Invocation(packed) => {
                let record = message.records.of(self.is_binary());
                if record.get().is_none() {
                    let Invocation { target, arguments } = packed.unpack()?;
                    let made = self.encode(Outgoing::Invocation { id: None, target: &target, arguments: &arguments });
                    // Whoever comes first; they are alike.
                    let _ = record.set(made);
                }
                record.get().cloned()
            }
        }
    }

    fn encode(self, outgoing: Outgoing<'_>) -> Bytes {
        match self {
            Self::Json => json::encode(outgoing),
            Self::MessagePack => messagepack::encode(outgoing),
        }
    }
}

impl Record {
    /// Whether it is one of those that stateful reconnect numbers.
    pub(super) const fn is_numbered(&self) -> bool {
        matches!(self, Self::Call { .. } | Self::Completion { .. } | Self::Stream)
    }
}

/// Puts records together from what arrives, in whatever pieces.
#[derive(Debug, Default)]
pub(super) struct Decoder {
    buffer: BytesMut,
    /// How many bytes at the start hold no record separator, as far as was looked: a record that comes byte by byte is not
    /// looked through again for each.
    searched: usize,
}

impl Decoder {
    /// Adds what arrived.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Reads the first record, which is JSON in every protocol. `None` if it is not whole yet.
    pub(super) fn handshake(&mut self) -> Result<Option<Handshake>, ProtocolError> {
        #[derive(Deserialize)]
        struct Asked {
            protocol: String,
            version: u64,
        }
        let Some(record) = self.text_record()? else {
            return Ok(None);
        };
        let asked: Asked = serde_json::from_slice(&record).map_err(|err| ProtocolError::Handshake(err.to_string()))?;
        let protocol = match asked.protocol.as_str() {
            "json" => Protocol::Json,
            "messagepack" => Protocol::MessagePack,
            _ => return Err(ProtocolError::Protocol(asked.protocol)),
        };
        if asked.version > MAX_VERSION {
            return Err(ProtocolError::Version(asked.version));
        }
        Ok(Some(Handshake { protocol, version: asked.version }))
    }

    /// Reads the next record. `None` if it is not whole yet.
    pub(super) fn next(&mut self, protocol: Protocol) -> Result<Option<Record>, ProtocolError> {
        let record = match protocol {
            Protocol::Json => self.text_record()?.map(|record| json::decode(&record)),
            Protocol::MessagePack => self.binary_record()?.map(|record| messagepack::decode(&record)),
        };
        record.transpose()
    }

    fn text_record(&mut self) -> Result<Option<Bytes>, ProtocolError> {
        let fresh = self.buffer.get(self.searched..).unwrap_or_default();
        let end = fresh.iter().position(|byte| *byte == RECORD_SEPARATOR);
        let Some(end) = end.map(|end| self.searched + end) else {
            self.searched = self.buffer.len();
            return if self.buffer.len() > MAX_RECORD { Err(ProtocolError::TooLarge) } else { Ok(None) };
        };
        if end > MAX_RECORD {
            return Err(ProtocolError::TooLarge);
        }
        let record = self.buffer.split_to(end).freeze();
        self.buffer.advance(1);
        self.searched = 0;
        Ok(Some(record))
    }

    fn binary_record(&mut self) -> Result<Option<Bytes>, ProtocolError> {
        let Some((prefix, length)) = messagepack::length(&self.buffer)? else {
            return Ok(None);
        };
        if length > MAX_RECORD {
            return Err(ProtocolError::TooLarge);
        }
        if self.buffer.len() < prefix + length {
            return Ok(None);
        }
        self.buffer.advance(prefix);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// The answer to a handshake: JSON in every protocol, empty if all is well.
pub(super) fn handshake_answer(error: Option<&str>) -> Bytes {
    let body = error.map_or_else(|| serde_json::json!({}), |error| serde_json::json!({ "error": error }));
    let mut record = body.to_string().into_bytes();
    record.push(RECORD_SEPARATOR);
    record.into()
}

//! Decodes the handshake and the records of a client.

use bytes::{Buf, Bytes, BytesMut};
use serde::Deserialize;

use super::protocol::Protocol;
use super::record::{MAX_RECORD, MAX_VERSION, ProtocolError, Record};
use super::{json, messagepack};
use crate::sandbox::signalr::message::RECORD_SEPARATOR;

/// The handshake: a client's first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Handshake {
    /// The encoding of all later records.
    pub(crate) protocol: Protocol,
    /// The version of the hub protocol.
    pub(crate) version: u64,
}

/// A decoder of records from chunks of any size.
#[derive(Debug, Default)]
pub(crate) struct Decoder {
    buffer: BytesMut,
    /// The length of the part of the buffer that has no record separator. It keeps the search linear when a record arrives byte
    /// by byte.
    searched: usize,
}

impl Decoder {
    /// Adds bytes that arrived.
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Decodes the handshake, which is JSON in every protocol. Returns `None` if it is incomplete.
    pub(crate) fn handshake(&mut self) -> Result<Option<Handshake>, ProtocolError> {
        #[derive(Deserialize)]
        struct Request {
            protocol: String,
            version: u64,
        }
        let Some(record) = self.text_record()? else {
            return Ok(None);
        };
        let request: Request =
            serde_json::from_slice(&record).map_err(|err| ProtocolError::Handshake(err.to_string()))?;
        let protocol = match request.protocol.as_str() {
            "json" => Protocol::Json,
            "messagepack" => Protocol::MessagePack,
            _ => return Err(ProtocolError::Protocol(request.protocol)),
        };
        if request.version > MAX_VERSION {
            return Err(ProtocolError::Version(request.version));
        }
        Ok(Some(Handshake { protocol, version: request.version }))
    }

    /// Decodes the next record. Returns `None` if it is incomplete.
    pub(crate) fn next(&mut self, protocol: Protocol) -> Result<Option<Record>, ProtocolError> {
        let record = match protocol {
            Protocol::Json => self.text_record()?.map(|record| json::decode(&record)),
            Protocol::MessagePack => self.binary_record()?.map(|record| messagepack::decode(&record)),
        };
        record.transpose()
    }

    fn text_record(&mut self) -> Result<Option<Bytes>, ProtocolError> {
        let unsearched = self.buffer.get(self.searched..).unwrap_or_default();
        let end = unsearched.iter().position(|byte| *byte == RECORD_SEPARATOR);
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
        let Some((prefix, length)) = messagepack::decode_length(&self.buffer)? else {
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

/// Counts the records that stateful reconnect numbers in a sequence of whole records.
pub(crate) fn count_numbered(protocol: Protocol, records: &[u8]) -> u64 {
    let mut decoder = Decoder::default();
    decoder.push(records);
    let records = std::iter::from_fn(|| decoder.next(protocol).ok().flatten());
    records.filter(Record::is_numbered).fold(0, |count, _| count + 1)
}

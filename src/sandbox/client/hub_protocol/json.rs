//! Records as JSON.

use bytes::Bytes;
use rmpv::Value;
use serde::Serialize;
use serde::ser::{SerializeMap, Serializer};

use super::record::{OutgoingRecord, ProtocolError, Record};
use crate::sandbox::signalr::message::{Json, RECORD_SEPARATOR};

impl Serialize for OutgoingRecord<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        match *self {
            Self::Invocation { id, target, arguments } => {
                map.serialize_entry("type", &1)?;
                if let Some(id) = id {
                    map.serialize_entry("invocationId", id)?;
                }
                map.serialize_entry("target", target)?;
                map.serialize_entry("arguments", &arguments.iter().map(Json).collect::<Vec<_>>())?;
            }
            Self::StreamItem { id, item } => {
                map.serialize_entry("type", &2)?;
                map.serialize_entry("invocationId", id)?;
                map.serialize_entry("item", &Json(item))?;
            }
            Self::Completion { id, error } => {
                map.serialize_entry("type", &3)?;
                map.serialize_entry("invocationId", id)?;
                if let Some(error) = error {
                    map.serialize_entry("error", error)?;
                }
            }
            Self::Ping => map.serialize_entry("type", &6)?,
            Self::Close(close) => {
                map.serialize_entry("type", &7)?;
                if let Some(reason) = &close.reason {
                    map.serialize_entry("error", reason)?;
                }
                map.serialize_entry("allowReconnect", &close.allow_reconnect)?;
            }
            Self::Ack(number) => {
                map.serialize_entry("type", &8)?;
                map.serialize_entry("sequenceId", &number)?;
            }
            Self::Sequence(number) => {
                map.serialize_entry("type", &9)?;
                map.serialize_entry("sequenceId", &number)?;
            }
        }
        map.end()
    }
}

pub(super) fn encode(outgoing: OutgoingRecord<'_>) -> Bytes {
    // Serializing text keys to memory cannot fail.
    let mut record = serde_json::to_vec(&outgoing).unwrap_or_default();
    record.push(RECORD_SEPARATOR);
    record.into()
}

pub(super) fn decode(record: &[u8]) -> Result<Record, ProtocolError> {
    let value: Value =
        serde_json::from_slice(record).map_err(|err| ProtocolError::Malformed(format!("not JSON: {err}")))?;
    let field = |name: &str| {
        let fields = value.as_map()?;
        fields.iter().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
    };
    let malformed = |what: &str| ProtocolError::Malformed(what.to_owned());
    let kind = field("type").and_then(Value::as_u64).ok_or_else(|| malformed("'type' is missing"))?;
    let id = || field("invocationId").and_then(Value::as_str).map(str::to_owned);
    let number = || field("sequenceId").and_then(Value::as_u64).ok_or_else(|| malformed("'sequenceId' is missing"));
    Ok(match kind {
        1 => Record::Invocation { id: id() },
        3 => {
            let id = id().ok_or_else(|| malformed("a completion has no 'invocationId'"))?;
            let error = field("error").and_then(Value::as_str).map(str::to_owned);
            let result = error.map_or_else(|| Ok(field("result").cloned().unwrap_or(Value::Nil)), Err);
            Record::Completion { id, result }
        }
        2 | 4 | 5 => Record::Stream,
        7 => Record::Close,
        8 => Record::Ack(number()?),
        9 => Record::Sequence(number()?),
        _ => Record::Other,
    })
}

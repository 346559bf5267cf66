//! Records as `MessagePack`. Each is an array after a length prefix: a variable-length integer of seven bits per byte, lowest
//! bits first.

use bytes::{BufMut, Bytes, BytesMut};
use rmpv::Value;

use super::record::{OutgoingRecord, ProtocolError, Record};
use crate::sandbox::signalr::message::MAX_DEPTH;

/// The longest length prefix, in bytes. Source: HubProtocol.md.
const MAX_PREFIX: usize = 5;

pub(super) fn encode(outgoing: OutgoingRecord<'_>) -> Bytes {
    let headers = || Value::Map(Vec::new());
    let text = |text: Option<&str>| text.map_or(Value::Nil, Value::from);
    let fields = match outgoing {
        OutgoingRecord::Invocation { id, target, arguments } => {
            let arguments = Value::Array(arguments.to_vec());
            vec![1.into(), headers(), text(id), target.into(), arguments, Value::Array(Vec::new())]
        }
        OutgoingRecord::StreamItem { id, item } => vec![2.into(), headers(), id.into(), item.clone()],
        OutgoingRecord::Completion { id, error: Some(error) } => {
            vec![3.into(), headers(), id.into(), 1.into(), error.into()]
        }
        OutgoingRecord::Completion { id, error: None } => vec![3.into(), headers(), id.into(), 2.into()],
        OutgoingRecord::Ping => vec![6.into()],
        OutgoingRecord::Ack(number) => vec![8.into(), number.into()],
        OutgoingRecord::Sequence(number) => vec![9.into(), number.into()],
        OutgoingRecord::Close(close) => vec![7.into(), text(close.reason.as_deref()), close.allow_reconnect.into()],
    };
    let mut body = Vec::new();
    // Writing to memory cannot fail.
    let _ = rmpv::encode::write_value(&mut body, &Value::Array(fields));
    let mut record = BytesMut::with_capacity(body.len() + MAX_PREFIX);
    let mut length = body.len();
    while length > 0x7F {
        record.put_u8(0x80 | low_bits(length));
        length >>= 7;
    }
    record.put_u8(low_bits(length));
    record.put_slice(&body);
    record.freeze()
}

#[expect(clippy::cast_possible_truncation, reason = "the mask leaves seven bits")]
const fn low_bits(number: usize) -> u8 {
    (number & 0x7F) as u8
}

/// Decodes the length prefix. Returns the sizes of the prefix and of the record, or `None` if the prefix is incomplete.
pub(super) fn decode_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, ProtocolError> {
    let mut length = 0;
    for (index, byte) in bytes.iter().take(MAX_PREFIX).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((index + 1, length)));
        }
    }
    if bytes.len() < MAX_PREFIX {
        Ok(None)
    } else {
        Err(ProtocolError::Malformed(String::from("the length has more than five bytes")))
    }
}

pub(super) fn decode(mut record: &[u8]) -> Result<Record, ProtocolError> {
    let malformed = |what: &str| ProtocolError::Malformed(what.to_owned());
    let value = rmpv::decode::read_value_with_max_depth(&mut record, MAX_DEPTH)
        .map_err(|err| ProtocolError::Malformed(format!("not MessagePack: {err}")))?;
    let fields = value.as_array().ok_or_else(|| malformed("not an array"))?;
    let field = |index: usize| fields.get(index);
    let kind = field(0).and_then(Value::as_u64).ok_or_else(|| malformed("the type is missing"))?;
    let id = || field(2).and_then(Value::as_str).map(str::to_owned);
    let number = || field(1).and_then(Value::as_u64).ok_or_else(|| malformed("the sequence id is missing"));
    Ok(match kind {
        1 => Record::Invocation { id: id() },
        3 => {
            let id = id().ok_or_else(|| malformed("a completion has no invocation id"))?;
            let result = match field(3).and_then(Value::as_u64) {
                Some(1) => Err(field(4).and_then(Value::as_str).unwrap_or_default().to_owned()),
                Some(2) => Ok(Value::Nil),
                Some(3) => Ok(field(4).cloned().unwrap_or(Value::Nil)),
                _ => return Err(malformed("a completion has an unknown result kind")),
            };
            Record::Completion { id, result }
        }
        2 | 4 | 5 => Record::Stream,
        7 => Record::Close,
        8 => Record::Ack(number()?),
        9 => Record::Sequence(number()?),
        _ => Record::Other,
    })
}

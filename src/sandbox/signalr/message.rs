//! What a caller asks to be sent: the bodies of the REST API read into messages, whole or as ready frames. Knows
//! neither hubs nor who receives it.

use std::borrow::Cow;
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rmpv::Value;
use serde::ser::{Serialize, Serializer};

/// How deep `MessagePack` may be, as `rmpv` counts: two for each array or map, and three for a text at the bottom. So arrays
/// and maps may be in each other 128 deep, as in JSON: each level takes stack.
pub(crate) const MAX_DEPTH: usize = 2 * 128 + 3;

/// The byte that ends a record of the JSON hub protocol.
pub(crate) const RECORD_SEPARATOR: u8 = 0x1E;

/// A message to clients.
#[derive(Debug)]
pub struct Message {
    /// What it says.
    pub content: Content,
    /// How much memory it stands for, in bytes: the size of the body it came in, or of what is kept of it.
    pub size: usize,
    /// Its records.
    pub(crate) records: Records,
}

/// The records of a message, one for each hub protocol: made for the first receiver, shared by all.
#[derive(Debug, Default)]
pub(crate) struct Records {
    text: OnceLock<Bytes>,
    binary: OnceLock<Bytes>,
}

impl Records {
    /// The record for a protocol of text or of bytes.
    pub(crate) const fn of(&self, binary: bool) -> &OnceLock<Bytes> {
        if binary { &self.binary } else { &self.text }
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content && self.size == other.size
    }
}

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A method of the client and its arguments.
    Invocation(Packed),
    /// Whole frames that the caller made itself, one for each hub protocol (`application/octet-stream`).
    Frames {
        /// The frame for clients that speak JSON.
        json: Option<Bytes>,
        /// The frame for clients that speak `MessagePack`.
        messagepack: Option<Bytes>,
    },
}

/// A method of the client and its arguments. The values keep the kind and width of every number, and the order of
/// keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    /// The method's name.
    pub target: String,
    /// The arguments.
    pub arguments: Vec<Value>,
}

/// A method and its arguments as they are kept while they wait: as `MessagePack`, which takes about what their body took.
/// Read into values, a list of small numbers takes more than ten times as much.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed(Bytes);

/// Why a body is no message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error("the content type is none of application/json, application/x-msgpack and application/octet-stream")]
    ContentType,
    #[error("the body is not {0}: {1}")]
    Malformed(&'static str, String),
    #[error("the body must be an object with a 'target' of at least one character and an array of 'arguments'")]
    Shape,
}

impl Message {
    /// A message that stands for `size` bytes of memory.
    pub(crate) fn new(content: Content, size: usize) -> Self {
        Self { content, size, records: Records::default() }
    }

    /// Reads the body of a send.
    pub(crate) fn read(content_type: Option<&str>, body: &Bytes) -> Result<Self, PayloadError> {
        let content = match content_type.map(media_type).as_deref() {
            Some("application/json" | "text/json") => Invocation::from_value(json_value(body)?)?.into(),
            Some("application/x-msgpack") => Invocation::from_value(messagepack_value(body)?)?.into(),
            Some("application/octet-stream") => frames(messagepack_value(body)?)?,
            _ => return Err(PayloadError::ContentType),
        };
        let size = match &content {
            Content::Invocation(packed) => packed.0.len().max(body.len()),
            Content::Frames { .. } => body.len(),
        };
        Ok(Self::new(content, size))
    }

    /// The message as a method and arguments, read out of the frames if it came as such. `None` if they say
    /// something else.
    pub fn invocation(&self) -> Option<Invocation> {
        match &self.content {
            Content::Invocation(packed) => packed.unpack(),
            Content::Frames { json: Some(frame), .. } => {
                let record = frame.split(|byte| *byte == RECORD_SEPARATOR).next()?;
                Invocation::from_value(serde_json::from_slice(record).ok()?).ok()
            }
            Content::Frames { json: None, messagepack } => {
                // A length of up to five bytes, then `[1, headers, id, target, arguments, …]`.
                let frame = messagepack.as_ref()?;
                let prefix = frame.iter().take(5).position(|byte| byte & 0x80 == 0)? + 1;
                let value = rmpv::decode::read_value_with_max_depth(&mut frame.get(prefix..)?, MAX_DEPTH).ok()?;
                let fields = value.as_array()?;
                let target = fields.get(3)?.as_str()?.to_owned();
                Some(Invocation { target, arguments: fields.get(4)?.as_array()?.clone() })
            }
        }
    }
}

impl From<Invocation> for Content {
    fn from(invocation: Invocation) -> Self {
        let value = Value::Array(vec![invocation.target.into(), Value::Array(invocation.arguments)]);
        let mut bytes = Vec::new();
        // Writing to memory cannot fail.
        let _ = rmpv::encode::write_value(&mut bytes, &value);
        bytes.shrink_to_fit();
        Self::Invocation(Packed(bytes.into()))
    }
}

impl Packed {
    /// The method and its arguments. `None` is not to be expected: only what was read is packed.
    pub(crate) fn unpack(&self) -> Option<Invocation> {
        // Neither the target nor the array around both adds to the depth of what was read as a map.
        let value = rmpv::decode::read_value_with_max_depth(&mut self.0.as_ref(), MAX_DEPTH).ok()?;
        let Value::Array(fields) = value else { return None };
        let [target, Value::Array(arguments)] = <[Value; 2]>::try_from(fields).ok()? else { return None };
        Some(Invocation { target: target.as_str()?.to_owned(), arguments })
    }
}

impl Invocation {
    /// The arguments as JSON; bytes become base64, as the JSON hub protocol has them.
    pub fn json_arguments(&self) -> Vec<serde_json::Value> {
        self.arguments.iter().map(to_json).collect()
    }

    /// Reads `{"target", "arguments"}`. Names are compared without case, since SDKs write them in upper case; unknown
    /// ones are passed over; `arguments` may be missing or null.
    pub(crate) fn from_value(value: Value) -> Result<Self, PayloadError> {
        let Value::Map(fields) = value else {
            return Err(PayloadError::Shape);
        };
        let (mut target, mut arguments) = (None, Vec::new());
        for (name, value) in fields {
            let name = name.as_str().unwrap_or_default();
            if name.eq_ignore_ascii_case("target") {
                target = value.as_str().filter(|text| !text.is_empty()).map(str::to_owned);
            } else if name.eq_ignore_ascii_case("arguments") {
                arguments = match value {
                    Value::Array(values) => values,
                    Value::Nil => Vec::new(),
                    Value::Boolean(_)
                    | Value::Integer(_)
                    | Value::F32(_)
                    | Value::F64(_)
                    | Value::String(_)
                    | Value::Binary(_)
                    | Value::Map(_)
                    | Value::Ext(..) => return Err(PayloadError::Shape),
                };
            }
        }
        target.map(|target| Self { target, arguments }).ok_or(PayloadError::Shape)
    }
}

/// Whether a content type is JSON's.
pub(crate) fn is_json(content_type: Option<&str>) -> bool {
    matches!(content_type.map(media_type).as_deref(), Some("application/json" | "text/json"))
}

/// Reads a JSON body.
pub(crate) fn json_value(body: &[u8]) -> Result<Value, PayloadError> {
    serde_json::from_slice(body).map_err(|err| PayloadError::Malformed("JSON", err.to_string()))
}

fn messagepack_value(mut body: &[u8]) -> Result<Value, PayloadError> {
    let value = rmpv::decode::read_value_with_max_depth(&mut body, MAX_DEPTH)
        .map_err(|err| PayloadError::Malformed("MessagePack", err.to_string()))?;
    if body.is_empty() {
        Ok(value)
    } else {
        Err(PayloadError::Malformed("one MessagePack value", format!("{} bytes follow", body.len())))
    }
}

fn frames(value: Value) -> Result<Content, PayloadError> {
    let Value::Map(fields) = value else {
        return Err(not_a_map());
    };
    let (mut json, mut messagepack) = (None, None);
    for (protocol, frame) in fields {
        let Value::Binary(frame) = frame else {
            return Err(not_a_map());
        };
        match protocol.as_str() {
            Some("json") => {
                // It goes out as text.
                let text = String::from_utf8(frame);
                let text = text.map_err(|err| PayloadError::Malformed("UTF-8 in 'json'", err.to_string()))?;
                json = Some(Bytes::from(text));
            }
            Some("messagepack") => messagepack = Some(Bytes::from(frame)),
            // Hub protocols that no client of the sandbox speaks.
            _ => {}
        }
    }
    Ok(Content::Frames { json, messagepack })
}

fn not_a_map() -> PayloadError {
    PayloadError::Malformed("a MessagePack map of protocols", String::from("each name must have binary data"))
}

/// The media type alone, in lower case, without its parameters.
fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A value as JSON. Numbers keep their kind, keys their order; bytes become base64; keys that are no text become text.
pub(crate) struct Json<'a>(pub(crate) &'a Value);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Nil => serializer.serialize_unit(),
            Value::Boolean(truth) => serializer.serialize_bool(*truth),
            Value::Integer(number) => match (number.as_u64(), number.as_i64()) {
                (Some(number), _) => serializer.serialize_u64(number),
                (None, Some(number)) => serializer.serialize_i64(number),
                (None, None) => serializer.serialize_unit(),
            },
            Value::F32(number) => serializer.serialize_f32(*number),
            Value::F64(number) => serializer.serialize_f64(*number),
            Value::String(text) => serializer.serialize_str(&String::from_utf8_lossy(text.as_bytes())),
            Value::Binary(bytes) | Value::Ext(_, bytes) => serializer.serialize_str(&STANDARD.encode(bytes)),
            Value::Array(values) => serializer.collect_seq(values.iter().map(Json)),
            Value::Map(fields) => serializer.collect_map(fields.iter().map(|(key, value)| {
                let key = key.as_str().map_or_else(|| Cow::Owned(key.to_string()), Cow::Borrowed);
                (key, Json(value))
            })),
        }
    }
}

/// A value as JSON in memory, which sorts keys.
pub(crate) fn to_json(value: &Value) -> serde_json::Value {
    // Keys are text and nothing is written: this cannot fail.
    serde_json::to_value(Json(value)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(body: &'static str) -> Result<Invocation, PayloadError> {
        let message = Message::read(Some("application/json; charset=utf-8"), &Bytes::from_static(body.as_bytes()))?;
        Ok(message.invocation().unwrap())
    }

    #[test]
    fn names_are_read_without_case_and_unknown_ones_passed_over() {
        let invocation = json(r#"{"Target":"t","Arguments":[1],"more":{}}"#).unwrap();
        assert_eq!((invocation.target.as_str(), invocation.json_arguments()), ("t", vec![1.into()]));
        assert_eq!(json(r#"{"target":"t","arguments":null}"#).unwrap().arguments, []);
        assert_eq!(json(r#"{"target":"t"}"#).unwrap().arguments, []);
    }

    #[test]
    fn a_body_without_a_target_is_refused() {
        for body in [r"{}", r#"{"target":""}"#, r#"{"target":1}"#, r#"{"target":"t","arguments":{}}"#, "[]", "1"] {
            assert_eq!(json(body), Err(PayloadError::Shape), "{body}");
        }
        assert!(matches!(json("{"), Err(PayloadError::Malformed("JSON", _))));
    }

    #[test]
    fn numbers_keep_their_kind_and_width() {
        let invocation =
            json(r#"{"target":"t","arguments":[5,300,-1,1.0,18446744073709551615,9007199254740993]}"#).unwrap();
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &Value::Array(invocation.arguments)).unwrap();
        let expected = [
            &[0x96, 0x05, 0xcd, 0x01, 0x2c, 0xff, 0xcb, 0x3f, 0xf0, 0, 0, 0, 0, 0, 0, 0xcf][..],
            &[0xff; 8],
            &[0xcf, 0, 0x20, 0, 0, 0, 0, 0, 1],
        ]
        .concat();
        assert_eq!(bytes, expected);
    }

    #[test]
    fn what_is_kept_of_a_message_is_as_large_as_its_body_whatever_is_in_it() {
        let list = |item: &str| format!("[{}]", vec![item; 10_000].join(","));
        for item in ["1", "\"a\"", "null", "[]", "{\"a\":-1}", "1.5"] {
            let body = Bytes::from(format!("{{\"target\":\"t\",\"arguments\":{}}}", list(item)));
            let message = Message::read(Some("application/json"), &body).unwrap();
            let Content::Invocation(packed) = &message.content else { panic!("{item} is no invocation") };
            // A fraction takes nine bytes.
            assert!(packed.0.len() <= body.len() * 9 / 4, "{} of {} bytes: {item}", packed.0.len(), body.len());
            assert_eq!(message.size, packed.0.len().max(body.len()));
            assert_eq!(message.invocation().unwrap().arguments.len(), 10_000);
        }
    }

    #[test]
    fn what_is_as_deep_as_can_be_read_can_be_sent() {
        let mut deepest = None;
        for depth in 1..=140 {
            let body = format!("{{\"target\":\"t\",\"arguments\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
            let json = Message::read(Some("application/json"), &Bytes::from(body));
            let mut packed = [&[0x82, 0xa6][..], b"target", &[0xa1, b't', 0xa9], b"arguments"].concat();
            packed.extend(vec![0x91; depth - 1]);
            packed.push(0x90);
            let packed = Message::read(Some("application/x-msgpack"), &Bytes::from(packed));
            for message in [json, packed].into_iter().flatten() {
                assert!(message.invocation().is_some(), "{depth} deep");
                deepest = Some(depth);
            }
        }
        // With nothing at the bottom, one more than with a text.
        assert_eq!(deepest, Some(128));
    }

    #[test]
    fn messagepack_and_ready_frames_are_read() {
        let body = Value::Map(vec![("target".into(), "t".into()), ("arguments".into(), Value::Array(vec![7.into()]))]);
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &body).unwrap();
        let message = Message::read(Some("application/x-msgpack"), &Bytes::from(bytes)).unwrap();
        assert_eq!(message.invocation().unwrap().json_arguments(), [serde_json::json!(7)]);

        let frame = b"{\"type\":1,\"target\":\"t\",\"arguments\":[8]}\x1e".to_vec();
        let packed = [&[0x09][..], &[0x96, 1, 0x80, 0xc0, 0xa1, b't', 0x91, 0x08, 0x90]].concat();
        let map = Value::Map(vec![
            ("json".into(), Value::Binary(frame)),
            ("messagepack".into(), Value::Binary(packed.clone())),
        ]);
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &map).unwrap();
        let message = Message::read(Some("application/octet-stream"), &Bytes::from(bytes)).unwrap();
        assert_eq!(message.invocation().unwrap().json_arguments(), [serde_json::json!(8)]);
        let content = Content::Frames { json: None, messagepack: Some(Bytes::from(packed)) };
        assert_eq!(Message::new(content, 0).invocation().unwrap().json_arguments(), [serde_json::json!(8)]);
    }

    #[test]
    fn other_content_types_are_refused() {
        for content_type in [None, Some("text/plain"), Some("application/xml")] {
            assert_eq!(Message::read(content_type, &Bytes::new()), Err(PayloadError::ContentType));
        }
    }
}

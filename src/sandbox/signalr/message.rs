//! The messages that callers send, parsed from the request bodies of the REST API: an invocation, or pre-encoded frames.

use std::borrow::Cow;
use std::sync::OnceLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use rmpv::Value;
use serde::ser::{Serialize, Serializer};

/// The maximum nesting depth of `MessagePack`, in the units of `rmpv`: two for each array or map, and three for an innermost
/// string. Arrays and maps can be nested 128 deep, as in JSON. The limit bounds the recursion of the decoder.
pub(crate) const MAX_DEPTH: usize = 2 * 128 + 3;

/// The byte that ends a record of the JSON hub protocol.
pub(crate) const RECORD_SEPARATOR: u8 = 0x1E;

/// A message to clients.
#[derive(Debug)]
pub struct Message {
    /// The content.
    pub content: Content,
    /// The approximate memory use, in bytes: the larger of the body's size and the packed size.
    pub size: usize,
    /// The encoded records.
    pub(crate) records: Records,
}

/// The encoded records of a message, one for each hub protocol. Each is encoded for its first receiver, and shared by all.
#[derive(Debug, Default)]
pub(crate) struct Records {
    text: OnceLock<Bytes>,
    binary: OnceLock<Bytes>,
}

impl Records {
    /// Returns the record of the binary or the text protocol.
    pub(crate) const fn record(&self, binary: bool) -> &OnceLock<Bytes> {
        if binary { &self.binary } else { &self.text }
    }
}

impl PartialEq for Message {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content && self.size == other.size
    }
}

/// The content of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// An invocation of a client method.
    Invocation(PackedInvocation),
    /// Frames that the caller encoded, one for each hub protocol (`application/octet-stream`).
    Frames {
        /// The frame for JSON clients.
        json: Option<Bytes>,
        /// The frame for `MessagePack` clients.
        messagepack: Option<Bytes>,
    },
}

/// A client method and its arguments. The arguments preserve the type and width of numbers, and the order of keys.
#[derive(Clone, Debug, PartialEq)]
pub struct Invocation {
    /// The method's name.
    pub target: String,
    /// The arguments.
    pub arguments: Vec<Value>,
}

/// An invocation, encoded as `MessagePack` to save memory.
///
/// The encoding is about as large as the body. The parsed values of a list of small numbers are more than ten times as large.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedInvocation(Bytes);

/// The reason why a body is not a valid message.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PayloadError {
    #[error("the content type must be application/json, application/x-msgpack or application/octet-stream")]
    ContentType,
    #[error("the body is not {0}: {1}")]
    Malformed(&'static str, String),
    #[error("the body must be an object with a 'target' of at least one character and an array of 'arguments'")]
    Shape,
}

impl Message {
    /// Creates a message that uses `size` bytes of memory.
    pub(crate) fn new(content: Content, size: usize) -> Self {
        Self { content, size, records: Records::default() }
    }

    /// Parses the body of a send operation.
    pub(crate) fn parse(content_type: Option<&str>, body: &Bytes) -> Result<Self, PayloadError> {
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

    /// Returns the invocation, which is decoded from pre-encoded frames if necessary.
    ///
    /// Returns `None` if the frames do not contain an invocation.
    pub fn invocation(&self) -> Option<Invocation> {
        match &self.content {
            Content::Invocation(packed) => packed.unpack(),
            Content::Frames { json: Some(frame), .. } => {
                let record = frame.split(|byte| *byte == RECORD_SEPARATOR).next()?;
                Invocation::from_value(serde_json::from_slice(record).ok()?).ok()
            }
            Content::Frames { json: None, messagepack } => {
                // A length prefix of up to five bytes, then `[1, headers, id, target, arguments, …]`.
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
        Self::Invocation(PackedInvocation(bytes.into()))
    }
}

impl PackedInvocation {
    /// Decodes the invocation. It does not return `None`, because only parsed invocations are encoded.
    pub(crate) fn unpack(&self) -> Option<Invocation> {
        // The encoded form is not nested more deeply than the parsed map.
        let value = rmpv::decode::read_value_with_max_depth(&mut self.0.as_ref(), MAX_DEPTH).ok()?;
        let Value::Array(fields) = value else { return None };
        let [target, Value::Array(arguments)] = <[Value; 2]>::try_from(fields).ok()? else { return None };
        Some(Invocation { target: target.as_str()?.to_owned(), arguments })
    }
}

impl Invocation {
    /// Returns the arguments as JSON. Bytes become base64, as in the JSON hub protocol.
    pub fn json_arguments(&self) -> Vec<serde_json::Value> {
        self.arguments.iter().map(to_json).collect()
    }

    /// Parses `{"target", "arguments"}`. `arguments` is optional and can be null.
    ///
    /// Names are compared case-insensitively, because some SDKs capitalize them. Unknown names are ignored.
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

/// Returns whether a content type is JSON.
pub(crate) fn is_json(content_type: Option<&str>) -> bool {
    matches!(content_type.map(media_type).as_deref(), Some("application/json" | "text/json"))
}

/// Parses a JSON body.
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
                // JSON clients receive text frames.
                let text = String::from_utf8(frame);
                let text = text.map_err(|err| PayloadError::Malformed("UTF-8 in 'json'", err.to_string()))?;
                json = Some(Bytes::from(text));
            }
            Some("messagepack") => messagepack = Some(Bytes::from(frame)),
            // The sandbox does not support other hub protocols.
            _ => {}
        }
    }
    Ok(Content::Frames { json, messagepack })
}

fn not_a_map() -> PayloadError {
    PayloadError::Malformed("a MessagePack map of protocols", String::from("each name must have binary data"))
}

/// Returns the media type of a content type, without parameters and in lower case.
fn media_type(content_type: &str) -> String {
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// A value that serializes as JSON. It preserves the type of numbers and the order of keys. Bytes become base64, and keys that
/// are not strings become strings.
pub(crate) struct Json<'a>(pub(crate) &'a Value);

impl Serialize for Json<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Value::Nil => serializer.serialize_unit(),
            Value::Boolean(boolean) => serializer.serialize_bool(*boolean),
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

/// Converts a value to a `serde_json::Value`, which sorts keys.
pub(crate) fn to_json(value: &Value) -> serde_json::Value {
    // Serializing string keys to memory cannot fail.
    serde_json::to_value(Json(value)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(body: &'static str) -> Result<Invocation, PayloadError> {
        let message = Message::parse(Some("application/json; charset=utf-8"), &Bytes::from_static(body.as_bytes()))?;
        Ok(message.invocation().unwrap())
    }

    #[test]
    fn ignores_case_and_unknown_names() {
        let invocation = json(r#"{"Target":"t","Arguments":[1],"more":{}}"#).unwrap();
        assert_eq!((invocation.target.as_str(), invocation.json_arguments()), ("t", vec![1.into()]));
        assert_eq!(json(r#"{"target":"t","arguments":null}"#).unwrap().arguments, []);
        assert_eq!(json(r#"{"target":"t"}"#).unwrap().arguments, []);
    }

    #[test]
    fn rejects_a_body_without_a_target() {
        for body in [r"{}", r#"{"target":""}"#, r#"{"target":1}"#, r#"{"target":"t","arguments":{}}"#, "[]", "1"] {
            assert_eq!(json(body), Err(PayloadError::Shape), "{body}");
        }
        assert!(matches!(json("{"), Err(PayloadError::Malformed("JSON", _))));
    }

    #[test]
    fn preserves_the_type_and_width_of_numbers() {
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
    fn an_encoded_invocation_is_about_as_large_as_its_body() {
        let list = |item: &str| format!("[{}]", vec![item; 10_000].join(","));
        for item in ["1", "\"a\"", "null", "[]", "{\"a\":-1}", "1.5"] {
            let body = Bytes::from(format!("{{\"target\":\"t\",\"arguments\":{}}}", list(item)));
            let message = Message::parse(Some("application/json"), &body).unwrap();
            let Content::Invocation(packed) = &message.content else { panic!("{item} is not an invocation") };
            // A fraction takes nine bytes.
            assert!(packed.0.len() <= body.len() * 9 / 4, "{} of {} bytes: {item}", packed.0.len(), body.len());
            assert_eq!(message.size, packed.0.len().max(body.len()));
            assert_eq!(message.invocation().unwrap().arguments.len(), 10_000);
        }
    }

    #[test]
    fn a_message_of_any_depth_that_can_be_parsed_can_be_sent() {
        let mut deepest = None;
        for depth in 1..=140 {
            let body = format!("{{\"target\":\"t\",\"arguments\":{}{}}}", "[".repeat(depth), "]".repeat(depth));
            let json = Message::parse(Some("application/json"), &Bytes::from(body));
            let mut packed = [&[0x82, 0xa6][..], b"target", &[0xa1, b't', 0xa9], b"arguments"].concat();
            packed.extend(vec![0x91; depth - 1]);
            packed.push(0x90);
            let packed = Message::parse(Some("application/x-msgpack"), &Bytes::from(packed));
            for message in [json, packed].into_iter().flatten() {
                assert!(message.invocation().is_some(), "{depth} deep");
                deepest = Some(depth);
            }
        }
        // With an innermost string, the limit is one level less.
        assert_eq!(deepest, Some(128));
    }

    #[test]
    fn parses_messagepack_and_pre_encoded_frames() {
        let body = Value::Map(vec![("target".into(), "t".into()), ("arguments".into(), Value::Array(vec![7.into()]))]);
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &body).unwrap();
        let message = Message::parse(Some("application/x-msgpack"), &Bytes::from(bytes)).unwrap();
        assert_eq!(message.invocation().unwrap().json_arguments(), [serde_json::json!(7)]);

        let frame = b"{\"type\":1,\"target\":\"t\",\"arguments\":[8]}\x1e".to_vec();
        let packed = [&[0x09][..], &[0x96, 1, 0x80, 0xc0, 0xa1, b't', 0x91, 0x08, 0x90]].concat();
        let map = Value::Map(vec![
            ("json".into(), Value::Binary(frame)),
            ("messagepack".into(), Value::Binary(packed.clone())),
        ]);
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &map).unwrap();
        let message = Message::parse(Some("application/octet-stream"), &Bytes::from(bytes)).unwrap();
        assert_eq!(message.invocation().unwrap().json_arguments(), [serde_json::json!(8)]);
        let content = Content::Frames { json: None, messagepack: Some(Bytes::from(packed)) };
        assert_eq!(Message::new(content, 0).invocation().unwrap().json_arguments(), [serde_json::json!(8)]);
    }

    #[test]
    fn rejects_other_content_types() {
        for content_type in [None, Some("text/plain"), Some("application/xml")] {
            assert_eq!(Message::parse(content_type, &Bytes::new()), Err(PayloadError::ContentType));
        }
    }
}

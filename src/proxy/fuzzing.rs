//! Fuzz properties of the `Idempotency-Key` parser.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::idempotency_key::idempotency_key as key;

/// Parses the `Idempotency-Key` lines of a request: `value \n value`. Checks that only a single printable line is a
/// key, and that a key means the same with and without quotes.
pub(crate) fn idempotency_key(data: &[u8]) {
    let name = HeaderName::from_static("idempotency-key");
    let values = data.split(|byte| *byte == b'\n').filter_map(|value| HeaderValue::from_bytes(value.trim_ascii()).ok());
    let headers: HeaderMap = values.map(|value| (name.clone(), value)).collect();
    let received: Vec<&[u8]> = headers.values().map(HeaderValue::as_bytes).collect();
    let read = key(&headers);
    assert!(matches!(read, Ok(None)) == received.is_empty(), "{received:?}");
    let Ok(Some(key_text)) = read else { return };
    let [value] = &received[..] else { panic!("several lines are one key: {received:?}") };
    assert!((1..=255).contains(&key_text.len()), "{value:?}");
    assert!(key_text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{value:?}");
    if !value.starts_with(b"\"") {
        assert_eq!(key_text.as_bytes(), *value);
    }
    let quoted = format!("\"{}\"", key_text.replace('\\', "\\\\").replace('"', "\\\""));
    let headers = HeaderMap::from_iter([(name, HeaderValue::try_from(quoted).unwrap_or_else(|err| panic!("{err}")))]);
    assert!(matches!(key(&headers), Ok(Some(again)) if again == key_text), "{value:?} changes when it is quoted");
}

//! Fuzz properties of the `Idempotency-Key` parser.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::idempotency_key::idempotency_key as key;

/// Parses the `Idempotency-Key` lines of a request: `value \n value`. Checks that only a single printable line is a
/// key, that it is not changed, and that it belongs to one call of one listener.
pub(crate) fn idempotency_key(data: &[u8]) {
    let name = HeaderName::from_static("idempotency-key");
    let values = data.split(|byte| *byte == b'\n').filter_map(|value| HeaderValue::from_bytes(value.trim_ascii()).ok());
    let headers: HeaderMap = values.map(|value| (name.clone(), value)).collect();
    let received: Vec<&[u8]> = headers.values().map(HeaderValue::as_bytes).collect();
    let read = key(&headers);
    assert!(matches!(read, Ok(None)) == received.is_empty(), "{received:?}");
    let is_text = |value: &[u8]| value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    let is_key = matches!(&received[..], [value] if (1..=255).contains(&value.len()) && is_text(value));
    assert_eq!(matches!(read, Ok(Some(_))), is_key, "{received:?}");
    let Ok(Some(key)) = read else { return };
    assert_eq!([key.as_bytes()], received[..]);
    crate::delivery::fuzzing::idempotency_store(key);
}

//! Reads the `Idempotency-Key` of a call.

use std::borrow::Cow;

use http::HeaderMap;

use super::error::ProxyError;
use crate::delivery::headers::IDEMPOTENCY_KEY;

/// The longest key. The draft (draft-ietf-httpapi-idempotency-key-header-07) recommends UUIDs, which have 36
/// characters.
const MAX_LENGTH: usize = 255;

/// Returns the key of a request, if it has one. In the draft it is a string of structured fields, in quotes (RFC 9651
/// section 3.3.3). Many clients send it without; both forms are the same key.
///
/// # Errors
/// [`ProxyError::Malformed`] if it is not a valid key.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<Cow<'_, str>>, ProxyError> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let is_printable = |key: &&str| key.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    let key = key.to_str().ok().filter(is_printable).and_then(unquoted);
    let key = key.filter(|key| (1..=MAX_LENGTH).contains(&key.len()));
    match (key, keys.next()) {
        (Some(key), None) => Ok(Some(key)),
        _ => Err(ProxyError::Malformed(
            "there must be exactly one Idempotency-Key, of 1 to 255 printable ASCII characters, with or without quotes",
        )),
    }
}

/// Removes the quotes and escapes of a structured string. `None` if it is malformed.
fn unquoted(text: &str) -> Option<Cow<'_, str>> {
    let Some(rest) = text.strip_prefix('"') else { return Some(text.into()) };
    let inside = rest.strip_suffix('"')?;
    if !inside.contains(['"', '\\']) {
        return Some(inside.into());
    }
    let mut key = String::with_capacity(inside.len());
    let mut chars = inside.chars();
    while let Some(ch) = chars.next() {
        key.push(match ch {
            '\\' => chars.next().filter(|ch| matches!(ch, '"' | '\\'))?,
            '"' => return None,
            ch => ch,
        });
    }
    Some(key.into())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn read(value: &'static str) -> Option<String> {
        let headers = HeaderMap::from_iter([(IDEMPOTENCY_KEY, HeaderValue::from_static(value))]);
        idempotency_key(&headers).ok().flatten().map(Cow::into_owned)
    }

    #[test]
    fn key_is_the_same_with_and_without_quotes() {
        for (value, key) in [
            ("8e03978e-40d5-43dd-bc93-6894a57f9324", Some("8e03978e-40d5-43dd-bc93-6894a57f9324")),
            (r#""8e03978e-40d5-43dd-bc93-6894a57f9324""#, Some("8e03978e-40d5-43dd-bc93-6894a57f9324")),
            (r#""a \"b\" \\""#, Some(r#"a "b" \"#)),
            (r#"a"b"#, Some(r#"a"b"#)),
            (r#"""#, None),
            (r#""""#, None),
            (r#""a"b""#, None),
            (r#""a\"#, None),
            (r#""a\""#, None),
            (r#""a\b""#, None),
            (r#""a";p=1"#, None),
            ("", None),
            ("a\tb", None),
        ] {
            assert_eq!(read(value).as_deref(), key, "{value}");
        }
    }
}

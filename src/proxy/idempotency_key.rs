//! Reads the `Idempotency-Key` of a call.

use http::{HeaderMap, HeaderName};

use super::error::ProxyError;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The longest key. The draft (draft-ietf-httpapi-idempotency-key-header-06) recommends UUIDs, which have 36
/// characters.
const MAX_LENGTH: usize = 255;

/// Returns the key of a request, if it has one.
///
/// # Errors
/// [`ProxyError::Malformed`] if it is not a valid key.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, ProxyError> {
    let mut keys = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = keys.next() else { return Ok(None) };
    let key = key.to_str().ok().filter(|key| (1..=MAX_LENGTH).contains(&key.len()));
    match (key, keys.next()) {
        (Some(key), None) => Ok(Some(key)),
        _ => Err(ProxyError::Malformed(
            "there must be exactly one Idempotency-Key, of 1 to 255 printable ASCII characters",
        )),
    }
}

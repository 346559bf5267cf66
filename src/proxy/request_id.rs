//! The ids of requests.

use std::cell::RefCell;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

/// The id of a request, in and out.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id that is taken over from a caller.
const LONGEST: usize = 128;
/// Hex digits of an id: 128 random bits, as W3C trace ids have.
const DIGITS: usize = 32;
/// How many ids are made at once. They share one allocation.
const BLOCK: usize = 32;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// One worker's ids, made in advance.
#[derive(Debug, Default)]
pub(super) struct RequestIds(RefCell<Bytes>);

impl RequestIds {
    /// Returns an id that was not used before.
    pub(super) fn next(&self) -> HeaderValue {
        let mut block = self.0.borrow_mut();
        if block.len() < DIGITS {
            *block = random_digits(DIGITS * BLOCK);
        }
        let id = block.split_to(DIGITS);
        HeaderValue::from_maybe_shared(id).unwrap_or_else(|_impossible| HeaderValue::from_static("unknown"))
    }
}

fn random_digits(count: usize) -> Bytes {
    let mut digits = BytesMut::with_capacity(count);
    while digits.len() < count {
        let byte = usize::from(fastrand::u8(..));
        digits.extend([byte >> 4, byte & 15].into_iter().filter_map(|digit| HEX.get(digit)));
    }
    digits.freeze()
}

/// Returns the caller's id if it can be taken over: it is plain ASCII and not too long.
pub(super) fn of_caller(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    ((1..=LONGEST).contains(&id.len()) && id.as_bytes().iter().all(is_plain)).then(|| id.clone())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_hex_and_never_come_twice() {
        let ids = RequestIds::default();
        let made: HashSet<HeaderValue> = (0..10 * BLOCK).map(|_| ids.next()).collect();
        assert_eq!(made.len(), 10 * BLOCK);
        assert!(made.iter().all(|id| id.len() == DIGITS && id.as_bytes().iter().all(u8::is_ascii_hexdigit)));
    }

    #[test]
    fn only_plain_ids_are_taken_over() {
        for (id, taken) in [("abc-123", true), ("", false), ("a b", false), ("a\"b", false)] {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static(id))]);
            assert_eq!(of_caller(&headers).is_some(), taken, "{id:?}");
        }
        let long = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::try_from("x".repeat(129)).unwrap())]);
        assert_eq!(of_caller(&long), None);
    }
}

//! Request ids that the gateway makes.

use std::cell::RefCell;

use bytes::Bytes;
use http::HeaderValue;

/// Hex digits of an id: 128 random bits, like W3C trace ids.
const DIGITS: usize = 32;
/// How many ids share one allocation.
const BLOCK: usize = 32;

/// A worker's supply of ids.
#[derive(Debug, Default)]
pub(super) struct RequestIds(RefCell<Bytes>);

impl RequestIds {
    /// Returns a new id.
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
    let mut random = fastrand::Rng::new();
    let mut digits = Vec::with_capacity(count);
    while digits.len() < count {
        digits.extend_from_slice(&hex(random.u32(..)));
    }
    digits.into()
}

/// Returns the hex digits of a number in unspecified order. Computes all eight at once, one per byte.
fn hex(number: u32) -> [u8; 8] {
    let mut nibbles = u64::from(number);
    nibbles = (nibbles | (nibbles << 16)) & 0x0000_ffff_0000_ffff;
    nibbles = (nibbles | (nibbles << 8)) & 0x00ff_00ff_00ff_00ff;
    nibbles = (nibbles | (nibbles << 4)) & 0x0f0f_0f0f_0f0f_0f0f;
    let above_nine = ((nibbles + 0x0606_0606_0606_0606) >> 4) & 0x0101_0101_0101_0101;
    (nibbles + 0x3030_3030_3030_3030 + above_nine * u64::from(b'a' - b'0' - 10)).to_ne_bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_hex_and_unique() {
        let ids = RequestIds::default();
        let made: HashSet<HeaderValue> = (0..10 * BLOCK).map(|_| ids.next()).collect();
        assert_eq!(made.len(), 10 * BLOCK);
        assert!(made.iter().all(|id| id.len() == DIGITS && id.as_bytes().iter().all(u8::is_ascii_hexdigit)));
    }

    #[test]
    fn hex_returns_the_digits_of_the_number() {
        for number in [0, 0x0123_4567, 0x89ab_cdef, u32::MAX, fastrand::u32(..)] {
            let (mut made, mut expected) = (hex(number), format!("{number:08x}").into_bytes());
            made.sort_unstable();
            expected.sort_unstable();
            assert_eq!(made[..], expected, "{number:x}");
        }
    }
}

//! Byte classes of a request head, and the search for the first byte outside a class.
//!
//! A head of about 300 bytes may be checked for every request. Most of it is values, which are searched many bytes at a time by
//! comparisons that the compiler vectorizes on every target.

/// Returns the position of the first control character (`HTAB` included) or `DEL`; the length if there is none.
#[inline]
pub(super) fn first_control(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((block, after)) = rest.split_first_chunk::<16>() {
        // Does not short-circuit: a branch per byte would prevent vectorization.
        if block.iter().fold(false, |any, byte| any | byte.is_ascii_control()) {
            break;
        }
        rest = after;
    }
    while let Some((word, after)) = rest.split_first_chunk() {
        let controls = controls(u64::from_le_bytes(*word));
        if controls != 0 {
            return bytes.len() - rest.len() + controls.trailing_zeros() as usize / 8;
        }
        rest = after;
    }
    bytes.len() - rest.len() + rest.iter().position(u8::is_ascii_control).unwrap_or(rest.len())
}

/// Returns a word of eight equal bytes.
const fn each(byte: u8) -> u64 {
    u64::from_ne_bytes([byte; 8])
}

/// Returns a word whose lowest set bit is in the lowest byte that is a control character; 0 if there is none. The higher bits
/// are not reliable.
#[inline]
fn controls(word: u64) -> u64 {
    let zero_if_del = word ^ each(0x7f);
    let is_low = word.wrapping_sub(each(b' ')) & !word;
    let is_del = zero_if_del.wrapping_sub(each(1)) & !zero_if_del;
    (is_low | is_del) & each(0x80)
}

/// Returns the position of the first byte that is not allowed in a field name or a method; the length if there is none.
#[inline]
pub(super) fn first_outside_token(bytes: &[u8]) -> usize {
    let is_token = |byte: &u8| IS_TOKEN.get(usize::from(*byte)).copied().unwrap_or_default();
    bytes.iter().position(|byte| !is_token(byte)).unwrap_or(bytes.len())
}

/// `tchar` of RFC 9110 section 5.6.2.
#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
static IS_TOKEN: [bool; 256] = {
    let mut table = [false; 256];
    let mut byte: u8 = 0;
    while byte < 128 {
        table[byte as usize] = byte.is_ascii_alphanumeric()
            || matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~');
        byte += 1;
    }
    table
};

/// Returns the position of the first byte that is not allowed in a request target; the length if there is none.
#[inline]
pub(super) fn first_outside_target(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((block, after)) = rest.split_first_chunk::<16>() {
        if block.iter().fold(false, |any, byte| any | is_outside_target(*byte)) {
            break;
        }
        rest = after;
    }
    // The target ends in this block, most often at a space.
    let is_inside = |byte: &u8| byte.is_ascii_alphanumeric() || !is_outside_target(*byte);
    bytes.len() - rest.len() + rest.iter().position(|byte| !is_inside(byte)).unwrap_or(rest.len())
}

/// Returns whether a byte is not allowed in a path or a query: RFC 3986 excludes it, and `http::Uri` rejects it or cuts there (`#`).
/// ``\^{|}``, which RFC 3986 excludes and `http::Uri` accepts, pass unchanged.
#[inline]
#[expect(clippy::needless_bitwise_bool, reason = "a branch per byte would prevent vectorization")]
fn is_outside_target(byte: u8) -> bool {
    // `"` and `#`, `<` and `>`.
    !byte.is_ascii_graphic() | (byte & !1 == b'"') | (byte & !2 == b'<') | (byte == b'`')
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: usize = 16 + 8 + 5;

    /// Asserts what `first` finds for each byte at each position.
    fn assert_class(first: fn(&[u8]) -> usize, is_of_class: impl Fn(u8) -> bool) {
        for byte in 0..=u8::MAX {
            for at in 0..LENGTH {
                let mut bytes = [b'a'; LENGTH];
                bytes[at] = byte;
                let expected = if is_of_class(byte) { at } else { bytes.len() };
                assert_eq!(first(&bytes), expected, "{byte:#04x} at {at}");
            }
        }
        assert_eq!(first(b""), 0);
    }

    #[test]
    fn classes_are_those_of_the_rfcs_at_every_position() {
        assert_class(first_control, |byte| byte.is_ascii_control());
        assert_class(first_outside_token, |byte| !(byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)));
        assert_class(first_outside_target, |byte| !byte.is_ascii_graphic() || b"\"#<>`".contains(&byte));
    }

    #[test]
    fn the_first_of_several_controls_is_found() {
        for first in 0..LENGTH {
            for filler in [0xff, 0x80, b'~', b' '] {
                let mut bytes = [filler; LENGTH];
                bytes[first..].fill(b'\r');
                assert_eq!(first_control(&bytes), first);
            }
        }
    }
}

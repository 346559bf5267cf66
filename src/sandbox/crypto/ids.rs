//! Random identifiers and secrets.

use aws_lc_rs::rand;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Returns a string of 22 characters that encodes 16 random bytes (base64url).
pub(crate) fn random_string() -> String {
    let mut bytes = [0_u8; 16];
    // Only an exhausted entropy source fails here. The fallback is predictable, which is acceptable in an emulator.
    if rand::fill(&mut bytes).is_err() {
        fastrand::fill(&mut bytes);
    }
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Returns a random GUID (version 4).
pub(crate) fn guid() -> String {
    let (high, low) = (fastrand::u64(..), fastrand::u64(..));
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | (low >> 48 & 0x3fff),
        low & 0xffff_ffff_ffff,
    )
}

/// Returns whether a string is a GUID.
pub(crate) fn is_guid(string: &str) -> bool {
    let groups: Vec<usize> = string.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && string.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

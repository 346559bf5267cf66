//! Rendezvous hashing (highest random weight). Each endpoint has a score for each key, and the best score wins, so removing an
//! endpoint moves only its own keys.
//!
//! The hash is XXH64, which has a published definition, over the bytes of names. A key has the same endpoint in every version
//! and on every machine, so replicas agree without communication.
//!
//! Source: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates" (1998); for weights, Schindelhauer and
//! Schomaker, "Weighted Distributed Hash Tables" (2005); <https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>.

use std::hash::Hasher;

use http::{HeaderMap, HeaderName};
use twox_hash::XxHash64;

use crate::signalr::{Call, Name, NameKind, Operation};

/// The key by which calls are hashed. A call without the key is hashed by its hub; calls without a hub share one hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The hub, case-insensitive.
    Hub,
    /// The group.
    Group,
    /// The user.
    User,
    /// The connection.
    Connection,
    /// The first value of a header.
    Header(HeaderName),
}

impl HashKey {
    /// Returns whether calls of an operation carry the key. Any call may carry a header.
    pub fn applies_to(&self, operation: Operation) -> bool {
        match self {
            Self::Hub => operation.has_name(NameKind::Hub),
            Self::Group => operation.has_name(NameKind::Group),
            Self::User => operation.has_name(NameKind::User),
            Self::Connection => operation.has_name(NameKind::Connection),
            Self::Header(_) => true,
        }
    }

    /// Returns the hash of a call's key. Does not allocate.
    pub(super) fn hash(&self, call: &Call<'_>, headers: &HeaderMap) -> u64 {
        let own = match self {
            Self::Hub => None,
            Self::Group => call.group.map(Name::bytes).map(hash),
            Self::User => call.user.map(Name::bytes).map(hash),
            Self::Connection => call.connection.map(Name::bytes).map(hash),
            Self::Header(name) => headers.get(name).map(|value| hash(value.as_bytes().iter().copied())),
        };
        let hub = || Some(hash(call.hub?.bytes().map(|byte| byte.to_ascii_lowercase())));
        own.or_else(hub).unwrap_or_default()
    }
}

fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let mut hasher = XxHash64::with_seed(0);
    bytes.for_each(|byte| hasher.write(&[byte]));
    hasher.finish()
}

/// Returns the hash of an endpoint's name, which makes its scores differ from those of others.
pub(super) fn seed(endpoint: &str) -> u64 {
    XxHash64::oneshot(0, endpoint.as_bytes())
}

/// The score of an endpoint for a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Score {
    /// The negative logarithm of the hash; less is better.
    distance: u64,
    weight: u32,
}

impl Score {
    /// Returns the score of the endpoint with this `seed` for a key.
    pub(super) fn of(seed: u64, key: u64, weight: u32) -> Self {
        Self { distance: negative_log2(XxHash64::oneshot(seed, &key.to_le_bytes())), weight }
    }

    /// Returns whether this score is better than the other: less distance in proportion to its weight. The products are exact:
    /// 39 bits of distance times 20 bits of weight.
    pub(super) fn beats(self, other: Self) -> bool {
        self.distance.saturating_mul(other.weight.into()) < other.distance.saturating_mul(self.weight.into())
    }
}

/// Returns −log₂ of `number` / 2⁶⁴ as a fixed-point number with 32 fractional bits. For uniform numbers it is distributed
/// exponentially, so after division by the weights each endpoint has the least distance in proportion to its weight.
///
/// Uses integers only, since floating-point logarithms differ between machines. After normalisation to [1, 2), each squaring
/// yields one more fractional bit.
fn negative_log2(number: u64) -> u64 {
    let number = number.max(1);
    let zeros = number.leading_zeros();
    // A number in [1, 2) with 63 fractional bits.
    let mut rest = u128::from(number << zeros);
    let mut fraction = 0_u64;
    for _ in 0..32 {
        rest = (rest * rest) >> 63;
        let is_two_or_more = rest >> 64;
        rest >>= is_two_or_more;
        fraction = (fraction << 1) | u64::from(is_two_or_more == 1);
    }
    ((u64::from(zeros) + 1) << 32) - fraction
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithm_agrees_with_the_floating_point_one() {
        assert_eq!(negative_log2(1 << 63), 1 << 32);
        assert_eq!(negative_log2(1), 64 << 32);
        assert_eq!(negative_log2(0), 64 << 32);
        let float = |number: u64| f64::from(u32::try_from(number).unwrap());
        for number in [3, 12_345, u32::MAX / 3, u32::MAX - 1, u32::MAX] {
            let exact = 32.0 - f64::from(number).log2();
            let ours = negative_log2(u64::from(number) << 32);
            let ours = float(ours >> 32) + float(ours & 0xffff_ffff) / float(1 << 31) / 2.0;
            assert!((exact - ours).abs() < 1e-9, "{number}: {exact} {ours}");
        }
    }

    /// The values of the reference implementation: `xxh64("", 0)`, `xxh64("abc", 0)`.
    #[test]
    fn hash_is_xxh64() {
        assert_eq!(hash(std::iter::empty()), 0xef46_db37_51d8_e999);
        assert_eq!(hash(b"abc".iter().copied()), 0x44bc_2cf5_ad77_0999);
        assert_eq!(seed("abc"), hash(b"abc".iter().copied()));
    }
}

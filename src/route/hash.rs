//! Spreading calls by what they are about: rendezvous hashing (highest random weight). Every endpoint scores each key on
//! its own, and the best score wins, so taking an endpoint away moves its own keys and no others.
//!
//! The hash is XXH64, an algorithm with a published definition, over the bytes of names: which endpoint a key leads to is
//! the same in every version and on every machine, and replicas agree without talking to each other.
//!
//! Source: Thaler and Ravishankar, "Using Name-Based Mappings to Increase Hit Rates" (1998); for weights, Schindelhauer and
//! Schomaker, "Weighted Distributed Hash Tables" (2005); <https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md>.

use std::hash::Hasher;

use http::{HeaderMap, HeaderName};
use twox_hash::XxHash64;

use crate::signalr::{Call, Name, NameKind, Operation};

/// What calls are spread by. A call that does not have it is spread by its hub; one without a hub always goes the same
/// way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashKey {
    /// The hub, without case.
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

    /// Hashes what a call has of it. Allocates nothing.
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

/// Hashes an endpoint's name: what tells its scores from those of others.
pub(super) fn seed(endpoint: &str) -> u64 {
    XxHash64::oneshot(0, endpoint.as_bytes())
}

/// What an endpoint makes of a key. Scores compare by how good they are.
#[derive(Clone, Copy, Debug)]
pub(super) struct Score {
    /// The distance from the best there could be.
    distance: u64,
    weight: u32,
}

impl Score {
    /// Returns the score of the endpoint with this `seed`.
    pub(super) fn of(seed: u64, key: u64, weight: u32) -> Self {
        Self { distance: negative_log2(XxHash64::oneshot(seed, &key.to_le_bytes())), weight }
    }

    /// Whether it is better than the other: less distance for its weight. Exact, so that no rounding decides: 39 bits of
    /// distance times 20 of weight.
    pub(super) fn beats(self, other: Self) -> bool {
        self.distance.saturating_mul(other.weight.into()) < other.distance.saturating_mul(self.weight.into())
    }
}

/// Returns −log₂ of a number seen as a fraction of 2⁶⁴, with 32 binary places. Over all numbers it is distributed
/// exponentially, and of such distances divided by weights each is the least as often as its weight says.
///
/// In whole numbers, since the floating-point logarithm may differ from machine to machine: after taking off the power of
/// two, each squaring of what is left gives one more binary place.
fn negative_log2(number: u64) -> u64 {
    let number = number.max(1);
    let zeros = number.leading_zeros();
    // A number of [1, 2), with 63 binary places.
    let mut rest = u128::from(number << zeros);
    let mut places = 0_u64;
    for _ in 0..32 {
        rest = (rest * rest) >> 63;
        let is_two_or_more = rest >> 64;
        rest >>= is_two_or_more;
        places = (places << 1) | u64::from(is_two_or_more == 1);
    }
    ((u64::from(zeros) + 1) << 32) - places
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logarithms_are_those_of_the_textbook() {
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

    /// As the reference implementation computes it: `xxh64("", 0)`, `xxh64("abc", 0)`.
    #[test]
    fn hash_is_the_published_one() {
        assert_eq!(hash(std::iter::empty()), 0xef46_db37_51d8_e999);
        assert_eq!(hash(b"abc".iter().copied()), 0x44bc_2cf5_ad77_0999);
        assert_eq!(seed("abc"), hash(b"abc".iter().copied()));
    }
}

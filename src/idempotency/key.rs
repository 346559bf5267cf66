//! The key of a call, and the network that it came from.

use std::net::IpAddr;

/// A key, the listener that it was sent to and the caller: another listener, or another caller, has its own keys.
#[derive(Clone, Debug)]
pub struct CallKey {
    /// The listener's configured name.
    pub listener: Box<str>,
    /// The identity in the caller's certificate; empty if it has none.
    pub caller: Box<str>,
    /// The network of the caller, whose share of the memory the key counts against.
    pub network: Network,
    /// The key.
    pub key: Box<str>,
}

/// A network of callers: a /24 of IPv4, a /64 of IPv6, or all callers on Unix sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Network {
    /// A Unix socket.
    Local,
    /// The first three bytes of an IPv4 address.
    V4(u32),
    /// The first eight bytes of an IPv6 address.
    V6(u64),
}

impl Network {
    /// Returns the network of a caller. Callers on a Unix socket have no address.
    pub fn of(client: Option<IpAddr>) -> Self {
        match client.map(|client| client.to_canonical()) {
            None => Self::Local,
            Some(IpAddr::V4(address)) => Self::V4(address.to_bits() >> 8),
            // Never fails: the upper 64 bits.
            Some(IpAddr::V6(address)) => Self::V6(u64::try_from(address.to_bits() >> 64).unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_grouped_by_network() {
        let of = |address: &str| Network::of(Some(address.parse().unwrap()));
        assert_eq!(of("10.0.0.1"), of("::ffff:10.0.0.200"));
        assert_ne!(of("10.0.0.1"), of("10.0.1.1"));
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(Network::of(None), Network::Local);
    }
}

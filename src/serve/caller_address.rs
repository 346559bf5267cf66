//! The address of the caller of a call, which a trusted proxy may report.

use std::net::IpAddr;

use http::HeaderMap;
use ipnet::IpNet;

use super::forwarded::{Malformed, Node, forwarded, x_forwarded_for};
use crate::metrics::AddressProblem;

/// The proxies whose reports of a caller's address count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    /// Their networks.
    pub networks: Vec<IpNet>,
    /// Whether the peers on a Unix socket are among them.
    pub has_unix_peers: bool,
}

impl TrustedProxies {
    /// Returns whether a peer is one of them; `None` is a peer on a Unix socket.
    pub fn includes(&self, peer: Option<IpAddr>) -> bool {
        peer.map_or(self.has_unix_peers, |peer| self.includes_address(peer))
    }

    fn includes_address(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.networks.iter().any(|network| network.contains(&address))
    }
}

/// The address of the caller of one call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CallerAddress {
    address: Option<IpAddr>,
    problem: Option<AddressProblem>,
}

impl CallerAddress {
    /// Returns the address of a caller that is connected directly; `None` on a Unix socket.
    pub fn of_peer(peer: Option<IpAddr>) -> Self {
        Self { address: peer.map(|peer| peer.to_canonical()), problem: None }
    }

    /// Returns the address of a caller whose call arrived from `peer` with these headers. Only what a trusted proxy reports
    /// counts: the last address that is not one of a trusted proxy itself, or else the first one.
    ///
    /// If `Forwarded` and `X-Forwarded-For` do not report the same address, or what they report is not an address, the caller
    /// is unclear. Most proxies set one of the two headers and forward the other as the caller sent it, so that neither can be
    /// preferred.
    pub fn find(peer: Option<IpAddr>, headers: &HeaderMap, trusted: &TrustedProxies) -> Self {
        let peer = Self::of_peer(peer);
        if !trusted.includes(peer.address) {
            return peer;
        }
        let reported =
            match (first_untrusted(forwarded(headers), trusted), first_untrusted(x_forwarded_for(headers), trusted)) {
                (None, None) => return peer,
                (Some(reported), None) | (None, Some(reported)) => reported,
                (Some(one), Some(other)) if one == other => one,
                (Some(Err(AddressProblem::Malformed)), _) | (_, Some(Err(AddressProblem::Malformed))) => {
                    Err(AddressProblem::Malformed)
                }
                _ => Err(AddressProblem::Conflicting),
            };
        match reported {
            Ok(address) => Self { address: Some(address), problem: None },
            Err(problem) => Self { problem: Some(problem), ..peer },
        }
    }

    /// Returns the address that rates and logs use: the caller's, or its proxy's if the caller is unclear. `None` on a Unix
    /// socket.
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// Returns the address that conditions compare. `None` on a Unix socket, and if the caller is unclear: its proxy's address
    /// would let it pass for a caller in the proxy's network.
    pub fn certain(&self) -> Option<IpAddr> {
        if self.problem.is_some() { None } else { self.address }
    }

    /// Returns why the caller is unclear, if it is.
    pub fn problem(&self) -> Option<AddressProblem> {
        self.problem
    }
}

/// Returns the first of the nodes that is not a trusted proxy, or the last one if all are. `None` if there are no nodes.
fn first_untrusted(
    nodes: impl Iterator<Item = Result<Node, Malformed>>,
    trusted: &TrustedProxies,
) -> Option<Result<IpAddr, AddressProblem>> {
    let mut last = None;
    for node in nodes {
        let address = match node {
            Ok(Node::Address(address)) => address.to_canonical(),
            Ok(Node::Unknown) => return Some(Err(AddressProblem::Unknown)),
            Err(Malformed) => return Some(Err(AddressProblem::Malformed)),
        };
        if !trusted.includes_address(address) {
            return Some(Ok(address));
        }
        last = Some(Ok(address));
    }
    last
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn trusted() -> TrustedProxies {
        TrustedProxies {
            networks: vec!["10.0.0.0/8".parse().unwrap(), "2001:db8:1::/48".parse().unwrap()],
            has_unix_peers: false,
        }
    }

    fn find(peer: &str, lines: &[(&'static str, &str)]) -> CallerAddress {
        let headers = lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap()));
        CallerAddress::find(Some(peer.parse().unwrap()), &headers.collect(), &trusted())
    }

    #[test]
    fn address_is_the_last_one_that_is_not_of_a_trusted_proxy() {
        for (peer, lines, expected) in [
            ("10.0.0.1", &[][..], "10.0.0.1"),
            ("10.0.0.1", &[("x-forwarded-for", "203.0.113.9")][..], "203.0.113.9"),
            ("::ffff:10.0.0.1", &[("x-forwarded-for", "::ffff:203.0.113.9")], "203.0.113.9"),
            ("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, 203.0.113.9, 10.0.0.2")], "203.0.113.9"),
            ("10.0.0.1", &[("forwarded", "for=1.1.1.1, for=203.0.113.9, for=10.0.0.2")], "203.0.113.9"),
            ("2001:db8:1::1", &[("forwarded", "for=\"[2001:db8:2::1]:4711\"")], "2001:db8:2::1"),
            ("10.0.0.1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3"),
            ("10.0.0.1", &[("x-forwarded-for", "garbage, 203.0.113.9")], "203.0.113.9"),
            ("10.0.0.1", &[("x-forwarded-for", "203.0.113.9"), ("forwarded", "for=203.0.113.9")], "203.0.113.9"),
            ("10.0.0.1", &[("x-forwarded-for", " "), ("forwarded", "")], "10.0.0.1"),
        ] {
            let found = find(peer, lines);
            assert_eq!(found, CallerAddress::of_peer(Some(expected.parse().unwrap())), "{peer} {lines:?}");
        }
    }

    #[test]
    fn headers_of_other_peers_do_not_count() {
        for lines in [("x-forwarded-for", "10.9.9.9"), ("forwarded", "for=10.9.9.9"), ("forwarded", "garbage")] {
            assert_eq!(find("203.0.113.1", &[lines]), CallerAddress::of_peer(Some("203.0.113.1".parse().unwrap())));
        }
        let headers = HeaderMap::from_iter([(HeaderName::from_static("x-forwarded-for"), "1.1.1.1".parse().unwrap())]);
        assert_eq!(CallerAddress::find(None, &headers, &trusted()), CallerAddress::default(), "a Unix socket");
        let trusted = TrustedProxies { has_unix_peers: true, ..trusted() };
        assert_eq!(CallerAddress::find(None, &headers, &trusted).certain(), Some("1.1.1.1".parse().unwrap()));
    }

    #[test]
    fn unclear_callers_count_as_their_proxy_and_meet_no_condition() {
        for (lines, problem) in [
            (&[("x-forwarded-for", "garbage")][..], AddressProblem::Malformed),
            (&[("x-forwarded-for", "garbage, 10.0.0.2")], AddressProblem::Malformed),
            (&[("forwarded", "for=\"203.0.113.9")], AddressProblem::Malformed),
            (&[("forwarded", "garbage"), ("x-forwarded-for", "203.0.113.9")], AddressProblem::Malformed),
            (&[("forwarded", "for=unknown")], AddressProblem::Unknown),
            (&[("forwarded", "for=_hidden, for=10.0.0.2")], AddressProblem::Unknown),
            (&[("forwarded", "proto=https")], AddressProblem::Unknown),
            (&[("forwarded", "for=1.1.1.1"), ("x-forwarded-for", "203.0.113.9")], AddressProblem::Conflicting),
            (&[("forwarded", "for=unknown"), ("x-forwarded-for", "203.0.113.9")], AddressProblem::Conflicting),
        ] {
            let found = find("10.0.0.1", lines);
            let expected = (Some("10.0.0.1".parse().unwrap()), None, Some(problem));
            assert_eq!((found.address(), found.certain(), found.problem()), expected, "{lines:?}");
        }
    }
}

//! The hosts that are connected to without the proxy, by the rules of curl.
//!
//! A name matches itself and every name below it, with or without a leading dot and in any case; ports do not count. Addresses
//! match addresses and networks, not names that resolve to them. `*` alone matches every host.
//!
//! Source: curl, `CURLOPT_NOPROXY`. Deviation: `/0` is a network of all addresses; curl takes it for one address.

use std::net::IpAddr;

use ipnet::IpNet;

/// The hosts that are connected to without the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct NoProxy {
    matches_all: bool,
    networks: Vec<IpNet>,
    /// In lower case, without a dot at the beginning or the end.
    domains: Vec<String>,
}

/// Why an entry matches no host. curl ignores such entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidException {
    /// It has a scheme.
    #[error("is a URL, must be a host")]
    Url,
    /// It has a port.
    #[error("has a port; ports do not count")]
    Port,
    /// It has brackets.
    #[error("has brackets, which IPv6 addresses do not have here")]
    Brackets,
    /// It has a `*` besides other characters or entries.
    #[error("has a `*`, which is allowed only alone; a name matches every name below it")]
    Wildcard,
    /// It is not a network.
    #[error("is not a network, such as 10.0.0.0/8")]
    Network,
    /// It is not a name.
    #[error("is not a host name")]
    Name,
}

impl NoProxy {
    /// Parses entries. Returns the problems of those that match no host, by their index.
    pub fn parse<'t>(entries: impl IntoIterator<Item = &'t str>) -> (Self, Vec<(usize, InvalidException)>) {
        let entries: Vec<&str> = entries.into_iter().map(str::trim).collect();
        if entries == ["*"] {
            return (Self { matches_all: true, ..Self::default() }, Vec::new());
        }
        let (mut parsed, mut problems) = (Self::default(), Vec::new());
        for (index, entry) in entries.into_iter().enumerate() {
            match parsed.add(entry) {
                Ok(()) => {}
                Err(problem) => problems.push((index, problem)),
            }
        }
        (parsed, problems)
    }

    /// Splits the value of `NO_PROXY` into its entries: at commas and white space.
    pub fn split_variable(text: &str) -> impl Iterator<Item = &str> {
        text.split(|ch: char| ch == ',' || ch.is_ascii_whitespace()).filter(|entry| !entry.is_empty())
    }

    fn add(&mut self, entry: &str) -> Result<(), InvalidException> {
        if entry.contains("://") {
            return Err(InvalidException::Url);
        }
        if let Ok(address) = entry.parse::<IpAddr>() {
            self.networks.push(address.into());
            return Ok(());
        }
        if entry.contains('/') {
            let network = entry.parse::<IpNet>().map_err(|_invalid| InvalidException::Network)?;
            self.networks.push(network.trunc());
            return Ok(());
        }
        if entry.contains(['[', ']']) {
            return Err(InvalidException::Brackets);
        }
        if entry.contains(':') {
            return Err(InvalidException::Port);
        }
        if entry.contains('*') {
            return Err(InvalidException::Wildcard);
        }
        let domain = normalized(entry.strip_prefix('.').unwrap_or(entry));
        let is_label = |label: &str| {
            let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            !label.is_empty() && label.bytes().all(is_plain)
        };
        if !domain.split('.').all(is_label) {
            return Err(InvalidException::Name);
        }
        self.domains.push(domain);
        Ok(())
    }

    /// Returns whether a host, a name or an IP address without brackets, is connected to without the proxy.
    pub fn matches(&self, host: &str) -> bool {
        if self.matches_all {
            return true;
        }
        match host.parse::<IpAddr>() {
            Ok(address) => self.networks.iter().any(|network| network.contains(&address)),
            Err(_name) => {
                let host = normalized(host);
                let is_below = |domain: &String| {
                    host.strip_suffix(domain.as_str()).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                };
                self.domains.iter().any(is_below)
            }
        }
    }
}

/// Removes the dot at the end of an absolute name, and converts it to lower case.
fn normalized(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn matches(list: &str, host: &str) -> bool {
        NoProxy::parse(NoProxy::split_variable(list)).0.matches(host)
    }

    #[test]
    fn documented_examples_of_curl() {
        for (list, host, expected) in [
            ("example.com", "example.com", true),
            ("example.com", "www.example.com", true),
            ("example.com", "EXAMPLE.com.", true),
            ("example.com", "www.notanexample.com", false),
            ("example.com", "example.com.othertld", false),
            (".example.com", "www.example.com", true),
            (".example.com", "foo.example.com", true),
            (".example.com", "example.com", true),
            (".example.com.", "example.com", true),
            (".example.com", "notexample.com", false),
            ("", "example.com", false),
            ("*", "example.com", true),
            ("*", "10.0.0.1", true),
            ("*,example.org", "example.com", false),
            ("example.com,::1,localhost", "::1", true),
            ("example.com,::1,localhost", "localhost", true),
            ("localhost", "127.0.0.1", false),
            ("127.0.0.1", "localhost", false),
            ("192.168.0.0/16", "192.168.255.1", true),
            ("192.168.0.0/16", "192.169.0.1", false),
            ("192.168.7.7/16", "192.168.0.1", true),
            ("10.0.0.1", "10.0.0.1", true),
            ("10.0.0.1", "10.0.0.10", false),
            ("10.0.0.0/8", "10.example", false),
            ("0.0.0.0/0", "10.0.0.1", true),
            ("fd00::/8", "fd12::1", true),
            ("fd00::/8", "10.0.0.1", false),
            ("a.example b.example\tc.example", "c.example", true),
            (" a.example , b.example ", "b.example", true),
            ("example.com:443", "example.com", false),
            ("*.example.com", "www.example.com", false),
        ] {
            assert_eq!(matches(list, host), expected, "{list:?} {host}");
        }
    }

    #[test]
    fn entries_that_match_no_host_are_problems() {
        for (entry, problem) in [
            ("https://example.com", InvalidException::Url),
            ("example.com:443", InvalidException::Port),
            ("10.0.0.1:443", InvalidException::Port),
            ("[::1]", InvalidException::Brackets),
            ("*.example.com", InvalidException::Wildcard),
            ("10.0.0.0/33", InvalidException::Network),
            ("example.com/8", InvalidException::Network),
            ("a..b", InvalidException::Name),
            (".", InvalidException::Name),
            ("", InvalidException::Name),
            ("a b", InvalidException::Name),
        ] {
            assert_eq!(NoProxy::parse([entry]).1, [(0, problem)], "{entry}");
        }
        assert_eq!(NoProxy::parse(["a.example", "*"]).1, [(1, InvalidException::Wildcard)]);
        assert_eq!(NoProxy::parse(["*"]).1, []);
    }

    /// The rules as curl's source has them (lib/noproxy.c), for names and for addresses without and with a prefix length.
    fn curl(host: &str, list: &str) -> bool {
        if list == "*" {
            return true;
        }
        let bits_of = |address: IpAddr| match address {
            IpAddr::V4(address) => u128::from(u32::from(address)) << 96,
            IpAddr::V6(address) => u128::from(address),
        };
        list.split([',', ' ']).filter(|token| !token.is_empty()).any(|token| {
            if let Ok(host) = host.parse::<IpAddr>() {
                let (address, length) = token.split_once('/').unwrap_or((token, "0"));
                let (Ok(address), Ok(length)) = (address.parse::<IpAddr>(), length.parse::<u32>()) else {
                    return false;
                };
                let whole = if host.is_ipv4() { 32 } else { 128 };
                let length = if length == 0 { whole } else { length };
                let shift = 128 - length.min(128);
                return host.is_ipv4() == address.is_ipv4()
                    && length <= whole
                    && bits_of(host) >> shift == bits_of(address) >> shift;
            }
            let name = host.strip_suffix('.').unwrap_or(host).as_bytes();
            let token = token.strip_suffix('.').unwrap_or(token);
            let token = token.strip_prefix('.').unwrap_or(token).as_bytes();
            if token.len() > name.len() || token.is_empty() {
                return false;
            }
            let (before, tail) = name.split_at(name.len() - token.len());
            tail.eq_ignore_ascii_case(token) && before.last().is_none_or(|last| *last == b'.')
        })
    }

    fn name() -> impl Strategy<Value = String> {
        prop::collection::vec("[aB]{1,2}|x-y", 1..4).prop_map(|labels| labels.join("."))
    }

    fn address() -> impl Strategy<Value = String> {
        let v4 = prop::array::uniform4(prop::sample::select(vec![0_u8, 1, 10, 127, 128, 255]));
        let v6 = prop::array::uniform2(prop::sample::select(vec![0_u16, 1, 0xfd00, 0xffff]));
        prop_oneof![
            v4.prop_map(|octets| Ipv4Addr::from(octets).to_string()),
            v6.prop_map(|[first, last]| Ipv6Addr::new(first, 0, 0, 0, 0, 0, 0, last).to_string()),
        ]
    }

    fn entry() -> impl Strategy<Value = String> {
        prop_oneof![
            ("|\\.", name(), "|\\.").prop_map(|(before, name, after)| format!("{before}{name}{after}")),
            address(),
            (address(), 1_u8..33).prop_map(|(address, length)| format!("{address}/{length}")),
        ]
    }

    proptest! {
        #[test]
        fn matches_what_curl_matches(
            entries in prop::collection::vec(entry(), 0..4),
            host in prop_oneof![(name(), "|\\.").prop_map(|(name, dot)| name + &dot), address()],
        ) {
            let list = entries.join(",");
            prop_assert_eq!(matches(&list, &host), curl(&host, &list), "{} {}", list, host);
        }
    }
}

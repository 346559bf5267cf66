//! Parses the headers in which proxies report whom they forward a call for: `Forwarded` (RFC 7239) and `X-Forwarded-For`.
//!
//! Nodes are read from the right: each proxy appends the node that it received the call from. Whatever is to the left of the
//! first node that is not a trusted proxy comes from the caller, and is not read.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv6Addr};

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

pub(super) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The node that a proxy received a call from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    /// A host.
    Address(IpAddr),
    /// One that the proxy does not know or does not name (`unknown`, `_hidden`).
    Unknown,
}

/// A header that does not follow its syntax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Malformed;

/// Returns the nodes in `Forwarded`, the last one first. Each line is parsed on its own, so that a line that the caller sent
/// cannot change the meaning of the lines that proxies appended.
pub(super) fn forwarded(headers: &HeaderMap) -> impl Iterator<Item = Result<Node, Malformed>> {
    let lines = headers.get_all(FORWARDED).iter().rev();
    lines.flat_map(|line| match nodes_of_line(line.as_bytes()) {
        Ok(nodes) => nodes.into_iter().rev().map(Ok).collect(),
        Err(malformed) => vec![Err(malformed)],
    })
}

/// Returns the nodes in `X-Forwarded-For`, the last one first.
pub(super) fn x_forwarded_for(headers: &HeaderMap) -> impl Iterator<Item = Result<Node, Malformed>> {
    let lines = headers.get_all(X_FORWARDED_FOR).iter().rev().map(HeaderValue::as_bytes);
    let nodes = lines.flat_map(|line| line.rsplit(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    // Lists may have empty elements (RFC 9110 section 5.6.1).
    nodes.filter(|node| !node.is_empty()).map(|node| {
        let text = std::str::from_utf8(node).map_err(|_invalid| Malformed)?;
        // IPv6 addresses come with and without brackets.
        text.parse::<Ipv6Addr>().map_or_else(|_other| node_of(text), |address| Ok(Node::Address(address.into())))
    })
}

/// Parses one line of `Forwarded`: elements separated by commas, each with pairs separated by semicolons.
fn nodes_of_line(line: &[u8]) -> Result<Vec<Node>, Malformed> {
    let (mut nodes, mut rest) = (Vec::new(), line.trim_ascii());
    // The node of the current element, once it has a pair.
    let mut element: Option<Option<Node>> = None;
    loop {
        match rest.split_first() {
            None => {
                nodes.extend(element.map(|node| node.unwrap_or(Node::Unknown)));
                return Ok(nodes);
            }
            Some((b',', after)) => {
                nodes.extend(element.take().map(|node| node.unwrap_or(Node::Unknown)));
                rest = after.trim_ascii_start();
            }
            Some((b';', after)) => rest = after.trim_ascii_start(),
            Some(_) => {
                let Pair { name, value, rest: after } = pair(rest)?;
                let node = element.get_or_insert(None);
                if name.eq_ignore_ascii_case(b"for") {
                    let found = node_of(std::str::from_utf8(&value).map_err(|_invalid| Malformed)?)?;
                    // Each parameter occurs at most once (RFC 7239 section 4).
                    if node.replace(found).is_some() {
                        return Err(Malformed);
                    }
                }
                rest = after.trim_ascii_start();
                if !matches!(rest.first(), None | Some(b',' | b';')) {
                    return Err(Malformed);
                }
            }
        }
    }
}

/// `name=value`, and what follows.
struct Pair<'a> {
    name: &'a [u8],
    value: Cow<'a, [u8]>,
    rest: &'a [u8],
}

fn pair(text: &[u8]) -> Result<Pair<'_>, Malformed> {
    let (name, rest) = token(text)?;
    let rest = rest.strip_prefix(b"=").ok_or(Malformed)?;
    let (value, rest) = match rest.strip_prefix(b"\"") {
        Some(quoted) => quoted_string(quoted)?,
        None => token(rest).map(|(value, rest)| (Cow::Borrowed(value), rest))?,
    };
    Ok(Pair { name, value, rest })
}

fn token(text: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let is_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    let end = text.iter().position(|byte| !is_token(byte)).unwrap_or(text.len());
    if end == 0 { Err(Malformed) } else { Ok(text.split_at(end)) }
}

/// Parses a quoted string (RFC 9110 section 5.6.4) whose opening quote was read.
fn quoted_string(text: &[u8]) -> Result<(Cow<'_, [u8]>, &[u8]), Malformed> {
    let mut value = Vec::new();
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return Ok((Cow::Owned(value), bytes.as_slice())),
            b'\\' => value.push(*bytes.next().ok_or(Malformed)?),
            byte => value.push(*byte),
        }
    }
    Err(Malformed)
}

/// Parses a node (RFC 7239 section 6): an address, `unknown` or a name that begins with `_`, with or without a port.
fn node_of(text: &str) -> Result<Node, Malformed> {
    if let Some(rest) = text.strip_prefix('[') {
        let (address, port) = rest.split_once(']').ok_or(Malformed)?;
        let address = address.parse::<Ipv6Addr>().map_err(|_invalid| Malformed)?;
        let is_valid = port.is_empty() || port.strip_prefix(':').is_some_and(is_port);
        return if is_valid { Ok(Node::Address(address.into())) } else { Err(Malformed) };
    }
    let (name, port) = text.split_once(':').map_or((text, None), |(name, port)| (name, Some(port)));
    if !port.is_none_or(is_port) {
        return Err(Malformed);
    }
    if name.eq_ignore_ascii_case("unknown") || is_hidden(name) {
        return Ok(Node::Unknown);
    }
    name.parse().map(|address| Node::Address(IpAddr::V4(address))).map_err(|_invalid| Malformed)
}

fn is_port(text: &str) -> bool {
    let is_number = (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number || is_hidden(text)
}

/// Returns whether a name is one that hides a host or a port.
fn is_hidden(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.strip_prefix('_').is_some_and(|name| !name.is_empty() && name.bytes().all(is_plain))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses lines, and returns the nodes as text, the last one first.
    fn nodes(name: &HeaderName, lines: &[&str]) -> Vec<String> {
        let headers: HeaderMap = lines.iter().map(|line| (name.clone(), line.parse().unwrap())).collect();
        let shown = |node: Result<Node, Malformed>| match node {
            Ok(Node::Address(address)) => address.to_string(),
            Ok(Node::Unknown) => "unknown".to_owned(),
            Err(Malformed) => "malformed".to_owned(),
        };
        if *name == FORWARDED {
            forwarded(&headers).map(shown).collect()
        } else {
            x_forwarded_for(&headers).map(shown).collect()
        }
    }

    #[test]
    fn forwarded_is_read_from_the_right_as_rfc_7239_writes_it() {
        for (lines, expected) in [
            (&["for=192.0.2.60;proto=http;by=203.0.113.43"][..], &["192.0.2.60"][..]),
            (&["for=192.0.2.43, for=198.51.100.17"], &["198.51.100.17", "192.0.2.43"]),
            (&["for=192.0.2.43", "For=198.51.100.17"], &["198.51.100.17", "192.0.2.43"]),
            (&["for=\"[2001:db8:cafe::17]:4711\""], &["2001:db8:cafe::17"]),
            (&["for=\"[2001:db8::1]\" ; proto=https"], &["2001:db8::1"]),
            (&["for=\"192.0.2.43:47011\""], &["192.0.2.43"]),
            (&["for=\"192.0.2.4\\3\""], &["192.0.2.43"]),
            (&["for=\"192.0.2.43:_gazonk\""], &["192.0.2.43"]),
            (&["for=unknown"], &["unknown"]),
            (&["for=_mdn"], &["unknown"]),
            (&["proto=https"], &["unknown"]),
            (&["by=\"a,b\";for=192.0.2.1"], &["192.0.2.1"]),
            (&[" , ;, for=192.0.2.1;"], &["192.0.2.1"]),
            (&[""], &[]),
        ] {
            assert_eq!(nodes(&FORWARDED, lines), expected, "{lines:?}");
        }
    }

    #[test]
    fn malformed_forwarded_lines_are_not_repaired() {
        for line in [
            "for=192.0.2.1:80",
            "for=[2001:db8::1]",
            "for=\"2001:db8::1\"",
            "for=\"[192.0.2.1]\"",
            "for=\"[2001:db8::1\"",
            "for=\"[2001:db8::1]80\"",
            "for=\"192.0.2.1:\"",
            "for=\"192.0.2.1:123456\"",
            "for=\"192.0.2.1",
            "for=\"192.0.2.1\\",
            "for = 192.0.2.1",
            "for=192.0.2.1 proto=http",
            "for=192.0.2.1;for=192.0.2.2",
            "for=",
            "for=_",
            "for=host.example",
            "for=192.0.2.256",
            "192.0.2.1",
        ] {
            assert_eq!(nodes(&FORWARDED, &[line]), ["malformed"], "{line}");
        }
        // An open quote of the caller does not reach the line that the proxy appended.
        assert_eq!(nodes(&FORWARDED, &["for=\"192.0.2.1", "for=192.0.2.2"]), ["192.0.2.2", "malformed"]);
        assert_eq!(nodes(&FORWARDED, &["for=192.0.2.9;x=\", for=\"[2001:db8::1]\""]), ["malformed"]);
    }

    #[test]
    fn x_forwarded_for_is_read_from_the_right_with_and_without_ports() {
        for (lines, expected) in [
            (&["203.0.113.1, 198.51.100.17"][..], &["198.51.100.17", "203.0.113.1"][..]),
            (&["203.0.113.1", "198.51.100.17:4711,2001:db8::1"], &["2001:db8::1", "198.51.100.17", "203.0.113.1"]),
            (&["[2001:db8::1]:80,[2001:db8::2]"], &["2001:db8::2", "2001:db8::1"]),
            (&[", 203.0.113.1,,"], &["203.0.113.1"]),
            (&["Unknown"], &["unknown"]),
            (&["evil\"; for=1.1.1.1, 203.0.113.1"], &["203.0.113.1", "malformed"]),
            (&["203.0.113.1/24"], &["malformed"]),
            (&["fe80::1%eth0"], &["malformed"]),
            (&["localhost"], &["malformed"]),
            (&[" "], &[]),
        ] {
            assert_eq!(nodes(&X_FORWARDED_FOR, lines), expected, "{lines:?}");
        }
    }
}

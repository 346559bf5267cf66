//! Fuzz targets of what proxies in front of a listener report: the PROXY protocol, `Forwarded` and `X-Forwarded-For`.

use std::net::IpAddr;

use http::header::FORWARDED;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::caller_address::{CallerAddress, TrustedProxies};
use super::forwarded::X_FORWARDED_FOR;
use super::proxy_protocol::parse;
pub(crate) use crate::serve::http1::fuzzing::requests;

/// Parses the start of a connection. Asserts that the result does not depend on what follows a header, nor on how the bytes
/// are split, and that no header is longer than the protocol allows.
pub(crate) fn proxy_protocol(data: &[u8]) {
    let whole = parse(data);
    let header = whole.ok().flatten();
    assert!(header.is_none_or(|header| header.length <= data.len().min(16 + 4096)), "{header:?}");
    for end in 0..data.len() {
        let begun = parse(data.get(..end).unwrap_or_default());
        match header {
            Some(header) if end < header.length => assert_eq!(begun, Ok(None), "complete after {end} bytes"),
            Some(header) => assert_eq!(begun, Ok(Some(header)), "another header after {end} bytes"),
            // Once refused, more bytes change nothing.
            None if begun.is_err() => assert!(whole.is_err(), "refused after {end} bytes, and not in the end"),
            None => assert_eq!(begun, Ok(None), "complete after {end} bytes, and not in the end"),
        }
    }
    assert!(data.len() <= 16 + 4096 || whole != Ok(None), "it never ends");
}

/// Finds the caller of a call with the lines `f…` of `Forwarded` and `x…` of `X-Forwarded-For`. Asserts that an untrusted peer
/// is the caller, that a trusted proxy never is while another is reported, and that lines to the left, which callers send,
/// change nothing.
pub(crate) fn forwarded(data: &[u8]) {
    let line = |line: &[u8]| {
        let (kind, value) = line.split_first()?;
        let name: HeaderName = if *kind == b'f' { FORWARDED } else { X_FORWARDED_FOR };
        Some((name, HeaderValue::from_bytes(value.trim_ascii()).ok()?))
    };
    let lines: Vec<_> = data.split(|byte| *byte == b'\n').filter_map(line).collect();
    let headers: HeaderMap = lines.iter().cloned().collect();
    let trusted = TrustedProxies {
        networks: ["10.0.0.0/8", "fd00::/8"].into_iter().filter_map(|network| network.parse().ok()).collect(),
        has_unix_peers: false,
    };
    let [proxy, stranger]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [198, 51, 100, 1].into()];
    assert_eq!(CallerAddress::find(Some(stranger), &headers, &trusted), CallerAddress::of_peer(Some(stranger)));
    let found = CallerAddress::find(Some(proxy), &headers, &trusted);
    assert_eq!(found.certain().is_none(), found.problem().is_some(), "{found:?}");
    if found.problem().is_some() {
        assert_eq!(found.address(), Some(proxy), "an unclear caller counts as its proxy");
    }
    // What a proxy appends hides all before it.
    for (name, appended) in [(FORWARDED, "for=203.0.113.7"), (X_FORWARDED_FOR, "203.0.113.7")] {
        let mut behind: HeaderMap = lines.iter().filter(|(found, _)| *found == name).cloned().collect();
        behind.append(name, HeaderValue::from_static(appended));
        let found = CallerAddress::find(Some(proxy), &behind, &trusted);
        assert_eq!(found, CallerAddress::of_peer(Some([203, 0, 113, 7].into())), "{behind:?}");
    }
}

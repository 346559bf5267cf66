//! Recognises requests of browser pages by `Host`, `Origin` and `Sec-Fetch-Site`. A page that is open on an internal machine
//! can reach loopback and internal addresses, directly or by DNS rebinding.

use std::net::IpAddr;

use http::header::{HeaderMap, HeaderName, HeaderValue, ORIGIN};
use http::uri::Authority;

/// The relation of the sending page to the target of a request. Source: Fetch Metadata Request Headers (W3C), section 2.3.
pub const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Returns whether a `Host` value is an IP address, `localhost` or one of `allowed`. Allowed names are in lower case;
/// `*.example.com` matches any subdomain. DNS rebinding cannot produce an IP address or `localhost`.
pub fn is_allowed_host(host: &str, allowed: &[String]) -> bool {
    let name = without_port(host);
    // A trailing dot only says that the name is complete (RFC 1034 section 3.1).
    let name = name.strip_suffix('.').unwrap_or(name);
    allowed.iter().any(|pattern| is_match(name, pattern)) || is_address_or_localhost(name)
}

/// Returns whether a `Host` value is a host, with or without a port.
pub fn is_valid_host(host: &str) -> bool {
    !host.contains('@') && host.parse::<Authority>().is_ok()
}

/// Returns the header that shows that a page sent the request. A browser sends `Sec-Fetch-Site: none` for an address that a
/// user typed, and `same-origin` for a page of this origin.
pub fn page_header(headers: &HeaderMap) -> Option<&'static str> {
    if headers.contains_key(ORIGIN) {
        return Some("Origin");
    }
    match headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes) {
        None | Some(b"none" | b"same-origin") => None,
        Some(_) => Some("Sec-Fetch-Site"),
    }
}

fn is_match(name: &str, pattern: &str) -> bool {
    match pattern.strip_prefix('*') {
        Some(suffix) => {
            name.len() > suffix.len()
                && name.get(name.len() - suffix.len()..).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
        }
        None => name.eq_ignore_ascii_case(pattern),
    }
}

fn is_address_or_localhost(name: &str) -> bool {
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    bare.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

/// Returns a `Host` value without its port. A colon inside brackets belongs to an IPv6 address.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allows_addresses_localhost_and_configured_names() {
        let allowed = ["gateway.internal".to_owned(), "*.svc.cluster.local".to_owned()];
        for (host, expected) in [
            ("127.0.0.1:8080", true),
            ("127.0.0.1.", true),
            ("[::1]:8080", true),
            ("[::1]", true),
            ("10.1.2.3", true),
            ("localhost", true),
            ("LOCALHOST:1", true),
            ("localhost.", true),
            ("localhost.:8080", true),
            ("localhost..", false),
            ("Gateway.Internal:8080", true),
            ("gateway.internal.", true),
            ("a.b.svc.cluster.local", true),
            ("svc.cluster.local", false),
            (".svc.cluster.local", false),
            ("evil.example", false),
            ("127.0.0.1.evil.example", false),
            ("gateway.internal.evil.example", false),
            ("localhost:8080:x", false),
            ("", false),
        ] {
            assert_eq!(is_allowed_host(host, &allowed), expected, "{host}");
        }
    }

    #[test]
    fn rejects_hosts_with_user_or_path() {
        for (host, expected) in [
            ("evil.example:80", true),
            ("[::1]", true),
            ("a b", false),
            ("user@localhost", false),
            ("a/", false),
            ("", false),
        ] {
            assert_eq!(is_valid_host(host), expected, "{host}");
        }
    }

    #[test]
    fn recognises_requests_of_pages() {
        for (name, value, expected) in [
            ("origin", "https://evil.example", Some("Origin")),
            ("origin", "null", Some("Origin")),
            ("sec-fetch-site", "cross-site", Some("Sec-Fetch-Site")),
            ("sec-fetch-site", "same-site", Some("Sec-Fetch-Site")),
            ("sec-fetch-site", "same-origin", None),
            ("sec-fetch-site", "none", None),
            ("accept", "*/*", None),
        ] {
            let name = HeaderName::from_static(name);
            assert_eq!(
                page_header(&HeaderMap::from_iter([(name, HeaderValue::from_static(value))])),
                expected,
                "{value}"
            );
        }
    }
}

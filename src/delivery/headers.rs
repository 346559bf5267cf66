//! Header rules in both directions, pure functions: hop-by-hop headers and the caller's credentials are not forwarded.
//! Everything else passes unchanged.

use http::HeaderValue;
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    LOCATION, ORIGIN, USER_AGENT,
};

use crate::metrics::TraceId;
use crate::route::ENDPOINT_HEADER;
use crate::serve::SEC_FETCH_SITE;
use crate::trace::{TRACE_PARENT, TraceParent};

/// The request id, in requests and in responses.
pub const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Marks a response as the gateway's own; the value is the error's kind.
pub const ERROR_HEADER: HeaderName = HeaderName::from_static("signalr-gateway-error");

/// The key under which a repeated call gets the outcome of the first.
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// Marks a response as that of an earlier call with the same idempotency key: `true`, or `without-body` if the body was too
/// large to be remembered.
pub const REPLAYED_HEADER: HeaderName = HeaderName::from_static("signalr-gateway-replayed");

/// Returns whether a header is about the connection and not about the message.
///
/// Source: RFC 9110 section 7.6.1; `proxy-*` and `keep-alive` from RFC 2616 section 13.5.1, still met in the wild.
fn is_hop_by_hop(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection"
            | "keep-alive"
            | "proxy-authenticate"
            | "proxy-authorization"
            | "proxy-connection"
            | "te"
            | "trailer"
            | "transfer-encoding"
            | "upgrade"
            | "http2-settings"
    )
}

/// Returns whether a request header is not forwarded. The gateway's own server handles `expect`; the endpoint header
/// and the idempotency key are for the gateway. Method and path override headers could make the endpoint, or a proxy in
/// front of it, run another operation than the admitted one.
pub(super) fn is_withheld_upstream(name: &HeaderName) -> bool {
    is_hop_by_hop(name)
        || *name == ENDPOINT_HEADER
        || *name == IDEMPOTENCY_KEY
        || matches!(
            name.as_str(),
            "cookie"
                | "expect"
                | "x-http-method"
                | "x-http-method-override"
                | "x-method-override"
                | "x-original-url"
                | "x-rewrite-url"
        )
}

/// The maximum number of headers that `Connection` may name. Each of them is compared with every header; real callers
/// name a few.
pub const MAX_CONNECTION_NAMES: usize = 32;

/// What one pass over a request's headers finds. Every further pass, and every lookup by name, costs about as much
/// again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeaderSummary {
    /// The size of the header lines on the wire, in bytes.
    pub size: usize,
    /// The number of `Host` headers.
    pub hosts: usize,
    /// Whether there is an `Origin` or a `Sec-Fetch-Site`.
    pub has_browser_headers: bool,
    /// Whether there is an `X-Request-Id`.
    pub has_request_id: bool,
    /// The number of `traceparent` headers. Several are none (W3C Trace Context, section 3.2).
    pub(super) trace_parents: usize,
    /// The trace that the last of them says is recorded.
    pub(super) recorded_trace: Option<TraceId>,
    /// The declared length of the body, in bytes.
    pub content_length: Option<u64>,
    /// The number of `Idempotency-Key` headers.
    pub idempotency_keys: usize,
    /// Whether any header must not be forwarded.
    pub(super) has_withheld: bool,
    /// The number of headers that `Connection` names.
    pub connection_names: usize,
}

impl HeaderSummary {
    /// Summarizes headers.
    pub fn of(headers: &HeaderMap) -> Self {
        let mut summary = Self::default();
        for (name, value) in headers {
            // `name: value\r\n`
            summary.size += name.as_str().len() + value.len() + 4;
            // The most frequent headers come first; standard names compare as numbers.
            if *name == HOST {
                summary.hosts += 1;
            } else if *name == CONTENT_LENGTH {
                summary.content_length = value.to_str().ok().and_then(|length| length.parse().ok());
            } else if [CONTENT_TYPE, AUTHORIZATION, ACCEPT, USER_AGENT].contains(name) {
            } else if *name == ORIGIN || *name == SEC_FETCH_SITE {
                summary.has_browser_headers = true;
            } else if *name == REQUEST_ID {
                summary.has_request_id = true;
            } else if *name == TRACE_PARENT {
                summary.trace_parents += 1;
                let parent = TraceParent::parse(value).filter(|parent| parent.is_sampled());
                summary.recorded_trace = parent.map(|parent| parent.trace);
            } else if is_withheld_upstream(name) {
                summary.has_withheld = true;
                summary.idempotency_keys += usize::from(*name == IDEMPOTENCY_KEY);
                if *name == CONNECTION {
                    summary.connection_names += value.as_bytes().split(|byte| *byte == b',').count();
                }
            }
        }
        summary
    }

    /// Returns the trace of the request, if it is recorded.
    pub(super) fn recorded_trace(&self) -> Option<TraceId> {
        if self.trace_parents == 1 { self.recorded_trace } else { None }
    }
}

/// Returns whether a response header is not forwarded: it is about the connection, is meant for the endpoint's own
/// host, or marks the gateway's own responses.
fn is_withheld_downstream(name: &HeaderName) -> bool {
    is_hop_by_hop(name)
        || *name == ERROR_HEADER
        || matches!(name.as_str(), "set-cookie" | "strict-transport-security" | "alt-svc" | "signalr-gateway-replayed")
}

/// Returns whether a response header need not be read at all. `Connection` is read because it may name others.
pub(super) fn is_unwanted(name: &HeaderName) -> bool {
    *name != CONNECTION && is_withheld_downstream(name)
}

/// Returns the headers that `Connection` names, except those that the gateway relies on.
pub(super) fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named = values.flat_map(|value| value.split(',')).map(str::trim);
    // The usual values are not header names, or are never forwarded.
    let named = named.filter(|name| !["keep-alive", "close"].iter().any(|usual| usual.eq_ignore_ascii_case(name)));
    let named = named.filter_map(|name| name.parse().ok());
    named.filter(|name| ![HOST, CONTENT_LENGTH, CONTENT_TYPE, REQUEST_ID].contains(name)).collect()
}

/// Prepares an endpoint's headers for the caller. Links to the endpoint are rewritten to the origin by which the
/// caller reached the gateway. `gateway_origin` returns it and is called only if there is such a link.
pub fn to_downstream(
    headers: &mut HeaderMap,
    request_id: &HeaderValue,
    endpoint: &str,
    gateway_origin: impl FnOnce() -> Option<String>,
) {
    // For most responses this pass finds nothing: no hashing, no allocation.
    let mut withheld = Vec::new();
    let mut has_link = false;
    for name in headers.keys() {
        if is_withheld_downstream(name) {
            withheld.push(name.clone());
        }
        has_link |= LINKS.contains(name);
    }
    if withheld.contains(&CONNECTION) {
        withheld.extend(named_by_connection(headers));
    }
    for name in withheld {
        headers.remove(name);
    }
    headers.insert(REQUEST_ID, request_id.clone());
    if has_link {
        rewrite_links(headers, endpoint, gateway_origin);
    }
}

/// The headers whose value is a link.
const LINKS: [HeaderName; 2] = [LOCATION, CONTENT_LOCATION];

#[cold]
fn rewrite_links(headers: &mut HeaderMap, endpoint: &str, gateway_origin: impl FnOnce() -> Option<String>) {
    let Some(gateway_origin) = gateway_origin() else { return };
    for name in LINKS {
        if let Some(link) = headers.get_mut(name)
            && let Some(path) = link.to_str().ok().and_then(|link| path_at(endpoint, link))
            && let Ok(rewritten) = HeaderValue::try_from(format!("{gateway_origin}{path}"))
        {
            *link = rewritten;
        }
    }
}

/// Returns what follows the host in a link to the endpoint, in any form that URLs allow.
///
/// Source: RFC 3986 sections 3 and 6.2.
fn path_at<'a>(endpoint: &str, link: &'a str) -> Option<&'a str> {
    let (scheme, host) = endpoint.split_once("://")?;
    let (link_scheme, rest) = match link.strip_prefix("//") {
        Some(rest) => (scheme, rest),
        None => link.split_once("://")?,
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let authority = authority.rsplit_once('@').map_or(authority, |(_user, authority)| authority);
    let default_port = if scheme.eq_ignore_ascii_case("https") { ":443" } else { ":80" };
    let authority = authority.strip_suffix(default_port).or(authority.strip_suffix(':')).unwrap_or(authority);
    let is_endpoint = link_scheme.eq_ignore_ascii_case(scheme) && authority.eq_ignore_ascii_case(host);
    is_endpoint.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn responses_lose_headers_of_the_endpoints_host_and_keep_error_codes() {
        let mut headers = headers(&[
            ("x-ms-error-code", "Warning.Connection.NotExisted"),
            ("www-authenticate", "Bearer error=\"invalid_token\""),
            ("set-cookie", "a=b"),
            ("strict-transport-security", "max-age=1"),
            ("signalr-gateway-error", "spoofed"),
            ("connection", "close"),
            ("location", "https://east.example:8443/api/next?x=1"),
        ]);
        let gateway = || Some(String::from("http://gw:8080"));
        to_downstream(&mut headers, &HeaderValue::from_static("id"), "https://east.example:8443", gateway);
        assert_eq!(headers.get("location").unwrap(), "http://gw:8080/api/next?x=1");
        assert_eq!(headers.len(), 4, "{headers:?}");
        assert!(headers.contains_key("x-ms-error-code") && headers.contains_key("www-authenticate"));
    }

    #[test]
    fn links_to_the_endpoint_are_rewritten_in_every_form_and_other_links_stay() {
        for (endpoint, location, expected) in [
            ("https://east.example", "https://east.example/x?y#z", "http://gw/x?y#z"),
            ("https://east.example", "https://east.example", "http://gw"),
            ("https://east.example", "HTTPS://East.Example/X", "http://gw/X"),
            ("https://east.example", "https://east.example:443/x", "http://gw/x"),
            ("https://east.example", "https://east.example:/x", "http://gw/x"),
            ("https://east.example", "//east.example/x", "http://gw/x"),
            ("https://east.example", "https://user@east.example?x", "http://gw?x"),
            ("https://east.example:8443", "https://east.example:8443/x", "http://gw/x"),
            ("http://127.0.0.1", "http://127.0.0.1:80/x", "http://gw/x"),
            ("https://east.example", "https://east.example.evil/x", "https://east.example.evil/x"),
            ("https://east.example", "https://east.example@evil/x", "https://east.example@evil/x"),
            ("https://east.example", "http://east.example/x", "http://east.example/x"),
            ("https://east.example", "https://east.example:8443/x", "https://east.example:8443/x"),
            ("https://east.example", "https://other/x", "https://other/x"),
            ("https://east.example", "/relative", "/relative"),
        ] {
            for name in LINKS {
                let mut headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(location))]);
                to_downstream(&mut headers, &HeaderValue::from_static("id"), endpoint, || {
                    Some(String::from("http://gw"))
                });
                assert_eq!(headers.get(&name).unwrap(), expected, "{location}");
            }
        }
    }

    #[test]
    fn request_headers_are_summarized_in_one_pass() {
        let headers = headers(&[
            ("host", "a"),
            ("host", "b"),
            ("content-length", "12"),
            ("connection", "close, x-a"),
            ("connection", "x-b"),
        ]);
        let summary = HeaderSummary {
            size: 2 * "host: a\r\n".len()
                + "content-length: 12\r\n".len()
                + "connection: close, x-a\r\n".len()
                + "connection: x-b\r\n".len(),
            hosts: 2,
            content_length: Some(12),
            has_withheld: true,
            connection_names: 3,
            ..HeaderSummary::default()
        };
        assert_eq!(HeaderSummary::of(&headers), summary);
    }

    #[test]
    fn only_response_headers_that_are_never_forwarded_are_skipped_when_read() {
        for (name, is_skipped) in
            [("set-cookie", true), ("transfer-encoding", true), ("connection", false), ("content-type", false)]
        {
            assert_eq!(is_unwanted(&HeaderName::from_static(name)), is_skipped, "{name}");
        }
    }
}

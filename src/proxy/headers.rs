//! Header rules both ways, pure. What belongs to one connection stays on it, what authenticates the caller never
//! leaves, everything else passes untouched.

use http::HeaderValue;
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_LOCATION, CONTENT_TYPE, HOST, HeaderMap, HeaderName,
    LOCATION, ORIGIN, USER_AGENT,
};

use super::CallHead;
use super::error::ERROR_HEADER;
pub use super::request_id::REQUEST_ID;
use crate::credential::Bearer;
use crate::endpoint::EachLine;
use crate::route::ENDPOINT_HEADER;
use crate::serve::SEC_FETCH_SITE;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Whether a header is about the connection and not about the message.
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

/// Whether a request header stays here. `expect` is answered by our own server; which endpoint a caller named, and by which key
/// it may repeat a call, is between the two of us. What names another method or path would have the endpoint do something
/// other than what was allowed here, if anything on the way honours it.
fn stays_here(name: &HeaderName) -> bool {
    is_hop_by_hop(name)
        || *name == ENDPOINT_HEADER
        || matches!(
            name.as_str(),
            "cookie"
                | "expect"
                | "idempotency-key"
                | "x-http-method"
                | "x-http-method-override"
                | "x-method-override"
                | "x-original-url"
                | "x-rewrite-url"
        )
}

/// The most headers that `Connection` may name. Every one is compared with every header; nobody names more than a few.
pub(super) const MAX_CONNECTION_NAMES: usize = 32;

/// What one look at a request's headers tells. Each further look, and each search for a name, would cost about as much
/// as this.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// The size of the header lines as they stood on the wire, in bytes.
    pub size: usize,
    /// How many `Host` there are.
    pub hosts: usize,
    /// Whether there is an `Origin` or a `Sec-Fetch-Site`.
    pub is_by_browser: bool,
    /// Whether there is an `X-Request-Id`.
    pub has_request_id: bool,
    /// The length of the body that is declared, in bytes.
    pub content_length: Option<u64>,
    /// Whether any of them stays here.
    pub(super) has_staying: bool,
    /// How many headers `Connection` names.
    pub(super) connection_names: usize,
}

impl Glance {
    /// Looks at headers.
    pub fn at(headers: &HeaderMap) -> Self {
        let mut glance = Self::default();
        for (name, value) in headers {
            // `name: value\r\n`
            glance.size += name.as_str().len() + value.len() + 4;
            // What nearly every request has comes first; names of the standard are compared as numbers.
            if *name == HOST {
                glance.hosts += 1;
            } else if *name == CONTENT_LENGTH {
                glance.content_length = value.to_str().ok().and_then(|length| length.parse().ok());
            } else if [CONTENT_TYPE, AUTHORIZATION, ACCEPT, USER_AGENT].contains(name) {
            } else if *name == ORIGIN || *name == SEC_FETCH_SITE {
                glance.is_by_browser = true;
            } else if *name == REQUEST_ID {
                glance.has_request_id = true;
            } else if stays_here(name) {
                glance.has_staying = true;
                if *name == CONNECTION {
                    glance.connection_names += value.as_bytes().split(|byte| *byte == b',').count();
                }
            }
        }
        glance
    }
}

/// Whether an answer's header stays here: what is about the connection, what speaks for the endpoint's own host, and
/// what marks answers of the gateway.
fn is_not_for_callers(name: &HeaderName) -> bool {
    is_hop_by_hop(name)
        || *name == ERROR_HEADER
        || matches!(name.as_str(), "set-cookie" | "strict-transport-security" | "alt-svc")
}

/// Whether an answer's header need not even be read. `Connection` may name others.
pub(super) fn is_unwanted(name: &HeaderName) -> bool {
    *name != CONNECTION && is_not_for_callers(name)
}

/// What the gateway says of a request in its own name, whichever endpoint it goes to.
#[derive(Clone, Debug)]
pub struct OwnLines {
    /// Taken over from the caller, or made.
    pub request_id: HeaderValue,
    /// The caller's address, if endpoints are told.
    pub client: Option<HeaderValue>,
}

// As statics, so that they can be borrowed for as long as one likes.
static HOST_LINE: HeaderName = HOST;
static AUTHORIZATION_LINE: HeaderName = AUTHORIZATION;
static REQUEST_ID_LINE: HeaderName = REQUEST_ID;
static FORWARDED_FOR_LINE: HeaderName = FORWARDED_FOR;

/// Calls `line` with each header that goes to an endpoint: its own host and bearer, the caller's that may pass, and ours. What
/// frames the body is not among them.
pub fn to_upstream(head: &CallHead, host: &HeaderValue, bearer: &Bearer, line: &mut EachLine<'_>) {
    let CallHead { headers, glance, own, .. } = head;
    line(&HOST_LINE, host);
    line(&AUTHORIZATION_LINE, bearer.header());
    // One look is enough for most requests: nothing but these four has to be held back.
    let is_replaced = |name: &HeaderName| {
        *name == HOST
            || *name == AUTHORIZATION
            || *name == CONTENT_LENGTH
            || (glance.has_request_id && *name == REQUEST_ID)
    };
    if glance.has_staying {
        let named = named_by_connection(headers);
        for (name, value) in headers {
            if !(is_replaced(name) || stays_here(name) || named.contains(name)) {
                line(name, value);
            }
        }
    } else {
        for (name, value) in headers {
            if !is_replaced(name) {
                line(name, value);
            }
        }
    }
    line(&REQUEST_ID_LINE, &own.request_id);
    if let Some(client) = &own.client {
        // After those that earlier proxies wrote.
        line(&FORWARDED_FOR_LINE, client);
    }
}

/// Returns the headers that `Connection` says are about the connection. It may not name away what the gateway relies on.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let named = values.flat_map(|value| value.split(',')).map(str::trim);
    // The usual words are no headers, or stay here anyway.
    let named = named.filter(|name| !["keep-alive", "close"].iter().any(|usual| usual.eq_ignore_ascii_case(name)));
    let named = named.filter_map(|name| name.parse().ok());
    named.filter(|name| ![HOST, CONTENT_LENGTH, CONTENT_TYPE, REQUEST_ID].contains(name)).collect()
}

/// Prepares an endpoint's headers for the caller. Links that point at the endpoint are turned towards what `gateway`
/// returns: the caller's own name for us, as in its `Host`. It is asked for only when there is such a link.
pub fn to_downstream(
    headers: &mut HeaderMap,
    request_id: &HeaderValue,
    endpoint: &str,
    gateway: impl FnOnce() -> Option<String>,
) {
    // One look is enough for most answers: nothing is found, nothing is hashed and nothing is allocated.
    let mut gone = Vec::new();
    let mut has_link = false;
    for name in headers.keys() {
        if is_not_for_callers(name) {
            gone.push(name.clone());
        }
        has_link |= LINKS.contains(name);
    }
    if gone.contains(&CONNECTION) {
        gone.extend(named_by_connection(headers));
    }
    for name in gone {
        headers.remove(name);
    }
    headers.insert(REQUEST_ID, request_id.clone());
    if has_link {
        rewrite_links(headers, endpoint, gateway);
    }
}

/// The headers whose value is a link.
const LINKS: [HeaderName; 2] = [LOCATION, CONTENT_LOCATION];

#[cold]
fn rewrite_links(headers: &mut HeaderMap, endpoint: &str, gateway: impl FnOnce() -> Option<String>) {
    let Some(gateway) = gateway() else { return };
    for name in LINKS {
        if let Some(link) = headers.get_mut(name)
            && let Some(path) = link.to_str().ok().and_then(|link| path_at(endpoint, link))
            && let Ok(rewritten) = HeaderValue::try_from(format!("{gateway}{path}"))
        {
            *link = rewritten;
        }
    }
}

/// Returns what follows the host in a link that points at the endpoint, however that is written.
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
    let is_there = link_scheme.eq_ignore_ascii_case(scheme) && authority.eq_ignore_ascii_case(host);
    is_there.then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn sent(lines: &[(&'static str, &'static str)], client: Option<&'static str>) -> Vec<String> {
        let mut parts = http::Request::new(()).into_parts().0;
        parts.headers = headers(lines);
        let head = CallHead::new(parts, || HeaderValue::from_static("made"), client.map(HeaderValue::from_static));
        let (host, bearer) = (HeaderValue::from_static("east.example"), Bearer::new("token").unwrap());
        let mut sent = Vec::new();
        to_upstream(&head, &host, &bearer, &mut |name, value| {
            sent.push(format!("{name}: {}", value.to_str().unwrap()));
        });
        sent
    }

    #[test]
    fn what_authenticates_the_caller_and_what_is_hop_by_hop_never_leaves() {
        let sent = sent(
            &[
                ("host", "gateway"),
                ("authorization", "Bearer callers-own"),
                ("cookie", "session=1"),
                ("connection", "keep-alive, x-internal"),
                ("x-internal", "1"),
                ("keep-alive", "timeout=5"),
                ("proxy-authorization", "Basic abc"),
                ("te", "trailers"),
                ("transfer-encoding", "chunked"),
                ("upgrade", "h2c"),
                ("expect", "100-continue"),
                ("x-http-method-override", "DELETE"),
                ("x-http-method", "DELETE"),
                ("x-method-override", "DELETE"),
                ("x-original-url", "/api/hubs/h/:closeConnections"),
                ("x-rewrite-url", "/api/hubs/h/:closeConnections"),
                ("content-type", "application/json"),
                ("traceparent", "00-1-2-01"),
                ("asrs-user-agent", "sdk"),
                ("x-request-id", "not to be taken over"),
            ],
            None,
        );
        let expected = [
            "host: east.example",
            "authorization: Bearer token",
            "content-type: application/json",
            "traceparent: 00-1-2-01",
            "asrs-user-agent: sdk",
            "x-request-id: made",
        ];
        assert_eq!(sent, expected);
    }

    #[test]
    fn connection_cannot_name_away_what_types_the_body_and_the_host_is_ours() {
        let named = [("connection", "content-type, host, authorization"), ("content-type", "a/b"), ("host", "gateway")];
        let sent = sent(&named, None);
        let expected = ["host: east.example", "authorization: Bearer token", "content-type: a/b", "x-request-id: made"];
        assert_eq!(sent, expected);
    }

    #[test]
    fn the_callers_address_comes_after_those_of_earlier_proxies() {
        let sent = sent(&[("x-forwarded-for", "10.0.0.1"), ("content-length", "3")], Some("10.0.0.2"));
        let addresses: Vec<&String> = sent.iter().filter(|line| line.starts_with("x-forwarded-for")).collect();
        assert_eq!(addresses, ["x-forwarded-for: 10.0.0.1", "x-forwarded-for: 10.0.0.2"]);
        assert!(
            !sent.iter().any(|line| line.starts_with("content-length")),
            "it is the connection's to frame the body"
        );
    }

    #[test]
    fn answers_lose_what_speaks_for_the_endpoints_host_and_keep_error_codes() {
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
    fn links_to_the_endpoint_are_rewritten_however_they_are_written_and_others_are_left_alone() {
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
}

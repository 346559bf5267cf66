//! Header rules both ways, pure. What belongs to one connection stays on it, what authenticates the caller never
//! leaves, everything else passes untouched.

use http::HeaderValue;
use http::header::{
    ACCEPT, AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderMap, HeaderName, LOCATION, ORIGIN,
    USER_AGENT,
};

use super::error::ERROR_HEADER;
pub use super::request_id::REQUEST_ID;
use crate::credential::Bearer;
use crate::endpoint::Endpoint;
use crate::route::ENDPOINT_HEADER;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

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
/// it may repeat a call, is between the two of us.
fn stays_here(name: &HeaderName) -> bool {
    is_hop_by_hop(name) || *name == ENDPOINT_HEADER || matches!(name.as_str(), "cookie" | "expect" | "idempotency-key")
}

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
    has_staying: bool,
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
            } else {
                glance.has_staying |= stays_here(name);
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

/// Removes the headers that `stays` names, and those that `Connection` names.
fn remove(headers: &mut HeaderMap, stays: fn(&HeaderName) -> bool) {
    // One look is enough for most requests: nothing is found, nothing is hashed and nothing is allocated.
    let mut gone: Vec<HeaderName> = headers.keys().filter(|name| stays(name)).cloned().collect();
    if gone.contains(&CONNECTION) {
        let values = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
        let named = values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok());
        // A caller may not take away what the gateway relies on.
        gone.extend(named.filter(|name| ![HOST, CONTENT_LENGTH, CONTENT_TYPE, REQUEST_ID].contains(name)));
    }
    for name in gone {
        headers.remove(name);
    }
}

/// Prepares a caller's headers for going on: once per request, whichever endpoint it goes to.
pub fn strip_request(headers: &mut HeaderMap, glance: &Glance, request_id: &HeaderValue, client: Option<&HeaderValue>) {
    // Order matters: the caller's is gone before an endpoint's is set.
    headers.remove(AUTHORIZATION);
    if glance.has_staying {
        remove(headers, stays_here);
    }
    headers.insert(REQUEST_ID, request_id.clone());
    if let Some(client) = client {
        headers.append(FORWARDED_FOR, client.clone());
    }
}

/// Addresses stripped headers to an endpoint.
pub fn to_upstream(headers: &mut HeaderMap, endpoint: &Endpoint, bearer: &Bearer) {
    headers.insert(HOST, endpoint.host().clone());
    headers.insert(AUTHORIZATION, bearer.header().clone());
}

/// Prepares an endpoint's headers for the caller. Links that point at the endpoint are turned towards what `gateway`
/// returns: the caller's own name for us, as in its `Host`. It is asked for only when there is such a link.
pub fn to_downstream(
    headers: &mut HeaderMap,
    request_id: &HeaderValue,
    endpoint: &str,
    gateway: impl FnOnce() -> Option<String>,
) {
    remove(headers, is_not_for_callers);
    headers.insert(REQUEST_ID, request_id.clone());
    if let Some(location) = headers.get(LOCATION)
        && let Some(path) = location.to_str().ok().and_then(|location| location.strip_prefix(endpoint))
        && (path.is_empty() || path.starts_with(['/', '?']))
        && let Some(gateway) = gateway()
        && let Ok(rewritten) = HeaderValue::try_from(format!("{gateway}{path}"))
    {
        headers.insert(LOCATION, rewritten);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        lines.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    fn stripped(lines: &[(&'static str, &'static str)]) -> Vec<String> {
        let mut headers = headers(lines);
        let glance = Glance::at(&headers);
        strip_request(&mut headers, &glance, &HeaderValue::from_static("id"), None);
        headers.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect()
    }

    #[test]
    fn what_authenticates_the_caller_and_what_is_hop_by_hop_never_leaves() {
        let left = stripped(&[
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
            ("content-type", "application/json"),
            ("traceparent", "00-1-2-01"),
            ("asrs-user-agent", "sdk"),
        ]);
        let expected =
            ["content-type: application/json", "traceparent: 00-1-2-01", "asrs-user-agent: sdk", "x-request-id: id"];
        let mut left = left;
        let mut expected: Vec<String> = expected.iter().map(ToString::to_string).collect();
        left.sort();
        expected.sort();
        assert_eq!(left, expected);
    }

    #[test]
    fn connection_cannot_name_away_what_frames_or_types_the_body() {
        let left =
            stripped(&[("connection", "content-length, content-type, host"), ("content-length", "3"), ("host", "h")]);
        assert!(left.contains(&"content-length: 3".to_owned()) && left.contains(&"host: h".to_owned()), "{left:?}");
    }

    #[test]
    fn the_callers_address_is_appended_after_those_of_earlier_proxies() {
        let mut headers = headers(&[("x-forwarded-for", "10.0.0.1")]);
        let glance = Glance::at(&headers);
        let (id, client) = (HeaderValue::from_static("id"), HeaderValue::from_static("10.0.0.2"));
        strip_request(&mut headers, &glance, &id, Some(&client));
        let values: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
        assert_eq!(values, ["10.0.0.1", "10.0.0.2"]);
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
    fn links_to_other_hosts_are_left_alone() {
        for location in ["https://east.example.evil/x", "https://other/x", "/relative"] {
            let mut headers = HeaderMap::from_iter([(LOCATION, HeaderValue::from_static(location))]);
            let gateway = || Some(String::from("http://gw"));
            to_downstream(&mut headers, &HeaderValue::from_static("id"), "https://east.example", gateway);
            assert_eq!(headers.get(LOCATION).unwrap(), location);
        }
    }
}

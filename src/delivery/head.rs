//! The head of a call, kept while the call is in progress, and the header lines that go to an endpoint.

use std::net::IpAddr;

use http::header::{AUTHORIZATION, CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};

use super::headers::{HeaderSummary, REQUEST_ID, is_withheld_upstream, named_by_connection};
use crate::credential::Bearer;
use crate::endpoint::HeaderVisitor;
use crate::route::{RouteCaller, RouteInput};
use crate::signalr::Call;
use crate::trace::{TRACE_PARENT, TRACE_STATE};

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The longest request id that is taken over from a caller.
const MAX_REQUEST_ID: usize = 128;

// Statics, so that references to them live long enough.
static HOST_LINE: HeaderName = HOST;
static AUTHORIZATION_LINE: HeaderName = AUTHORIZATION;
static REQUEST_ID_LINE: HeaderName = REQUEST_ID;
static FORWARDED_FOR_LINE: HeaderName = FORWARDED_FOR;

/// The head of a call as the caller sent it, and what the gateway adds for every endpoint.
#[derive(Debug)]
pub struct CallHead {
    pub(super) method: Method,
    /// In origin form: path and query as the caller sent them.
    pub(super) uri: Uri,
    /// The host in the request line, if there was one: HTTP/2 has it there, and HTTP/1.1 in absolute form.
    authority: Option<Authority>,
    pub(super) headers: HeaderMap,
    summary: HeaderSummary,
    /// The caller's, or one that the gateway made.
    request_id: HeaderValue,
    /// The caller's address, if it is forwarded.
    client: Option<HeaderValue>,
}

impl CallHead {
    /// Builds the head from a parsed request. The request id is the caller's if it is valid; otherwise `make_id` makes
    /// one. `client` is the caller's address, if it is forwarded to endpoints.
    pub fn new(head: Parts, make_id: impl FnOnce() -> HeaderValue, client: Option<HeaderValue>) -> Self {
        let Parts { method, uri, headers, .. } = head;
        let summary = HeaderSummary::of(&headers);
        let request_id = if summary.has_request_id { valid_request_id(&headers) } else { None };
        let request_id = request_id.unwrap_or_else(make_id);
        // HTTP/1.1 requests nearly always come in origin form.
        let (uri, authority) = if uri.authority().is_none() {
            (uri, None)
        } else {
            let parts = uri.into_parts();
            (parts.path_and_query.map(Uri::from).unwrap_or_default(), parts.authority)
        };
        Self { method, uri, authority, headers, summary, request_id, client }
    }

    /// Returns the method.
    pub fn method(&self) -> &Method {
        &self.method
    }

    /// Returns path and query as the caller sent them.
    pub fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Returns the headers as the caller sent them.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Returns the summary of the headers.
    pub fn summary(&self) -> &HeaderSummary {
        &self.summary
    }

    /// Returns the request id.
    pub fn request_id(&self) -> &HeaderValue {
        &self.request_id
    }

    /// Returns the caller's `traceparent`, if there is one.
    pub fn trace_parent(&self) -> Option<&HeaderValue> {
        if self.summary.trace_parents == 1 { self.headers.get(TRACE_PARENT) } else { None }
    }

    /// Returns the caller's `tracestate`, if it has only one.
    pub fn trace_state(&self) -> Option<&HeaderValue> {
        let mut states = self.headers.get_all(TRACE_STATE).iter();
        states.next().filter(|_| states.next().is_none())
    }

    /// Takes the caller's `traceparent`, if there is one.
    pub(super) fn take_trace_parent(&mut self) -> Option<HeaderValue> {
        if self.summary.trace_parents == 1 { self.headers.remove(TRACE_PARENT) } else { None }
    }

    /// Returns what routes match on.
    pub fn route_input<'a>(
        &'a self,
        call: &'a Call<'a>,
        listener: usize,
        client: Option<IpAddr>,
        caller: RouteCaller<'a>,
    ) -> RouteInput<'a> {
        RouteInput {
            call,
            headers: &self.headers,
            may_have_endpoint_header: self.summary.has_withheld,
            listener,
            client,
            caller,
        }
    }

    /// Returns the approximate size of the head on the wire, in bytes: target and header lines.
    pub fn bytes(&self) -> usize {
        self.uri.path().len() + self.uri.query().map_or(0, |query| query.len() + 1) + self.summary.size
    }

    /// Returns the host that the caller asked for. The one in the request line wins (RFC 9112 section 3.2.2).
    pub fn host(&self) -> Option<&str> {
        let authority = self.authority.as_ref().map(Authority::as_str);
        authority.or_else(|| self.headers.get(HOST)?.to_str().ok())
    }

    /// Calls `line` with each header that goes to an endpoint: the endpoint's host and bearer, the caller's headers
    /// that may pass, and the gateway's own. Headers that frame the body are not among them.
    pub fn write_upstream(&self, host: &HeaderValue, bearer: &Bearer, line: &mut HeaderVisitor<'_>) {
        let Self { headers, summary, .. } = self;
        line(&HOST_LINE, host);
        line(&AUTHORIZATION_LINE, bearer.header());
        let is_replaced = |name: &HeaderName| {
            *name == HOST
                || *name == AUTHORIZATION
                || *name == CONTENT_LENGTH
                || (summary.has_request_id && *name == REQUEST_ID)
        };
        if summary.has_withheld {
            let named = named_by_connection(headers);
            for (name, value) in headers {
                if !(is_replaced(name) || is_withheld_upstream(name) || named.contains(name)) {
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
        line(&REQUEST_ID_LINE, &self.request_id);
        if let Some(client) = &self.client {
            // After those of earlier proxies.
            line(&FORWARDED_FOR_LINE, client);
        }
    }
}

/// Returns the caller's request id if it is plain ASCII and not too long.
fn valid_request_id(headers: &HeaderMap) -> Option<HeaderValue> {
    let id = headers.get(REQUEST_ID)?;
    let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
    ((1..=MAX_REQUEST_ID).contains(&id.len()) && id.as_bytes().iter().all(is_plain)).then(|| id.clone())
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
        head.write_upstream(&host, &bearer, &mut |name, value| {
            sent.push(format!("{name}: {}", value.to_str().unwrap()));
        });
        sent
    }

    #[test]
    fn callers_credentials_and_hop_by_hop_headers_are_not_forwarded() {
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
                ("x-request-id", "not a valid id"),
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
    fn connection_header_cannot_remove_headers_that_the_gateway_relies_on() {
        let named = [("connection", "content-type, host, authorization"), ("content-type", "a/b"), ("host", "gateway")];
        let sent = sent(&named, None);
        let expected = ["host: east.example", "authorization: Bearer token", "content-type: a/b", "x-request-id: made"];
        assert_eq!(sent, expected);
    }

    #[test]
    fn callers_address_follows_those_of_earlier_proxies() {
        let sent = sent(&[("x-forwarded-for", "10.0.0.1"), ("content-length", "3")], Some("10.0.0.2"));
        let addresses: Vec<&String> = sent.iter().filter(|line| line.starts_with("x-forwarded-for")).collect();
        assert_eq!(addresses, ["x-forwarded-for: 10.0.0.1", "x-forwarded-for: 10.0.0.2"]);
        assert!(!sent.iter().any(|line| line.starts_with("content-length")), "the connection frames the body");
    }

    #[test]
    fn only_plain_request_ids_of_callers_are_taken_over() {
        for (id, is_valid) in [("abc-123", true), ("", false), ("a b", false), ("a\"b", false)] {
            let headers = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_static(id))]);
            assert_eq!(valid_request_id(&headers).is_some(), is_valid, "{id:?}");
        }
        let long = HeaderMap::from_iter([(REQUEST_ID, HeaderValue::try_from("x".repeat(129)).unwrap())]);
        assert_eq!(valid_request_id(&long), None);
    }

    #[test]
    fn size_of_a_head_includes_target_and_header_lines() {
        for (target, expected) in
            [("/api/hubs/chat", "/api/hubs/chat"), ("http://gateway/api/hubs?a=b", "/api/hubs?a=b")]
        {
            let mut parts = http::Request::builder().uri(target).body(()).unwrap().into_parts().0;
            parts.headers = headers(&[("accept", "*/*")]);
            let head = CallHead::new(parts, || HeaderValue::from_static("made"), None);
            assert_eq!(head.uri(), expected);
            assert_eq!(head.bytes(), expected.len() + "accept: */*\r\n".len());
        }
    }
}

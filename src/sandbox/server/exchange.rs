//! The [`Service`] trait, with its requests and replies. A request includes its whole body. A reply has a body, has a streamed
//! body, or switches the protocol of the connection.

use std::borrow::Cow;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use http_body_util::combinators::UnsyncBoxBody;
use hyper::upgrade::OnUpgrade;
use serde_json::Value;

/// The body of a response.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// The task that serves a connection after it switches protocols.
pub(crate) type Upgrade = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The default of [`Service::write_timeout`]. Chosen: longer than clients pause in any test.
pub(crate) const DEFAULT_WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// A service that responds to the requests of one server.
pub(crate) trait Service: Send + Sync + 'static {
    /// The maximum size of a request body, in bytes. A larger body gets status 413.
    const MAX_BODY: usize;

    /// Returns how long a write may make no progress before the server resets the connection.
    fn write_timeout(&self) -> Duration {
        DEFAULT_WRITE_TIMEOUT
    }

    /// Returns the header fields that every response to a request has, even if a fault or a body limit produces it.
    fn common_headers(&self, _request: &ReceivedRequest) -> HeaderMap {
        HeaderMap::new()
    }

    /// Responds to one request.
    fn handle(&self, request: ReceivedRequest) -> impl Future<Output = Reply> + Send;
}

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    /// The method.
    pub(crate) method: Method,
    /// The path as sent, with its percent-encoding.
    pub(crate) path: String,
    /// The query as sent, without the `?`. Empty if there is none.
    pub(crate) query: String,
    /// The value of `Host`, or of `:authority` in HTTP/2.
    pub(crate) host: String,
    /// The header fields.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
    /// The pending upgrade of the connection, if the request has the header field `Upgrade`.
    pub(crate) upgrade: Option<OnUpgrade>,
}

impl ReceivedRequest {
    /// Returns the value of a header field, if it is present and consists of visible ASCII.
    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns the first value of a query parameter. Names are compared case-insensitively, because SDKs differ in case.
    pub(crate) fn query_value(&self, name: &str) -> Option<String> {
        self.query_pairs().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.into_owned())
    }

    /// Returns every value of a query parameter. Names are compared case-insensitively.
    pub(crate) fn query_values(&self, name: &str) -> Vec<String> {
        self.query_pairs()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.into_owned())
            .collect()
    }

    /// Returns the decoded names and values of the query parameters.
    pub(crate) fn query_pairs(&self) -> form_urlencoded::Parse<'_> {
        form_urlencoded::parse(self.query.as_bytes())
    }

    /// Returns the bearer token, if there is one.
    pub(crate) fn bearer(&self) -> Option<&str> {
        bearer_token(&self.headers)
    }
}

/// Returns the bearer token in `Authorization`, if there is one. The scheme is case-insensitive (RFC 9110 section 11.1).
pub(crate) fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// A reply to a request.
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: StatusCode,
    /// The header fields.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
    /// A streamed body, which replaces `body`.
    pub(crate) stream: Option<Body>,
    /// The task that serves the connection after status 101.
    pub(crate) upgrade: Option<Upgrade>,
    /// The explanation of the reply for the journal, such as `AADSTS7000215` or `sent to 3`.
    pub(crate) verdict: Cow<'static, str>,
}

impl Reply {
    /// Returns a reply without a body.
    pub(crate) fn empty(status: StatusCode) -> Self {
        Self {
            status,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            stream: None,
            upgrade: None,
            verdict: Cow::Borrowed(""),
        }
    }

    /// Returns a reply with a streamed body.
    pub(crate) fn stream(content_type: &'static str, stream: Body) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { headers, stream: Some(stream), ..Self::empty(StatusCode::OK) }
    }

    /// Returns a reply with status 101, after which `upgrade` serves the connection.
    pub(crate) fn switching_protocols(upgrade: Upgrade) -> Self {
        Self { upgrade: Some(upgrade), ..Self::empty(StatusCode::SWITCHING_PROTOCOLS) }
    }

    /// Returns a reply with a JSON body.
    pub(crate) fn json(status: StatusCode, body: &Value) -> Self {
        Self::with_content_type(status, "application/json; charset=utf-8", body.to_string())
    }

    /// Returns a reply with a text body.
    pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::with_content_type(status, "text/plain; charset=utf-8", body)
    }

    /// Returns a reply with a body of this content type.
    pub(crate) fn with_content_type(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { headers, body: body.into(), ..Self::empty(status) }
    }

    /// Adds a header field. Omits it if the value is invalid.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    /// Adds `Retry-After`, in whole seconds, if there is a duration.
    pub(crate) fn retry_after(self, after: Option<Duration>) -> Self {
        match after {
            Some(after) => self.header(RETRY_AFTER, &after.as_secs().to_string()),
            None => self,
        }
    }

    /// Adds those of the header fields that the reply does not have.
    pub(crate) fn with_default_headers(mut self, defaults: HeaderMap) -> Self {
        for (name, value) in defaults {
            if let Some(name) = name {
                self.headers.entry(name).or_insert(value);
            }
        }
        self
    }

    /// Sets the explanation for the journal.
    pub(crate) fn verdict(mut self, verdict: impl Into<Cow<'static, str>>) -> Self {
        self.verdict = verdict.into();
        self
    }
}

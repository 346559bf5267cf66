//! The requests and replies of a service. The body of a request has been read; a reply has a body, a stream, or another
//! protocol for the connection. Knows no sockets.

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

/// The task that serves a connection after it has switched protocols.
pub(crate) type Upgrade = Pin<Box<dyn Future<Output = ()> + Send>>;

/// The default of [`Service::write_time`]. Chosen: longer than any test makes a client pause.
pub(crate) const DEFAULT_WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// A service that answers the requests of one server.
pub(crate) trait Service: Send + Sync + 'static {
    /// The largest body that is read, in bytes. A larger one is answered with 413.
    const MAX_BODY: usize;

    /// Returns how long a write may make no progress before the connection is reset.
    fn write_timeout(&self) -> Duration {
        DEFAULT_WRITE_TIMEOUT
    }

    /// Returns the header fields of every response to a request, including those of faults and of rejected bodies.
    fn common_headers(&self, _request: &ReceivedRequest) -> HeaderMap {
        HeaderMap::new()
    }

    /// Answers one request.
    fn answer(&self, request: ReceivedRequest) -> impl Future<Output = Reply> + Send;
}

/// A received request.
#[derive(Clone, Debug)]
pub(crate) struct ReceivedRequest {
    /// The method.
    pub(crate) method: Method,
    /// The path as sent, with its percent-encoding.
    pub(crate) path: String,
    /// The query as sent, without the `?`, or an empty string.
    pub(crate) query: String,
    /// The value of `Host`, or of `:authority` in HTTP/2.
    pub(crate) host: String,
    /// The header fields.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
    /// The connection, if the request asks for an upgrade.
    pub(crate) upgrade: Option<OnUpgrade>,
}

impl ReceivedRequest {
    /// Returns the value of a header field, if it is present and visible ASCII.
    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Returns the first value of a query key. Keys are compared without case, because SDKs differ in it.
    pub(crate) fn query_value(&self, name: &str) -> Option<String> {
        self.query_pairs().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.into_owned())
    }

    /// Returns every value of a query key, compared without case.
    pub(crate) fn query_values(&self, name: &str) -> Vec<String> {
        self.query_pairs()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.into_owned())
            .collect()
    }

    /// Returns the decoded keys and values of the query.
    pub(crate) fn query_pairs(&self) -> form_urlencoded::Parse<'_> {
        form_urlencoded::parse(self.query.as_bytes())
    }

    /// Returns the bearer token, if there is one.
    pub(crate) fn bearer(&self) -> Option<&str> {
        bearer_token(&self.headers)
    }
}

/// Returns the bearer token in `Authorization`, if there is one. The scheme is compared without case (RFC 9110 section 11.1).
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
    /// The task for the connection after a reply with status 101.
    pub(crate) upgrade: Option<Upgrade>,
    /// The verdict in the journal, such as `AADSTS7000215` or `sent to 3`.
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

    /// Returns a reply after which the connection switches protocols.
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

    /// Adds a header field. A field with an invalid value is omitted.
    pub(crate) fn header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    /// Adds `Retry-After`, in whole seconds.
    pub(crate) fn retry_after(self, after: Option<Duration>) -> Self {
        match after {
            Some(after) => self.header(RETRY_AFTER, &after.as_secs().to_string()),
            None => self,
        }
    }

    /// Adds the header fields that the reply does not have.
    pub(crate) fn with_default_headers(mut self, defaults: HeaderMap) -> Self {
        for (name, value) in defaults {
            if let Some(name) = name {
                self.headers.entry(name).or_insert(value);
            }
        }
        self
    }

    /// Sets the verdict in the journal.
    pub(crate) fn verdict(mut self, verdict: impl Into<Cow<'static, str>>) -> Self {
        self.verdict = verdict.into();
        self
    }
}

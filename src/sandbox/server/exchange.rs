//! One request and one answer, as the sandbox's services see them: a request whose body has been read, an answer
//! whose body is whole, a stream, or another protocol on the same connection. Knows no sockets and no protocol above
//! HTTP.

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

/// The body of an answer on its way out.
pub(crate) type Body = UnsyncBoxBody<Bytes, io::Error>;

/// What goes on with a connection after its answer has switched protocols.
pub(crate) type Upgrade = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long a caller may take to accept anything of what it is sent, unless a service says otherwise. Chosen; longer than a
/// test holds its breath.
pub(crate) const WRITE_TIME: Duration = Duration::from_secs(60);

/// What answers the requests of one listener.
pub(crate) trait Service: Send + Sync + 'static {
    /// The largest body that is read, in bytes; a larger one is answered 413.
    const MAX_BODY: usize;

    /// How long a caller may take to accept anything of what it is sent; then its connection is cut.
    fn write_time(&self) -> Duration {
        WRITE_TIME
    }

    /// Header fields of every answer to a request, a fault's and that to a body which is too large among them.
    fn common_headers(&self, _request: &Received) -> HeaderMap {
        HeaderMap::new()
    }

    /// Answers one request.
    fn answer(&self, request: Received) -> impl Future<Output = Reply> + Send;
}

/// A request, with its body read.
#[derive(Clone, Debug)]
pub(crate) struct Received {
    /// The method.
    pub(crate) method: Method,
    /// The path as it was sent, percent-encoding untouched.
    pub(crate) path: String,
    /// The query as it was sent, without the `?`; empty if there was none.
    pub(crate) query: String,
    /// The host as the caller named it: `Host`, or `:authority` of HTTP/2.
    pub(crate) host: String,
    /// The header fields.
    pub(crate) headers: HeaderMap,
    /// The whole body.
    pub(crate) body: Bytes,
    /// The connection, if the caller wants to switch protocols on it and is allowed to.
    pub(crate) upgrade: Option<OnUpgrade>,
}

impl Received {
    /// A header field's value, if it is there and readable.
    pub(crate) fn header(&self, name: impl http::header::AsHeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The first value of a query key, compared without case: SDKs differ in the case they write.
    pub(crate) fn query_value(&self, name: &str) -> Option<String> {
        self.query_pairs().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.into_owned())
    }

    /// Every value of a query key, compared without case.
    pub(crate) fn query_values(&self, name: &str) -> Vec<String> {
        self.query_pairs()
            .filter(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.into_owned())
            .collect()
    }

    /// The query's keys and values, decoded.
    pub(crate) fn query_pairs(&self) -> form_urlencoded::Parse<'_> {
        form_urlencoded::parse(self.query.as_bytes())
    }

    /// The bearer token, if the request carries one.
    pub(crate) fn bearer(&self) -> Option<&str> {
        bearer_of(&self.headers)
    }
}

/// The bearer token in `Authorization`, if there is one. The scheme is compared without case (RFC 9110 section 11.1).
pub(crate) fn bearer_of(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(http::header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// An answer.
pub(crate) struct Reply {
    /// The status.
    pub(crate) status: StatusCode,
    /// The header fields.
    pub(crate) headers: HeaderMap,
    /// The body.
    pub(crate) body: Bytes,
    /// A body that is made while it is sent, in place of `body`.
    pub(crate) stream: Option<Body>,
    /// What goes on with the connection; the status is then 101.
    pub(crate) upgrade: Option<Upgrade>,
    /// What the journal says about it, such as `AADSTS7000215` or `sent to 3`.
    pub(crate) verdict: Cow<'static, str>,
}

impl Reply {
    /// An answer with no body.
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

    /// An answer whose body is made while it is sent.
    pub(crate) fn stream(content_type: &'static str, stream: Body) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { headers, stream: Some(stream), ..Self::empty(StatusCode::OK) }
    }

    /// An answer after which the connection speaks another protocol.
    pub(crate) fn switching(upgrade: Upgrade) -> Self {
        Self { upgrade: Some(upgrade), ..Self::empty(StatusCode::SWITCHING_PROTOCOLS) }
    }

    /// An answer with a JSON body.
    pub(crate) fn json(status: StatusCode, body: &Value) -> Self {
        Self::typed(status, "application/json; charset=utf-8", body.to_string())
    }

    /// An answer with a text body.
    pub(crate) fn text(status: StatusCode, body: impl Into<Bytes>) -> Self {
        Self::typed(status, "text/plain; charset=utf-8", body)
    }

    /// An answer with a body of some type.
    pub(crate) fn typed(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { headers, body: body.into(), ..Self::empty(status) }
    }

    /// Adds a header field; a value that no header can hold is left out.
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

    /// Adds the header fields that it does not have.
    pub(crate) fn with_defaults(mut self, defaults: HeaderMap) -> Self {
        for (name, value) in defaults {
            if let Some(name) = name {
                self.headers.entry(name).or_insert(value);
            }
        }
        self
    }

    /// Says what the journal is to say.
    pub(crate) fn verdict(mut self, verdict: impl Into<Cow<'static, str>>) -> Self {
        self.verdict = verdict.into();
        self
    }
}

//! The response of an endpoint, as it is remembered.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

/// The largest body that is remembered, in bytes. Responses to sends are empty; results of clients and errors are small.
const MAX_BODY: usize = 16 * 1024;
/// The longest value of a header that is remembered, in bytes.
const MAX_VALUE: usize = 256;
/// The headers that a repeat gets. Without the error code, a caller could not tell one 404 from another.
const HEADERS: [HeaderName; 3] = [CONTENT_TYPE, CONTENT_ENCODING, HeaderName::from_static("x-ms-error-code")];

/// The response of an endpoint, as it is remembered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub(super) status: StatusCode,
    pub(super) headers: Vec<(HeaderName, HeaderValue)>,
    /// `None` if it was too large.
    pub(super) body: Option<Bytes>,
}

impl Outcome {
    /// Returns what is remembered of a response. `body` is `None` if it could not be read.
    pub fn of(status: StatusCode, headers: &HeaderMap, body: Option<&Bytes>) -> Self {
        let value = |name: HeaderName| {
            let value = headers.get(&name).filter(|value| value.len() <= MAX_VALUE)?;
            Some((name, value.clone()))
        };
        let kept = HEADERS.into_iter().filter_map(value).collect();
        // Copied, since it may be a part of a larger buffer.
        let body = body.filter(|body| body.len() <= MAX_BODY).map(|body| Bytes::copy_from_slice(body));
        Self { status, headers: kept, body }
    }

    /// Returns the status.
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// Returns the response, with an empty body if the endpoint's was not remembered.
    pub fn to_response(&self) -> Response<Bytes> {
        let body = self.body.clone().unwrap_or_default();
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        if self.body.is_some() {
            headers.extend(self.headers.iter().cloned());
        }
        if let Some(body) = self.body.as_ref().filter(|body| !body.is_empty()) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        response
    }

    /// Returns whether the endpoint's body was remembered, or empty.
    pub fn is_complete(&self) -> bool {
        self.body.is_some()
    }

    /// Returns the outcome as a shared store keeps it.
    pub(super) fn to_json(&self) -> String {
        let headers: Vec<_> =
            self.headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?))).collect();
        let body = self.body.as_ref().map(|body| STANDARD.encode(body));
        json!({ "status": self.status.as_u16(), "headers": headers, "body": body }).to_string()
    }

    /// Reads what [`Outcome::to_json`] wrote.
    pub(super) fn from_json(text: &str) -> Option<Self> {
        let stored: Stored = serde_json::from_str(text).ok()?;
        let header = |(name, value): &(String, String)| Some((name.parse().ok()?, value.parse().ok()?));
        let body = stored.body.map(|body| STANDARD.decode(body)).transpose().ok()?;
        Some(Self {
            status: StatusCode::from_u16(stored.status).ok()?,
            headers: stored.headers.iter().map(header).collect::<Option<_>>()?,
            body: body.map(Bytes::from),
        })
    }

    /// Returns the approximate memory of the outcome, in bytes.
    pub(super) fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(_, value)| value.len() + 64).sum();
        headers + self.body.as_ref().map_or(0, Bytes::len)
    }
}

/// An outcome in a shared store.
#[derive(Deserialize)]
struct Stored {
    status: u16,
    headers: Vec<(String, String)>,
    body: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcome_is_the_same_after_a_shared_store() {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        for body in [None, Some(Bytes::new()), Some(Bytes::from_static(b"\x00\xff"))] {
            let outcome = Outcome::of(StatusCode::OK, &headers, body.as_ref());
            assert_eq!(Outcome::from_json(&outcome.to_json()), Some(outcome));
        }
        assert_eq!(Outcome::from_json("{}"), None);
    }

    #[test]
    fn repeat_gets_status_body_and_the_headers_that_describe_it() {
        let headers = HeaderMap::from_iter([
            (CONTENT_TYPE, HeaderValue::from_static("application/json")),
            (HeaderName::from_static("x-ms-error-code"), HeaderValue::from_static("Error.User.NotFound")),
            (HeaderName::from_static("date"), HeaderValue::from_static("today")),
        ]);
        let body = Bytes::from_static(b"{}");
        let response = Outcome::of(StatusCode::NOT_FOUND, &headers, Some(&body)).to_response();
        assert_eq!((response.status().as_u16(), response.body()), (404, &body));
        let names: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["content-type", "x-ms-error-code", "content-length"]);
    }

    #[test]
    fn large_body_is_not_remembered_and_the_outcome_says_so() {
        for (length, is_complete) in [(MAX_BODY, true), (MAX_BODY + 1, false)] {
            let body = Bytes::from(vec![b'x'; length]);
            let outcome = Outcome::of(StatusCode::OK, &HeaderMap::new(), Some(&body));
            assert_eq!(outcome.is_complete(), is_complete, "{length}");
            assert_eq!(outcome.to_response().body().len(), if is_complete { length } else { 0 });
        }
    }
}

//! The response of an endpoint, as it is remembered.

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

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

    /// Returns the approximate memory of the outcome, in bytes.
    pub(super) fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(_, value)| value.len() + 64).sum();
        headers + self.body.as_ref().map_or(0, Bytes::len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

//! Requests of a delivery to the endpoint, and what their refusals say.

use std::time::Duration;

use bytes::Bytes;
use http::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use http::{HeaderName, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;
use tokio::time::Instant;

use super::error::{DeliveryError, Stage};
use crate::endpoint::{Endpoint, UnpooledError, is_from_front_end};
use crate::redact::one_line;

/// How long each request may take.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The maximum number of characters of a response that are shown.
const MAX_DETAIL: usize = 160;

/// The header with SignalR's error code.
const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// A request to the endpoint.
pub(super) struct Call<'a> {
    pub(super) stage: Stage,
    pub(super) method: Method,
    /// The path and the query.
    pub(super) target: &'a str,
    pub(super) authorization: HeaderValue,
    /// A JSON text, or nothing.
    pub(super) body: String,
}

impl Call<'_> {
    /// Sends the request. Returns the response, whatever its status, and when the request was handed to the open connection.
    pub(super) async fn send(self, endpoint: &Endpoint) -> Result<(Response<Bytes>, Instant), DeliveryError> {
        let Self { stage, method, target, authorization, body } = self;
        let mut request = Request::builder().method(method).uri(target).header(AUTHORIZATION, authorization);
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        let request = request.body(Full::from(body));
        let request = request.map_err(|err| DeliveryError::Unusable { stage, problem: err.to_string() })?;
        endpoint.send_unpooled_timed(request, REQUEST_TIMEOUT).await.map_err(|source| match source {
            UnpooledError::Timeout(within) => DeliveryError::Late { stage, within },
            source @ (UnpooledError::Connect(_) | UnpooledError::Http(_)) => {
                DeliveryError::NoResponse { stage, source }
            }
        })
    }

    /// Sends the request. Returns the JSON object of the response.
    ///
    /// # Errors
    /// [`DeliveryError`] if the status is not 200, or if the body is not JSON.
    pub(super) async fn send_for_json(self, endpoint: &Endpoint) -> Result<Value, DeliveryError> {
        let stage = self.stage;
        let (response, _) = self.send(endpoint).await?;
        if response.status() != StatusCode::OK {
            return Err(refusal(stage, &response));
        }
        serde_json::from_slice(response.body())
            .map_err(|_invalid| DeliveryError::Unusable { stage, problem: "the response is not JSON".to_owned() })
    }
}

/// Returns the error of a request that was refused.
pub(super) fn refusal(stage: Stage, response: &Response<Bytes>) -> DeliveryError {
    let header = |name: &HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
    let content = header(&CONTENT_TYPE);
    let is_page = content.is_some_and(|content| content.starts_with("text/html"));
    let body = std::str::from_utf8(response.body()).ok().filter(|body| !is_page && !body.trim().is_empty());
    let detail = header(&ERROR_CODE).or_else(|| header(&WWW_AUTHENTICATE)).or(body);
    DeliveryError::Refused {
        stage,
        status: response.status(),
        detail: detail.map(|detail| one_line(detail).chars().take(MAX_DETAIL).collect()),
        is_from_front_end: is_from_front_end(response.headers()),
    }
}

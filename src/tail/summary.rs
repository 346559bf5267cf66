//! The summary of one request.

use bytes::Bytes;
use serde::Serialize;

/// The summary of one request, with the field names of the access log. It has no query, no body, no token, and no name of a user,
/// group or connection.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Summary<'a> {
    /// When the response ended.
    pub time: String,
    /// The id of the request.
    pub request_id: &'a str,
    /// The address of the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The configured name of the caller.
    #[serde(skip_serializing_if = "Option::is_none", rename = "caller.name")]
    pub caller: Option<&'a str>,
    /// The listener.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub listener: Option<&'a str>,
    /// The method.
    pub method: &'a str,
    /// The operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operation: Option<&'static str>,
    /// The hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hub: Option<&'a str>,
    /// The route.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub route: Option<&'a str>,
    /// The endpoint that responded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<&'a str>,
    /// The outcomes of a call to several endpoints.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub legs: Option<String>,
    /// The endpoints of a call to several.
    #[serde(skip)]
    pub leg_endpoints: Vec<&'a str>,
    /// The status of the response; 499 if the caller disconnected before it.
    pub status: u16,
    /// From the head of the request to the end of the response.
    pub duration_ms: f64,
    /// The length of the request's body.
    pub request_bytes: u64,
    /// The length of the response's body.
    pub response_bytes: u64,
    /// Whether the response ended early.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub broke_off: bool,
    /// The kind of the error, if the gateway itself responded with one.
    #[serde(skip_serializing_if = "Option::is_none", rename = "error.kind")]
    pub error_kind: Option<&'static str>,
    /// Why the request failed.
    #[serde(skip_serializing_if = "Option::is_none", rename = "error.cause")]
    pub error_cause: Option<&'a str>,
    /// Whether the request failed, by the rules of the access log.
    #[serde(skip)]
    pub has_failed: bool,
}

impl Summary<'_> {
    /// Encodes the summary as a line of JSON.
    pub(super) fn encode(&self) -> Bytes {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line.into()
    }
}

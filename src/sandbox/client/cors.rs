//! The CORS header fields of responses to clients. Azure SignalR accepts clients from pages of any origin.

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Method};

use crate::sandbox::server::exchange::ReceivedRequest;

/// Returns the header fields that let a page of any origin read a response. Clients send credentials, so the fields must
/// name the origin.
pub(crate) fn response_headers(request: &ReceivedRequest) -> HeaderMap {
    let mut fields = HeaderMap::from_iter([(VARY, HeaderValue::from_static("Origin"))]);
    let Some(origin) = request.headers.get(ORIGIN) else {
        return fields;
    };
    fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    fields.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    if request.method != Method::OPTIONS {
        return fields;
    }
    let usual = HeaderValue::from_static("authorization, content-type, x-requested-with, x-signalr-user-agent");
    let headers = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or(usual);
    fields.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers);
    fields.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    fields
}

//! Replies of the control listener.

use http::StatusCode;
use serde_json::json;

use crate::sandbox::server::exchange::Reply;

/// Returns a reply that says what is wrong with a request.
pub(super) fn error_reply(status: StatusCode, detail: &str) -> Reply {
    Reply::json(status, &json!({ "error": detail })).verdict(detail.to_owned())
}

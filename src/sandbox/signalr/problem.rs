//! The error responses of the REST API: status, `x-ms-error-code`, challenge and body.
//!
//! Source: statuses, codes and `ErrorDetail` of the data-plane swagger of 2024-12-01; the challenge as reported by users.
//! The service's bodies of 401 and 403 are not documented.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderName, StatusCode};
use serde_json::json;

use super::operation::ParseError;
use crate::sandbox::server::exchange::Reply;

/// The header field with the error code of the service.
pub(crate) const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// The path form of a call, which determines statuses and error bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathForm {
    /// `/api/v1/…`. An error body is text.
    V1,
    /// `/api/…?api-version=…`. An error body is an `ErrorDetail`.
    Current,
}

/// The reason why a request is rejected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// The request has no token.
    NoToken,
    /// The token is invalid for this reason.
    InvalidToken(String),
    /// The caller's roles do not allow this data action.
    Forbidden(&'static str),
    /// Public network access of the resource is disabled.
    PublicAccessDisabled,
    /// No resource has the host name of the request.
    UnknownHost(String),
    /// The request target is too long.
    TargetTooLong,
    /// The header is too large.
    HeaderTooLarge,
    /// The method and path match no operation.
    UnknownOperation(ParseError),
    /// A parameter or the body is invalid. Contains its name and the reason.
    InvalidArgument(&'static str, String),
    /// The operation does not support the content type of the body.
    UnsupportedMediaType(String),
    /// The connection, group or user does not exist. Contains the value of `x-ms-error-code`.
    NotFound(&'static str),
    /// No connection has the token of the request.
    ConnectionNotFound,
    /// The new claims of a connection name another user.
    UserMismatch,
    /// The client completed the invocation with this error.
    ClientError(String),
    /// The client did not complete the invocation in time.
    ClientTimeout,
    /// An internal error of the sandbox.
    Internal(String),
}

/// The codes of calls that name a connection by its token. Source: `Azure/azure-signalr` issue 2281.
const CONNECTION_NOT_FOUND: &str = "ConnectionNotFound";
const USER_MISMATCH: &str = "ConnectionUserMismatch";

impl Problem {
    /// Returns the response.
    pub(crate) fn reply(&self, form: PathForm) -> Reply {
        match self {
            Self::NoToken => {
                Reply::empty(StatusCode::UNAUTHORIZED).header(WWW_AUTHENTICATE, "Bearer").verdict("no token")
            }
            Self::InvalidToken(reason) => {
                let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{reason}\"");
                Reply::empty(StatusCode::UNAUTHORIZED).header(WWW_AUTHENTICATE, &challenge).verdict(reason.clone())
            }
            Self::Forbidden(action) => {
                let message = format!("The principal lacks the data action Microsoft.SignalRService/SignalR/{action}.");
                error_detail(form, StatusCode::FORBIDDEN, "Forbidden", &message)
            }
            Self::PublicAccessDisabled => {
                // Network rules are enforced in front of the service, with an HTML page.
                let page = "<html><head><title>403 Forbidden</title></head><body>nginx</body></html>";
                Reply::with_content_type(StatusCode::FORBIDDEN, "text/html", page)
                    .verdict("closed to the public network")
            }
            Self::UnknownHost(host) => {
                Reply::empty(StatusCode::NOT_FOUND).verdict(format!("no resource has the host {host}"))
            }
            Self::TargetTooLong => Reply::empty(StatusCode::URI_TOO_LONG).verdict("target too long"),
            Self::HeaderTooLarge => {
                Reply::empty(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE).verdict("header too large")
            }
            Self::UnknownOperation(ParseError::NotFound) => Reply::empty(StatusCode::NOT_FOUND).verdict("no such path"),
            Self::UnknownOperation(ParseError::MethodNotAllowed) => {
                Reply::empty(StatusCode::METHOD_NOT_ALLOWED).verdict("no such method")
            }
            Self::UnknownOperation(ParseError::Malformed) => {
                error_detail(form, StatusCode::BAD_REQUEST, "InvalidArgument", "The path does not decode to text.")
            }
            Self::InvalidArgument(parameter, message) => invalid_argument(form, parameter, message),
            Self::UnsupportedMediaType(message) => {
                error_detail(form, StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
            }
            Self::NotFound(code) => error_detail(form, StatusCode::NOT_FOUND, code, "It does not exist.")
                .header(ERROR_CODE, code)
                .verdict(*code),
            Self::ConnectionNotFound => {
                let message = "No connection of the hub has this token.";
                error_detail(form, StatusCode::NOT_FOUND, CONNECTION_NOT_FOUND, message)
                    .header(ERROR_CODE, CONNECTION_NOT_FOUND)
            }
            Self::UserMismatch => {
                let message = "The claims name another user than that of the connection.";
                error_detail(form, StatusCode::FORBIDDEN, USER_MISMATCH, message).header(ERROR_CODE, USER_MISMATCH)
            }
            // The service's responses to `ClientError` and `ClientTimeout` are not documented.
            Self::ClientError(message) => error_detail(form, StatusCode::BAD_REQUEST, "InvocationFailed", message),
            Self::ClientTimeout => error_detail(
                form,
                StatusCode::GATEWAY_TIMEOUT,
                "Timeout",
                "The client did not complete the invocation in time.",
            ),
            Self::Internal(message) => error_detail(form, StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message),
        }
    }
}

fn error_detail(form: PathForm, status: StatusCode, code: &str, message: &str) -> Reply {
    match form {
        PathForm::V1 => Reply::text(status, message.to_owned()),
        PathForm::Current => Reply::json(status, &json!({ "code": code, "message": message })),
    }
    .verdict(message.to_owned())
}

fn invalid_argument(form: PathForm, parameter: &str, message: &str) -> Reply {
    let status = StatusCode::BAD_REQUEST;
    let body = json!({ "code": "InvalidArgument", "message": message, "target": parameter });
    match form {
        PathForm::V1 => Reply::text(status, message.to_owned()),
        PathForm::Current => Reply::json(status, &body),
    }
    .header(ERROR_CODE, "Error.Request.Invalid")
    .verdict(message.to_owned())
}

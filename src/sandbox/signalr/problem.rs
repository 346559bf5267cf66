//! How a SignalR endpoint says no: status, `x-ms-error-code`, challenge and body of each refusal. Does not decide
//! who or what is refused.
//!
//! Source: statuses, codes and `ErrorDetail` as in the data-plane swagger of 2024-12-01; the challenge as users have
//! seen it. The service's own bodies for 401 and 403 are not documented.

use http::header::WWW_AUTHENTICATE;
use http::{HeaderName, StatusCode};
use serde_json::json;

use super::operation::NoCall;
use crate::sandbox::server::exchange::Reply;

/// The header that tells which thing a 404 is about.
pub(crate) const ERROR_CODE: HeaderName = HeaderName::from_static("x-ms-error-code");

/// Which form of the API a call is of: they differ in statuses and in the body of errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// `/api/v1/…`: errors are text.
    V1,
    /// `/api/…?api-version=…`: errors are an `ErrorDetail`.
    Current,
}

/// Why a request is not carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Problem {
    /// There is no token.
    NoToken,
    /// The token is refused, for this reason.
    TokenRefused(String),
    /// The caller's roles do not allow this data action.
    Forbidden(&'static str),
    /// The resource is closed to the public network.
    NetworkClosed,
    /// No resource has the host that the request names.
    WrongHost(String),
    /// The request target is too long.
    TargetTooLong,
    /// The header is too large.
    HeaderTooLarge,
    /// Method and path are no operation.
    NoCall(NoCall),
    /// A parameter, or the body, is not valid: its name, and what is wrong.
    Invalid(&'static str, String),
    /// The body has a content type that the operation does not take.
    MediaType(String),
    /// What the call is about does not exist: the value of `x-ms-error-code`.
    NotExisting(&'static str),
    /// The client answered a call with this error.
    ClientError(String),
    /// The client did not answer a call in time.
    ClientSilent,
    /// The sandbox itself failed.
    Internal(String),
}

impl Problem {
    /// The answer.
    pub(crate) fn reply(&self, form: Form) -> Reply {
        match self {
            Self::NoToken => {
                Reply::empty(StatusCode::UNAUTHORIZED).header(WWW_AUTHENTICATE, "Bearer").verdict("no token")
            }
            Self::TokenRefused(reason) => {
                let challenge = format!("Bearer error=\"invalid_token\", error_description=\"{reason}\"");
                Reply::empty(StatusCode::UNAUTHORIZED).header(WWW_AUTHENTICATE, &challenge).verdict(reason.clone())
            }
            Self::Forbidden(action) => {
                let message = format!("The principal lacks the data action Microsoft.SignalRService/SignalR/{action}.");
                detail(form, StatusCode::FORBIDDEN, "Forbidden", &message)
            }
            Self::NetworkClosed => {
                // An access rule answers in front of the service, with a page of its own.
                let page = "<html><head><title>403 Forbidden</title></head><body>nginx</body></html>";
                Reply::typed(StatusCode::FORBIDDEN, "text/html", page).verdict("closed to the public network")
            }
            Self::WrongHost(host) => {
                Reply::empty(StatusCode::NOT_FOUND).verdict(format!("no resource has the host {host}"))
            }
            Self::TargetTooLong => Reply::empty(StatusCode::URI_TOO_LONG).verdict("target too long"),
            Self::HeaderTooLarge => {
                Reply::empty(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE).verdict("header too large")
            }
            Self::NoCall(NoCall::NotFound) => Reply::empty(StatusCode::NOT_FOUND).verdict("no such path"),
            Self::NoCall(NoCall::MethodNotAllowed) => {
                Reply::empty(StatusCode::METHOD_NOT_ALLOWED).verdict("no such method")
            }
            Self::NoCall(NoCall::Malformed) => {
                detail(form, StatusCode::BAD_REQUEST, "InvalidArgument", "The path does not decode to text.")
            }
            Self::Invalid(parameter, message) => invalid(form, parameter, message),
            Self::MediaType(message) => {
                detail(form, StatusCode::UNSUPPORTED_MEDIA_TYPE, "UnsupportedMediaType", message)
            }
            Self::NotExisting(code) => {
                detail(form, StatusCode::NOT_FOUND, code, "It does not exist.").header(ERROR_CODE, code).verdict(*code)
            }
            // How the service reports these two is not documented.
            Self::ClientError(message) => detail(form, StatusCode::BAD_REQUEST, "InvocationFailed", message),
            Self::ClientSilent => {
                detail(form, StatusCode::GATEWAY_TIMEOUT, "Timeout", "The client did not answer in time.")
            }
            Self::Internal(message) => detail(form, StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message),
        }
    }
}

fn detail(form: Form, status: StatusCode, code: &str, message: &str) -> Reply {
    match form {
        Form::V1 => Reply::text(status, message.to_owned()),
        Form::Current => Reply::json(status, &json!({ "code": code, "message": message })),
    }
    .verdict(message.to_owned())
}

fn invalid(form: Form, parameter: &str, message: &str) -> Reply {
    let status = StatusCode::BAD_REQUEST;
    let body = json!({ "code": "InvalidArgument", "message": message, "target": parameter });
    match form {
        Form::V1 => Reply::text(status, message.to_owned()),
        Form::Current => Reply::json(status, &body),
    }
    .header(ERROR_CODE, "Error.Request.Invalid")
    .verdict(message.to_owned())
}

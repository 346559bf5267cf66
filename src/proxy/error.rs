//! Every error response of the gateway itself: its kind, its status and the text for the caller.
//!
//! A caller's text names the side that failed and what to do, and never a token, tenant, secret or upstream host. The
//! causes are for the log.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};

use crate::delivery::{DeliveryError, ERROR_HEADER, EndpointOutcome, REPLAYED_HEADER, Side};
use crate::metrics::{ErrorKind, FanOutOutcome};
use crate::redact::in_one_line;
use crate::route::{CallerRefusal, NamedEndpointError, RouteInput, Table};
use crate::runbook::Section;
use crate::serve::HeadError;
use crate::signalr::{Operation, ParseCallError};

/// Why a request was not forwarded, or its response not returned.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The request is not well-formed.
    #[error("{0}")]
    Malformed(&'static str),
    /// The body has a transfer coding that is not known.
    #[error(
        "the gateway supports no transfer coding except chunked; send the body with that one or with Content-Length"
    )]
    UnknownCoding,
    /// `Host` is not allowed.
    #[error(
        "the Host `{host}` is not one this gateway answers to; use its IP address or a configured name, or have the \
         operator add the name to `allowed_hosts` of the listener"
    )]
    HostNotAllowed {
        /// What the caller sent.
        host: String,
    },
    /// A browser page sent it.
    #[error("requests from browser pages ({header}) are not accepted; call the gateway from a service")]
    OriginNotAllowed {
        /// The header that shows it.
        header: &'static str,
    },
    /// The caller's network is not allowed.
    #[error("callers from this network are not accepted; have the operator add it to `clients` of the listener")]
    ClientNotAllowed,
    /// The operation is not allowed on this listener.
    #[error("the operation {0} is not allowed here; have the operator add it to `operations` of the listener")]
    OperationNotAllowed(Operation),
    /// The caller may not send the call.
    #[error(transparent)]
    CallerNotAllowed(#[from] CallerRefusal),
    /// The routes that the call could match are for callers with a certificate.
    #[error(
        "this call needs a client certificate, and the connection has none; connect to a listener that asks for one, with a \
         certificate of a CA that its operator trusts"
    )]
    CertificateRequired,
    /// Not a SignalR REST path.
    #[error("the path is not one of the Azure SignalR REST API, such as /api/hubs/chat/:send")]
    UnknownPath,
    /// A path of the service that app servers connect to.
    #[error(
        "app servers connect to the SignalR endpoint, not to the gateway; with the Management SDK, set \
         ServiceTransportType to Transient, which uses the REST API"
    )]
    AppServerPath,
    /// A path of the service that clients connect to.
    #[error(
        "clients connect to the SignalR endpoint, not to the gateway: with the URL of the endpoint and a token from \
         POST /api/hubs/HUB/:generateToken, or redirected there by the application's own negotiate"
    )]
    ClientPath,
    /// A segment of the path has the form of an operation that is not known.
    #[error("`{0}` is not an operation that this gateway knows; if it is a name, percent-encode its colon (%3A)")]
    UnknownOperation(Box<str>),
    /// The path does not support the method.
    #[error("this path supports only {allowed}")]
    MethodNotAllowed {
        /// The supported methods.
        allowed: &'static str,
    },
    /// No route matches the call.
    #[error("no route of the gateway matches this call; have the operator add one")]
    NoRoute,
    /// The call names no endpoint that it may be sent to.
    #[error(transparent)]
    NamedEndpoint(#[from] NamedEndpointError),
    /// A required header is missing.
    #[error("this gateway requires the header `{header}` with the value agreed with its operator")]
    HeaderRequired {
        /// Its name.
        header: HeaderName,
    },
    /// The head has too many header lines.
    #[error("the request has more than {limit} header lines, the limit of the gateway; send fewer")]
    TooManyHeaders {
        /// The maximum number of header lines.
        limit: usize,
    },
    /// A rate limit is exceeded.
    #[error(
        "the rate limit of the {scope} is exceeded; nothing was sent; try again later, or have the operator raise the limit"
    )]
    RateLimited {
        /// Whose limit it is.
        scope: RateScope,
        /// How long until the next call may pass.
        retry_after: Duration,
    },
    /// The listener is closed, or the gateway is stopping.
    #[error(
        "the gateway has closed this listener, because it is stopping or its configuration changed; nothing was sent, so \
         it is safe to try again over a new connection"
    )]
    Draining,
    /// The call was not delivered, or its response was lost.
    #[error(transparent)]
    Delivery(#[from] DeliveryError),
}

/// What a rate limit applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RateScope {
    /// The caller that the certificate identifies.
    Caller,
    /// The network of the caller.
    Network,
    /// The route of the call.
    Route,
}

impl fmt::Display for RateScope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Caller => "caller",
            Self::Network => "caller's network",
            Self::Route => "route",
        })
    }
}

impl ProxyError {
    /// An internal error of the gateway.
    pub const INTERNAL: Self = Self::Delivery(DeliveryError::Internal);

    /// Returns the error of a call that no route matches.
    #[cold]
    pub fn no_route(routes: &Table, input: &RouteInput<'_>) -> Self {
        if routes.needs_certificate(input) { Self::CertificateRequired } else { Self::NoRoute }
    }

    /// Returns the error of a head that the server rejected before it was parsed. `limit` is the maximum size of
    /// a head, in bytes.
    #[cold]
    pub(super) fn rejected_head(error: HeadError, limit: usize) -> Self {
        match error {
            HeadError::Malformed(why) => Self::Malformed(why),
            HeadError::UnknownCoding => Self::UnknownCoding,
            HeadError::TooManyFields { limit } => Self::TooManyHeaders { limit },
            HeadError::TooLarge { size } => DeliveryError::HeadersTooLarge { size, limit }.into(),
        }
    }

    /// Returns the kind: metric label and value of the error header.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Malformed(_) | Self::UnknownCoding => ErrorKind::Malformed,
            Self::HostNotAllowed { .. } => ErrorKind::HostNotAllowed,
            Self::OriginNotAllowed { .. } => ErrorKind::OriginNotAllowed,
            Self::ClientNotAllowed => ErrorKind::ClientNotAllowed,
            Self::OperationNotAllowed(_) => ErrorKind::OperationNotAllowed,
            Self::CallerNotAllowed(_) | Self::NamedEndpoint(NamedEndpointError::OutOfReach) => {
                ErrorKind::CallerNotAllowed
            }
            Self::CertificateRequired => ErrorKind::CertificateRequired,
            Self::UnknownPath | Self::AppServerPath | Self::ClientPath | Self::UnknownOperation(_) => {
                ErrorKind::UnknownPath
            }
            Self::MethodNotAllowed { .. } => ErrorKind::MethodNotAllowed,
            Self::NoRoute => ErrorKind::NoRoute,
            Self::NamedEndpoint(NamedEndpointError::NotAllowed | NamedEndpointError::Unknown { .. }) => {
                ErrorKind::NoEndpoint
            }
            Self::NamedEndpoint(NamedEndpointError::Disabled) => ErrorKind::EndpointDisabled,
            Self::HeaderRequired { .. } | Self::NamedEndpoint(NamedEndpointError::HeaderMissing { .. }) => {
                ErrorKind::HeaderRequired
            }
            Self::TooManyHeaders { .. } => ErrorKind::HeadersTooLarge,
            Self::RateLimited { .. } => ErrorKind::RateLimited,
            Self::Draining => ErrorKind::Draining,
            Self::Delivery(err) => err.kind(),
        }
    }

    /// Returns the side that is at fault.
    pub(super) fn side(&self) -> Side {
        match self {
            Self::Delivery(err) => err.side(),
            Self::Draining | Self::NamedEndpoint(NamedEndpointError::Disabled) => Side::Gateway,
            Self::Malformed(_)
            | Self::UnknownCoding
            | Self::HostNotAllowed { .. }
            | Self::OriginNotAllowed { .. }
            | Self::ClientNotAllowed
            | Self::OperationNotAllowed(_)
            | Self::CallerNotAllowed(_)
            | Self::CertificateRequired
            | Self::UnknownPath
            | Self::AppServerPath
            | Self::ClientPath
            | Self::UnknownOperation(_)
            | Self::MethodNotAllowed { .. }
            | Self::NoRoute
            | Self::NamedEndpoint(_)
            | Self::HeaderRequired { .. }
            | Self::TooManyHeaders { .. }
            | Self::RateLimited { .. } => Side::Caller,
        }
    }

    /// Returns the cause for the log. It contains nothing that only the caller has named, such as a user.
    #[cold]
    pub(super) fn log_cause(&self) -> String {
        match self {
            Self::Delivery(
                DeliveryError::PartialDelivery { endpoints, .. } | DeliveryError::SeveralOwners { endpoints },
            ) => {
                let is_named = |one: &&EndpointOutcome| {
                    (one.outcome == FanOutOutcome::Accepted.label()) == (self.kind() == ErrorKind::SeveralOwners)
                };
                let named = endpoints.iter().filter(is_named).map(|one| format!("{} ({})", one.endpoint, one.outcome));
                let named = named.collect::<Vec<_>>().join(", ");
                if self.kind() == ErrorKind::SeveralOwners {
                    format!("several endpoints have the connection: {named}")
                } else {
                    format!("not every endpoint accepted the call: {named}")
                }
            }
            Self::HostNotAllowed { host } => format!("{}: `{host}`", self.title()),
            Self::UnknownOperation(_) | Self::NamedEndpoint(_) | Self::CallerNotAllowed(_) => self.title().to_owned(),
            Self::Malformed(_)
            | Self::UnknownCoding
            | Self::OriginNotAllowed { .. }
            | Self::ClientNotAllowed
            | Self::OperationNotAllowed(_)
            | Self::CertificateRequired
            | Self::UnknownPath
            | Self::AppServerPath
            | Self::ClientPath
            | Self::MethodNotAllowed { .. }
            | Self::NoRoute
            | Self::HeaderRequired { .. }
            | Self::TooManyHeaders { .. }
            | Self::RateLimited { .. }
            | Self::Draining
            | Self::Delivery(_) => std::error::Error::source(self).map_or_else(|| self.to_string(), in_one_line),
        }
    }

    /// Returns the status. 503 means that nothing was sent upstream, or that no endpoint processed what was.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::HostNotAllowed { .. }
            | Self::OriginNotAllowed { .. }
            | Self::ClientNotAllowed
            | Self::OperationNotAllowed(_)
            | Self::CallerNotAllowed(_)
            | Self::CertificateRequired
            | Self::NamedEndpoint(NamedEndpointError::OutOfReach) => StatusCode::FORBIDDEN,
            Self::UnknownPath
            | Self::AppServerPath
            | Self::ClientPath
            | Self::UnknownOperation(_)
            | Self::NoRoute
            | Self::NamedEndpoint(NamedEndpointError::NotAllowed | NamedEndpointError::Unknown { .. }) => {
                StatusCode::NOT_FOUND
            }
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::HeaderRequired { .. } | Self::NamedEndpoint(NamedEndpointError::HeaderMissing { .. }) => {
                StatusCode::PRECONDITION_FAILED
            }
            Self::TooManyHeaders { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Draining | Self::NamedEndpoint(NamedEndpointError::Disabled) => StatusCode::SERVICE_UNAVAILABLE,
            Self::Delivery(err) => err.status(),
        }
    }

    fn title(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "Malformed request",
            Self::UnknownCoding => "Unknown transfer coding",
            Self::HostNotAllowed { .. } => "Host not allowed",
            Self::OriginNotAllowed { .. } => "Origin not allowed",
            Self::ClientNotAllowed => "Client not allowed",
            Self::OperationNotAllowed(_) => "Operation not allowed",
            Self::CallerNotAllowed(_) | Self::NamedEndpoint(NamedEndpointError::OutOfReach) => "Caller not allowed",
            Self::CertificateRequired => "Certificate required",
            Self::UnknownPath | Self::AppServerPath | Self::ClientPath => "Not a SignalR REST path",
            Self::UnknownOperation(_) => "Unknown operation",
            Self::MethodNotAllowed { .. } => "Method not allowed",
            Self::NoRoute => "No route",
            Self::HeaderRequired { .. } | Self::NamedEndpoint(NamedEndpointError::HeaderMissing { .. }) => {
                "Required header missing"
            }
            Self::NamedEndpoint(NamedEndpointError::Disabled) => "Endpoint disabled",
            Self::NamedEndpoint(_) => "No such endpoint",
            Self::TooManyHeaders { .. } => "Headers too large",
            Self::RateLimited { .. } => "Too many calls",
            Self::Draining => "Listener closed",
            Self::Delivery(err) => err.title(),
        }
    }

    /// Returns when the caller may try again, where that is known.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } => Some(*retry_after),
            Self::Draining => Some(Duration::from_secs(1)),
            Self::Delivery(err) => err.retry_after(),
            Self::Malformed(_)
            | Self::UnknownCoding
            | Self::HostNotAllowed { .. }
            | Self::OriginNotAllowed { .. }
            | Self::ClientNotAllowed
            | Self::OperationNotAllowed(_)
            | Self::CallerNotAllowed(_)
            | Self::CertificateRequired
            | Self::UnknownPath
            | Self::AppServerPath
            | Self::ClientPath
            | Self::UnknownOperation(_)
            | Self::MethodNotAllowed { .. }
            | Self::NoRoute
            | Self::NamedEndpoint(_)
            | Self::HeaderRequired { .. }
            | Self::TooManyHeaders { .. } => None,
        }
    }

    /// Returns what the error's text leaves out because it depends on the caller's headers.
    #[cold]
    pub(super) fn note(&self, headers: &HeaderMap) -> Option<&'static str> {
        // Source: `BinaryPayloadMessageContent.cs` of the Management SDK.
        let has_several_protocols =
            || headers.get(CONTENT_TYPE).is_some_and(|content_type| content_type == "application/octet-stream");
        let is_too_large = matches!(self, Self::Delivery(DeliveryError::BodyTooLarge { .. }));
        (is_too_large && has_several_protocols()).then_some(
            "this body has the message once for each hub protocol (JSON and MessagePack), and they are counted together",
        )
    }

    /// Returns the response: `application/problem+json` (RFC 9457), whose `type` is a section of the
    /// runbook, with the headers that mark it as the gateway's own.
    pub(super) fn to_response(&self, request_id: &HeaderValue, note: Option<&str>) -> Response<Bytes> {
        let status = self.status();
        let mut problem = serde_json::json!({
            "type": Section::Error(self.kind()).to_string(),
            "title": self.title(),
            "status": status.as_u16(),
            "detail": note.map_or_else(|| self.to_string(), |note| format!("{self}; {note}")),
            "request_id": request_id.to_str().unwrap_or_default(),
        });
        let is_replay = matches!(self, Self::Delivery(DeliveryError::PartialDelivery { is_replay: true, .. }));
        if let Self::Delivery(
            DeliveryError::PartialDelivery { endpoints, .. } | DeliveryError::SeveralOwners { endpoints },
        ) = self
            && let Some(problem) = problem.as_object_mut()
        {
            let outcome = |one: &EndpointOutcome| serde_json::json!({ "endpoint": one.endpoint, "outcome": one.outcome, "status": one.status });
            problem.insert("endpoints".to_owned(), endpoints.iter().map(outcome).collect());
        }
        let mut response = Response::new(Bytes::from(problem.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(ERROR_HEADER, HeaderValue::from_static(self.kind().label()));
        if is_replay {
            headers.insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
        }
        if let Self::MethodNotAllowed { allowed } = self {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        if let Some(after) = self.retry_after() {
            // Rounded up: a caller that came a moment too early would have to wait again.
            let seconds = if after.subsec_nanos() == 0 { after.as_secs() } else { after.as_secs() + 1 };
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

impl From<ParseCallError> for ProxyError {
    fn from(err: ParseCallError) -> Self {
        match err {
            ParseCallError::UnknownPath => Self::UnknownPath,
            ParseCallError::AppServerPath => Self::AppServerPath,
            ParseCallError::ClientPath => Self::ClientPath,
            ParseCallError::UnknownOperation { segment } => Self::UnknownOperation(segment),
            ParseCallError::WrongMethod { allowed } => Self::MethodNotAllowed { allowed },
            ParseCallError::Malformed(what) => Self::Malformed(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_that_is_not_allowed_is_in_the_cause_for_the_log() {
        let err = ProxyError::HostNotAllowed { host: "evil.example".to_owned() };
        assert_eq!(err.log_cause(), "Host not allowed: `evil.example`");
    }

    #[test]
    fn calls_at_a_closed_listener_may_be_sent_again_at_once() {
        let response = ProxyError::Draining.to_response(&HeaderValue::from_static("id"), None);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[RETRY_AFTER], "1");
        assert_eq!(response.headers()[ERROR_HEADER], "draining");
        let problem: serde_json::Value = serde_json::from_slice(response.body()).unwrap();
        assert!(problem["detail"].as_str().unwrap().contains("nothing was sent"), "{problem}");
        assert!(problem["type"].as_str().unwrap().ends_with("/runbook-errors.md#error-draining"), "{problem}");
    }
}

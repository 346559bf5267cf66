//! Every error the gateway answers itself: its kind, its status and what the caller is told.
//!
//! What a caller is told names the side that failed and what to do, and never a token, tenant, secret or upstream
//! host. The causes are for the log.

use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderName, HeaderValue, Response, StatusCode};

use super::fanout::EndpointOutcome;
use crate::credential::{Actor, TokenUnavailable};
use crate::endpoint::BrokenOff;
use crate::metrics::ErrorKind;
use crate::route::EndpointNotSelectable;
use crate::serve::Refusal;
use crate::signalr::{Operation, ParseCallError};

/// Marks an answer as the gateway's own; the value is the error's kind.
pub const ERROR_HEADER: HeaderName = HeaderName::from_static("signalr-gateway-error");

/// Why a request was not forwarded, or its answer not returned.
#[derive(Debug, thiserror::Error)]
pub enum ProxyError {
    /// The request is not well-formed.
    #[error("{0}")]
    Malformed(&'static str),
    /// The body has a transfer coding that is not known.
    #[error("the body has a transfer coding other than chunked, which the gateway does not take; send it without")]
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
    #[error("requests of browser pages ({header}) are not accepted; call the gateway from a service")]
    OriginNotAllowed {
        /// The header that gave it away.
        header: &'static str,
    },
    /// The caller's network is not allowed.
    #[error("callers of this network are not accepted; have the operator add it to `clients` of the listener")]
    ClientNotAllowed,
    /// The operation is not allowed on this listener.
    #[error("the operation {0} is not allowed here; have the operator add it to `operations` of the listener")]
    OperationNotAllowed(Operation),
    /// Not a SignalR REST path.
    #[error("the path is not one of the Azure SignalR REST API, such as /api/hubs/chat/:send")]
    UnknownPath,
    /// The path does not take the method.
    #[error("this path takes {allowed}")]
    MethodNotAllowed {
        /// The methods it takes.
        allowed: &'static str,
    },
    /// No route takes the call.
    #[error("no route of the gateway takes this call; have the operator add one")]
    NoRoute,
    /// The caller named an endpoint that it may not choose.
    #[error(
        "the header `signalr-gateway-endpoint` names no endpoint that callers of this route may choose; leave it out, or \
         have the operator set `endpoint_header` on the route and name the endpoint there"
    )]
    EndpointNotSelectable,
    /// A required header is missing.
    #[error("this gateway requires the header `{header}` with the value agreed with its operator")]
    HeaderRequired {
        /// Its name.
        header: HeaderName,
    },
    /// The caller was too slow.
    #[error("the request body did not arrive in time; send it without pauses")]
    SlowRequest,
    /// The caller broke off.
    #[error("the request body broke off")]
    BodyBroken,
    /// The body is too large.
    #[error("the request body is larger than {limit} bytes, which is the most the gateway takes; send less at once")]
    BodyTooLarge {
        /// The most that would have been accepted.
        limit: u64,
    },
    /// The head is too large.
    #[error("the request's headers have {size} bytes or more; with the token that is added, {limit} are the most")]
    HeadersTooLarge {
        /// What was sent.
        size: usize,
        /// The most that would have been accepted.
        limit: usize,
    },
    /// The head has too many header lines.
    #[error("the request has more than {limit} header lines, which is the most the gateway takes")]
    TooManyHeaders {
        /// The most that would have been accepted.
        limit: usize,
    },
    /// There is no valid token.
    #[error(
        "the gateway has no valid token for the SignalR endpoint; nothing was sent. Try again later: {}. The cause is in \
         the gateway's log and on its status page",
        .0.as_ref().map_or(Actor::Nobody, |unavailable| unavailable.who_acts)
    )]
    TokenUnavailable(#[source] Option<TokenUnavailable>),
    /// No endpoint could be reached, or none took the request.
    #[error(
        "no SignalR endpoint of the route could be reached or took the call; nothing was processed, so it is safe to try again"
    )]
    EndpointUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Every endpoint of the route is out, and the route would rather fail than try.
    #[error(
        "every SignalR endpoint of the route is out of service or has asked for a pause; nothing was sent, so it is safe to \
         try again"
    )]
    AllOut {
        /// When the first of them is tried again.
        retry_after: Duration,
    },
    /// There are as many calls in work as may be.
    #[error("the gateway has as many calls in work as it may; nothing was sent, so it is safe to try again")]
    Overload {
        /// When it is worth trying again.
        retry_after: Duration,
    },
    /// This host is short of what a connection needs.
    #[error(
        "the gateway is short of file descriptors or memory; nothing was sent, so it is safe to try again. Its operator \
         finds the cause in its log"
    )]
    Shortage(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// There are more calls than the rate allows.
    #[error(
        "there are more calls of {of} than its rate allows; nothing was sent. Try again later, or have the operator raise it"
    )]
    RateLimited {
        /// Whose rate it is.
        of: &'static str,
        /// When the next call is let pass.
        retry_after: Duration,
    },
    /// The endpoint broke off.
    #[error("the SignalR endpoint broke off without an answer; the request may have been received")]
    UpstreamBroken(#[source] BrokenOff),
    /// The endpoint was reached, and sent an answer that cannot be read.
    #[error(
        "the SignalR endpoint sent an answer that cannot be read; the request was received. The cause is in the gateway's log"
    )]
    AnswerUnreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Of several endpoints, some could not be reached, and those that answered do not settle the call.
    #[error(
        "some SignalR endpoints could not be reached, and the others do not have what the call is about; try again to learn \
         whether those have it"
    )]
    SomeUnreached,
    /// The endpoint broke off in the middle of an answer that had to be read here.
    #[error("the SignalR endpoint's answer broke off or was too long")]
    AnswerBroken(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// A delivery to several endpoints did not reach all that it should have.
    #[error(
        "some SignalR endpoints accepted the call and others did not; repeating it would reach those that accepted \
         once more, unless both calls carry the same Idempotency-Key"
    )]
    PartialDelivery {
        /// What it came to at each endpoint.
        endpoints: Vec<EndpointOutcome>,
    },
    /// The deadline passed.
    #[error("the SignalR endpoint did not answer within {}; the request may have been received", humantime::format_duration(*.limit))]
    Deadline {
        /// The deadline that passed.
        limit: Duration,
    },
    /// The gateway is stopping.
    #[error("the gateway is stopping; nothing was sent, so it is safe to try again")]
    Draining,
    /// A fault of ours.
    #[error("the gateway failed to handle the request; its operator finds the cause in its log")]
    Internal,
}

impl ProxyError {
    /// Makes the error of a head that was refused before it was parsed. `limit` is the most bytes that it may have.
    #[cold]
    pub(super) fn refused(refusal: Refusal, limit: usize) -> Self {
        match refusal {
            Refusal::Malformed(why) => Self::Malformed(why),
            Refusal::UnknownCoding => Self::UnknownCoding,
            Refusal::TooManyFields { limit } => Self::TooManyHeaders { limit },
            Refusal::TooLarge { size } => Self::HeadersTooLarge { size, limit },
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
            Self::UnknownPath => ErrorKind::UnknownPath,
            Self::MethodNotAllowed { .. } => ErrorKind::MethodNotAllowed,
            Self::NoRoute | Self::EndpointNotSelectable => ErrorKind::NoRoute,
            Self::HeaderRequired { .. } => ErrorKind::HeaderRequired,
            Self::SlowRequest => ErrorKind::SlowRequest,
            Self::BodyBroken => ErrorKind::BodyBroken,
            Self::BodyTooLarge { .. } => ErrorKind::BodyTooLarge,
            Self::HeadersTooLarge { .. } | Self::TooManyHeaders { .. } => ErrorKind::HeadersTooLarge,
            Self::TokenUnavailable(_) => ErrorKind::TokenUnavailable,
            Self::EndpointUnavailable(_) | Self::AllOut { .. } => ErrorKind::EndpointUnavailable,
            Self::Overload { .. } | Self::Shortage(_) => ErrorKind::Overload,
            Self::RateLimited { .. } => ErrorKind::RateLimited,
            Self::UpstreamBroken(_) | Self::AnswerUnreadable(_) | Self::AnswerBroken(_) | Self::SomeUnreached => {
                ErrorKind::UpstreamBroken
            }
            Self::PartialDelivery { .. } => ErrorKind::PartialDelivery,
            Self::Deadline { .. } => ErrorKind::Deadline,
            Self::Draining => ErrorKind::Draining,
            Self::Internal => ErrorKind::Internal,
        }
    }

    /// Returns the status. 503 means that nothing was sent upstream, or that no endpoint processed what was.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Malformed(_) | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::HostNotAllowed { .. }
            | Self::OriginNotAllowed { .. }
            | Self::ClientNotAllowed
            | Self::OperationNotAllowed(_) => StatusCode::FORBIDDEN,
            Self::UnknownPath | Self::NoRoute | Self::EndpointNotSelectable => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Self::SlowRequest => StatusCode::REQUEST_TIMEOUT,
            Self::HeaderRequired { .. } => StatusCode::PRECONDITION_FAILED,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadersTooLarge { .. } | Self::TooManyHeaders { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UnknownCoding => StatusCode::NOT_IMPLEMENTED,
            Self::UpstreamBroken(_)
            | Self::AnswerUnreadable(_)
            | Self::AnswerBroken(_)
            | Self::SomeUnreached
            | Self::PartialDelivery { .. } => StatusCode::BAD_GATEWAY,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::TokenUnavailable(_)
            | Self::EndpointUnavailable(_)
            | Self::AllOut { .. }
            | Self::Overload { .. }
            | Self::Shortage(_)
            | Self::Draining => StatusCode::SERVICE_UNAVAILABLE,
            Self::Deadline { .. } => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
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
            Self::UnknownPath => "Not a SignalR REST path",
            Self::MethodNotAllowed { .. } => "Method not allowed",
            Self::NoRoute => "No route",
            Self::EndpointNotSelectable => "No such endpoint",
            Self::HeaderRequired { .. } => "Required header missing",
            Self::SlowRequest => "Request too slow",
            Self::BodyBroken => "Request broke off",
            Self::BodyTooLarge { .. } => "Body too large",
            Self::HeadersTooLarge { .. } | Self::TooManyHeaders { .. } => "Headers too large",
            Self::TokenUnavailable(_) => "No token for the endpoint",
            Self::EndpointUnavailable(_) => "Endpoint not reachable",
            Self::AllOut { .. } => "All endpoints out of service",
            Self::Overload { .. } => "Too many calls at once",
            Self::Shortage(_) => "Gateway short of resources",
            Self::SomeUnreached => "Some endpoints not reachable",
            Self::RateLimited { .. } => "Too many calls",
            Self::UpstreamBroken(_) | Self::AnswerBroken(_) => "Endpoint broke off",
            Self::AnswerUnreadable(_) => "Unreadable answer",
            Self::PartialDelivery { .. } => "Partial delivery",
            Self::Deadline { .. } => "Endpoint did not answer in time",
            Self::Draining => "Gateway is stopping",
            Self::Internal => "Gateway fault",
        }
    }

    /// When it is worth trying again, where that is known.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TokenUnavailable(Some(unavailable)) => Some(unavailable.retry_after),
            Self::AllOut { retry_after } | Self::Overload { retry_after } | Self::RateLimited { retry_after, .. } => {
                Some(*retry_after)
            }
            Self::TokenUnavailable(None) | Self::EndpointUnavailable(_) | Self::Shortage(_) | Self::Draining => {
                Some(Duration::from_secs(1))
            }
            Self::Malformed(_)
            | Self::UnknownCoding
            | Self::HostNotAllowed { .. }
            | Self::OriginNotAllowed { .. }
            | Self::ClientNotAllowed
            | Self::OperationNotAllowed(_)
            | Self::UnknownPath
            | Self::MethodNotAllowed { .. }
            | Self::NoRoute
            | Self::EndpointNotSelectable
            | Self::HeaderRequired { .. }
            | Self::SlowRequest
            | Self::BodyBroken
            | Self::BodyTooLarge { .. }
            | Self::HeadersTooLarge { .. }
            | Self::TooManyHeaders { .. }
            | Self::UpstreamBroken(_)
            | Self::AnswerUnreadable(_)
            | Self::AnswerBroken(_)
            | Self::SomeUnreached
            | Self::PartialDelivery { .. }
            | Self::Deadline { .. }
            | Self::Internal => None,
        }
    }

    /// Makes the answer: `application/problem+json` (RFC 9457) with the headers that mark it as the gateway's own.
    pub(super) fn to_response(&self, request_id: &HeaderValue) -> Response<Bytes> {
        let status = self.status();
        let mut problem = serde_json::json!({
            "title": self.title(),
            "status": status.as_u16(),
            "detail": self.to_string(),
            "request_id": request_id.to_str().unwrap_or_default(),
        });
        if let (Self::PartialDelivery { endpoints }, Some(problem)) = (self, problem.as_object_mut()) {
            let outcome = |one: &EndpointOutcome| serde_json::json!({ "endpoint": one.endpoint, "outcome": one.outcome, "status": one.status });
            problem.insert("endpoints".to_owned(), endpoints.iter().map(outcome).collect());
        }
        let mut response = Response::new(Bytes::from(problem.to_string()));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(ERROR_HEADER, HeaderValue::from_static(self.kind().label()));
        if let Self::MethodNotAllowed { allowed } = self {
            headers.insert(ALLOW, HeaderValue::from_static(allowed));
        }
        if let Some(after) = self.retry_after() {
            // Rounded up: a caller that comes a moment early would be told to wait once more.
            let seconds = if after.subsec_nanos() == 0 { after.as_secs() } else { after.as_secs() + 1 };
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

impl From<EndpointNotSelectable> for ProxyError {
    fn from(_: EndpointNotSelectable) -> Self {
        Self::EndpointNotSelectable
    }
}

impl From<ParseCallError> for ProxyError {
    fn from(err: ParseCallError) -> Self {
        match err {
            ParseCallError::UnknownPath => Self::UnknownPath,
            ParseCallError::WrongMethod { allowed } => Self::MethodNotAllowed { allowed },
            ParseCallError::Malformed(what) => Self::Malformed(what),
        }
    }
}

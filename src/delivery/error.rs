//! Why a planned call has no response: the error's kind, its status and the text for the caller.
//!
//! A caller's text names the side that failed and what to do, and never a token, tenant, secret or upstream host. The
//! causes are for the log.

use std::time::Duration;

use http::StatusCode;

use crate::credential::{Actor, TokenUnavailable};
use crate::endpoint::TransportError;
use crate::idempotency::{ClaimError, StoreError};
use crate::metrics::ErrorKind;

/// Why a planned call has no response.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The continuation token names an endpoint outside of the route.
    #[error("the continuation token names an endpoint that the route does not have")]
    UnknownContinuation,
    /// The idempotency key belongs to another call.
    #[error(
        "the Idempotency-Key was used for a call with another method, target, content type, body or route; nothing was sent; \
         use a new key for each call"
    )]
    KeyReused,
    /// Another call with the idempotency key is in progress.
    #[error(
        "a call with the same Idempotency-Key is still in progress; this one sent nothing; try again later to get the outcome"
    )]
    KeyInUse,
    /// The store of idempotency keys is out.
    #[error(
        "the gateway cannot reach the store of idempotency keys; nothing was sent, so it is safe to try again with the same \
         Idempotency-Key; its operator finds the cause in its log"
    )]
    StoreOut(#[source] StoreError),
    /// The outcome could not be recorded.
    #[error(
        "the SignalR endpoint has answered, and the gateway could not record the answer under the Idempotency-Key; the request \
         may have been received; repeat it with the same key to learn the outcome"
    )]
    OutcomeNotRecorded(#[source] Option<StoreError>),
    /// An earlier call with the idempotency key may have been received, and has no outcome.
    #[error(
        "an earlier call with the same Idempotency-Key may have been received by the SignalR endpoint, whose answer is not \
         known; it is not sent again under this key; use a new key if receiving it twice does no harm"
    )]
    OutcomeUnknown,
    /// The caller was too slow.
    #[error("the request body did not arrive in time; send it without pauses")]
    SlowRequest,
    /// The caller ended the body early.
    #[error("the request body ended early")]
    BodyBroken,
    /// The body is too large.
    #[error("the request body is larger than {limit} bytes, the limit of the gateway; send less at once")]
    BodyTooLarge {
        /// The largest body that is accepted, in bytes.
        limit: u64,
    },
    /// The head is too large.
    #[error(
        "the request's headers have {size} bytes or more; the limit is {limit} bytes, including the token that is added"
    )]
    HeadersTooLarge {
        /// The size of the head, in bytes.
        size: usize,
        /// The largest head that is accepted, in bytes.
        limit: usize,
    },
    /// There is no valid token.
    #[error(
        "the gateway has no valid token for the SignalR endpoint; nothing was sent, so it is safe to try again ({}); the \
         cause is in the gateway's log and on its status page",
        .0.as_ref().map_or(Actor::Gateway, |unavailable| unavailable.who_acts)
    )]
    TokenUnavailable(#[source] Option<TokenUnavailable>),
    /// No endpoint of the route processed the call.
    #[error("every SignalR endpoint of the route was unreachable or did not process the call; it is safe to try again")]
    EndpointUnavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The circuit of every endpoint of the route is open, and the route is configured to fail then.
    #[error(
        "every SignalR endpoint of the route has failed too often or asked for a pause; nothing was sent, so it is safe to try \
         again"
    )]
    CircuitsOpen {
        /// When the first of them is tried again.
        retry_after: Duration,
    },
    /// A concurrency limit is reached.
    #[error("the gateway has reached its limit of calls in progress; nothing was sent, so it is safe to try again")]
    Overload {
        /// When the caller may try again.
        retry_after: Duration,
    },
    /// The rate limit of the endpoint is exceeded.
    #[error(
        "the rate limit of the endpoint is exceeded; nothing was processed; try again later, or have the operator raise the limit"
    )]
    RateLimited {
        /// How long until the next call may pass.
        retry_after: Duration,
    },
    /// There is no memory to keep the body, or a part of it was sent and not kept.
    #[error("the gateway has no memory for the request body; nothing was processed, so it is safe to try again")]
    NoBodyMemory,
    /// This host lacks what a connection needs.
    #[error(
        "the gateway is short of file descriptors or memory; nothing was sent, so it is safe to try again; its operator \
         finds the cause in its log"
    )]
    Shortage(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The connection ended without a complete response head.
    #[error("the SignalR endpoint closed the connection without a response; the request may have been received")]
    UpstreamBroken(#[source] TransportError),
    /// The endpoint was reached, and sent a response that cannot be read.
    #[error(
        "the SignalR endpoint sent a response that cannot be read; the request was received; the cause is in the gateway's log"
    )]
    ResponseUnreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Some endpoints of a fan-out could not be reached, and the target does not exist on the others.
    #[error("some SignalR endpoints could not be reached, and the target does not exist on the others; try again")]
    SomeUnreached,
    /// Several endpoints have a target that only one may have.
    #[error(
        "several SignalR endpoints of the route have this connection, which only one may have; the call was processed by \
         each of them; have the operator check that the endpoints are different resources"
    )]
    SeveralOwners {
        /// The outcome of each leg.
        endpoints: Vec<EndpointOutcome>,
    },
    /// The body of a response that the gateway reads itself ended early or was too long.
    #[error("the SignalR endpoint's response ended early or was too long")]
    ResponseIncomplete(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// Some endpoints of a fan-out accepted the call and others did not.
    #[error(
        "some SignalR endpoints accepted the call and others did not; a retry is delivered twice to those that \
         accepted, unless both calls carry the same Idempotency-Key"
    )]
    PartialDelivery {
        /// The outcome of each leg.
        endpoints: Vec<EndpointOutcome>,
        /// Whether this is the outcome of an earlier call with the same idempotency key, and nothing was sent now.
        is_replay: bool,
    },
    /// The deadline passed.
    #[error("the SignalR endpoint did not respond within {}; the request may have been received", humantime::format_duration(*.limit))]
    Deadline {
        /// The deadline that passed.
        limit: Duration,
    },
    /// An internal error of the gateway.
    #[error("the gateway failed to handle the request; its operator finds the cause in its log")]
    Internal,
}

/// The outcome of one leg of a fan-out, for the caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointOutcome {
    /// The endpoint's configured name.
    pub endpoint: String,
    /// The leg's outcome in words.
    pub outcome: &'static str,
    /// The endpoint's status, if it responded.
    pub status: Option<u16>,
}

/// The side whose failure or limit a failed request is due to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The caller.
    Caller,
    /// The gateway or its host.
    Gateway,
    /// The credential: Entra, an identity provider, or the proof on this host.
    Credential,
    /// The endpoint, or the network to it.
    Endpoint,
    /// A client of the hub, whose reply the endpoint waited for.
    Client,
    /// The store of idempotency keys.
    Store,
}

impl Side {
    /// Returns the word for the log.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::Gateway => "gateway",
            Self::Credential => "credential",
            Self::Endpoint => "endpoint",
            Self::Client => "client",
            Self::Store => "store",
        }
    }
}

impl DeliveryError {
    /// Returns the side that is at fault.
    pub fn side(&self) -> Side {
        match self {
            Self::UnknownContinuation
            | Self::KeyReused
            | Self::KeyInUse
            | Self::SlowRequest
            | Self::BodyBroken
            | Self::BodyTooLarge { .. }
            | Self::HeadersTooLarge { .. } => Side::Caller,
            Self::StoreOut(_) | Self::OutcomeNotRecorded(_) => Side::Store,
            Self::TokenUnavailable(_) => Side::Credential,
            Self::Overload { .. }
            | Self::RateLimited { .. }
            | Self::NoBodyMemory
            | Self::Shortage(_)
            | Self::Internal => Side::Gateway,
            Self::OutcomeUnknown
            | Self::EndpointUnavailable(_)
            | Self::CircuitsOpen { .. }
            | Self::UpstreamBroken(_)
            | Self::ResponseUnreadable(_)
            | Self::SomeUnreached
            | Self::SeveralOwners { .. }
            | Self::ResponseIncomplete(_)
            | Self::PartialDelivery { .. }
            | Self::Deadline { .. } => Side::Endpoint,
        }
    }

    /// Returns the metric label.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::UnknownContinuation => ErrorKind::Malformed,
            Self::KeyReused => ErrorKind::KeyReused,
            Self::KeyInUse => ErrorKind::KeyInUse,
            Self::OutcomeUnknown | Self::OutcomeNotRecorded(_) => ErrorKind::OutcomeUnknown,
            Self::StoreOut(_) => ErrorKind::StoreUnavailable,
            Self::SlowRequest => ErrorKind::SlowRequest,
            Self::BodyBroken => ErrorKind::BodyBroken,
            Self::BodyTooLarge { .. } => ErrorKind::BodyTooLarge,
            Self::HeadersTooLarge { .. } => ErrorKind::HeadersTooLarge,
            Self::TokenUnavailable(_) => ErrorKind::TokenUnavailable,
            Self::EndpointUnavailable(_) | Self::CircuitsOpen { .. } => ErrorKind::EndpointUnavailable,
            Self::RateLimited { .. } => ErrorKind::RateLimited,
            Self::Overload { .. } | Self::NoBodyMemory | Self::Shortage(_) => ErrorKind::Overload,
            Self::UpstreamBroken(_)
            | Self::ResponseUnreadable(_)
            | Self::ResponseIncomplete(_)
            | Self::SomeUnreached => ErrorKind::UpstreamBroken,
            Self::PartialDelivery { .. } => ErrorKind::PartialDelivery,
            Self::SeveralOwners { .. } => ErrorKind::SeveralOwners,
            Self::Deadline { .. } => ErrorKind::Deadline,
            Self::Internal => ErrorKind::Internal,
        }
    }

    /// Returns the status. 503 means that nothing was sent upstream, or that no endpoint processed what was.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::UnknownContinuation | Self::BodyBroken => StatusCode::BAD_REQUEST,
            Self::KeyReused => StatusCode::UNPROCESSABLE_ENTITY,
            Self::KeyInUse => StatusCode::CONFLICT,
            Self::SlowRequest => StatusCode::REQUEST_TIMEOUT,
            Self::BodyTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::HeadersTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Self::UpstreamBroken(_)
            | Self::ResponseUnreadable(_)
            | Self::ResponseIncomplete(_)
            | Self::SomeUnreached
            | Self::SeveralOwners { .. }
            | Self::PartialDelivery { .. } => StatusCode::BAD_GATEWAY,
            Self::TokenUnavailable(_)
            | Self::EndpointUnavailable(_)
            | Self::CircuitsOpen { .. }
            | Self::Overload { .. }
            | Self::NoBodyMemory
            | Self::Shortage(_)
            | Self::StoreOut(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Deadline { .. } | Self::OutcomeUnknown | Self::OutcomeNotRecorded(_) => StatusCode::GATEWAY_TIMEOUT,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    /// Returns a short title.
    pub fn title(&self) -> &'static str {
        match self {
            Self::UnknownContinuation => "Malformed request",
            Self::KeyReused => "Idempotency-Key of another call",
            Self::KeyInUse => "Call with the same Idempotency-Key in progress",
            Self::OutcomeUnknown => "Outcome of the earlier call unknown",
            Self::OutcomeNotRecorded(_) => "Outcome not recorded",
            Self::StoreOut(_) => "Store of idempotency keys out of reach",
            Self::SlowRequest => "Request too slow",
            Self::BodyBroken => "Request body incomplete",
            Self::BodyTooLarge { .. } => "Body too large",
            Self::HeadersTooLarge { .. } => "Headers too large",
            Self::TokenUnavailable(_) => "No token for the endpoint",
            Self::EndpointUnavailable(_) => "Endpoint not reachable",
            Self::CircuitsOpen { .. } => "All circuits open",
            Self::Overload { .. } => "Too many calls at once",
            Self::RateLimited { .. } => "Too many calls",
            Self::NoBodyMemory => "No memory for the body",
            Self::Shortage(_) => "Gateway short of resources",
            Self::SomeUnreached => "Some endpoints not reachable",
            Self::UpstreamBroken(_) | Self::ResponseIncomplete(_) => "Endpoint response incomplete",
            Self::ResponseUnreadable(_) => "Unreadable response",
            Self::PartialDelivery { .. } => "Partial delivery",
            Self::SeveralOwners { .. } => "Several endpoints have the connection",
            Self::Deadline { .. } => "Endpoint did not respond in time",
            Self::Internal => "Internal gateway error",
        }
    }

    /// Returns when the caller may try again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TokenUnavailable(Some(unavailable)) => Some(unavailable.retry_after),
            Self::CircuitsOpen { retry_after } | Self::Overload { retry_after } | Self::RateLimited { retry_after } => {
                Some(*retry_after)
            }
            Self::TokenUnavailable(None)
            | Self::EndpointUnavailable(_)
            | Self::NoBodyMemory
            | Self::Shortage(_)
            | Self::StoreOut(_)
            | Self::KeyInUse => Some(Duration::from_secs(1)),
            Self::UnknownContinuation
            | Self::KeyReused
            | Self::OutcomeUnknown
            | Self::OutcomeNotRecorded(_)
            | Self::SlowRequest
            | Self::BodyBroken
            | Self::BodyTooLarge { .. }
            | Self::HeadersTooLarge { .. }
            | Self::UpstreamBroken(_)
            | Self::ResponseUnreadable(_)
            | Self::ResponseIncomplete(_)
            | Self::SomeUnreached
            | Self::SeveralOwners { .. }
            | Self::PartialDelivery { .. }
            | Self::Deadline { .. }
            | Self::Internal => None,
        }
    }
}

impl From<ClaimError> for DeliveryError {
    fn from(err: ClaimError) -> Self {
        match err {
            ClaimError::OtherCall => Self::KeyReused,
            ClaimError::InProgress => Self::KeyInUse,
            ClaimError::StoreOut(err) => Self::StoreOut(err),
            ClaimError::NotRecorded(err) => Self::OutcomeNotRecorded(err),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_read_which_side_failed_and_when_to_try_again() {
        let second = Duration::from_secs(1);
        for (err, status, title, retry_after) in [
            (DeliveryError::KeyReused, 422, "Idempotency-Key of another call", None),
            (DeliveryError::KeyInUse, 409, "Call with the same Idempotency-Key in progress", Some(second)),
            (DeliveryError::OutcomeUnknown, 504, "Outcome of the earlier call unknown", None),
            (DeliveryError::SlowRequest, 408, "Request too slow", None),
            (DeliveryError::BodyTooLarge { limit: 1 }, 413, "Body too large", None),
            (DeliveryError::HeadersTooLarge { size: 2, limit: 1 }, 431, "Headers too large", None),
            (DeliveryError::TokenUnavailable(None), 503, "No token for the endpoint", Some(second)),
            (DeliveryError::CircuitsOpen { retry_after: 3 * second }, 503, "All circuits open", Some(3 * second)),
            (DeliveryError::SomeUnreached, 502, "Some endpoints not reachable", None),
            (DeliveryError::Deadline { limit: second }, 504, "Endpoint did not respond in time", None),
            (DeliveryError::Internal, 500, "Internal gateway error", None),
        ] {
            let found = (err.status().as_u16(), err.title(), err.retry_after());
            assert_eq!(found, (status, title, retry_after), "{err:?}");
        }
    }
}

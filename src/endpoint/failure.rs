//! Why an endpoint failed a call or a probe, for the log, `/status` and the diagnosis.

use std::sync::Arc;
use std::time::SystemTime;

use http::header::{CONTENT_TYPE, SERVER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, Response, StatusCode};

use crate::egress::{EgressProxy, ProxyLayer};
use crate::metrics::{ErrorKind, UpstreamErrorReason};
use crate::redact::one_line;
use crate::runbook::{EndpointRefusal, Section};
use crate::tls::RefusedCertificate;

/// A failure of an endpoint, and when it occurred.
#[derive(Clone, Debug)]
pub struct EndpointFailure {
    /// When it was observed.
    pub at: SystemTime,
    /// What failed.
    pub cause: FailureCause,
}

/// Why a call to an endpoint, or a probe of it, failed.
#[derive(Clone, Debug)]
pub enum FailureCause {
    /// No connection, or no complete response.
    Transport {
        /// The metric label of the error.
        reason: UpstreamErrorReason,
        /// The error and its sources, in one line.
        error: String,
        /// The proxy that opened no tunnel, if that is the cause, and the layer that failed.
        proxy: Option<(Arc<EgressProxy>, ProxyLayer)>,
        /// The certificate of the server or of its proxy, if it was refused.
        certificate: Option<RefusedCertificate>,
    },
    /// A response with an error.
    Response(ErrorResponse),
}

/// A response of an endpoint with an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErrorResponse {
    /// The status.
    pub status: StatusCode,
    /// `WWW-Authenticate`, shortened.
    pub challenge: Option<String>,
    /// Whether a front end responded instead of the resource, as it does for network rules.
    pub is_from_front_end: bool,
    /// Whether the request carried a token. A health probe carries none.
    pub was_authorized: bool,
}

/// The longest `WWW-Authenticate` that is kept. Entra's are about 150 characters.
const MAX_CHALLENGE: usize = 300;

impl ErrorResponse {
    /// Makes it from a response. `was_authorized` says whether the request carried a token.
    pub fn of<B>(response: &Response<B>, was_authorized: bool) -> Self {
        let is_from_front_end = is_from_front_end(response.headers());
        let challenge = text(response.headers(), &WWW_AUTHENTICATE);
        let challenge = challenge.map(|challenge| one_line(challenge).chars().take(MAX_CHALLENGE).collect());
        Self { status: response.status(), challenge, is_from_front_end, was_authorized }
    }
}

/// Returns whether a front end responded instead of the resource. Network rules deny with its HTML page, a missing role does not.
///
/// Source: the Management SDK, which distinguishes the two by the page.
pub fn is_from_front_end(headers: &HeaderMap) -> bool {
    text(headers, &SERVER).is_some_and(|server| server.contains("nginx"))
        || text(headers, &CONTENT_TYPE).is_some_and(|content| content.starts_with("text/html"))
}

fn text<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What tells failures apart without formatting them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    /// No connection, or no complete response.
    Transport(UpstreamErrorReason),
    /// A response with this status.
    Response(StatusCode),
}

/// What a call gets of the gateway that got no response of an endpoint, and that no other endpoint of its route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GatewayAnswer {
    /// The status.
    pub status: u16,
    /// The kind of the error.
    pub kind: ErrorKind,
    /// Whether the endpoint may have processed the call.
    pub may_be_processed: bool,
}

impl GatewayAnswer {
    /// Returns the answer to a call that was not sent for this reason, or that got no complete response.
    pub const fn of(reason: UpstreamErrorReason) -> Self {
        let (status, kind, may_be_processed) = match reason {
            UpstreamErrorReason::Dns
            | UpstreamErrorReason::Connect
            | UpstreamErrorReason::Tls
            | UpstreamErrorReason::Proxy
            | UpstreamErrorReason::ConnectTimeout
            | UpstreamErrorReason::ResetBeforeSend => (503, ErrorKind::EndpointUnavailable, false),
            UpstreamErrorReason::TryTimeout | UpstreamErrorReason::RequestTimeout => (504, ErrorKind::Deadline, true),
            UpstreamErrorReason::ResetAfterSend | UpstreamErrorReason::Protocol | UpstreamErrorReason::Body => {
                (502, ErrorKind::UpstreamBroken, true)
            }
            UpstreamErrorReason::Local => (503, ErrorKind::Overload, false),
        };
        Self { status, kind, may_be_processed }
    }
}

impl FailureCause {
    /// Returns what tells it apart from other causes.
    pub fn kind(&self) -> FailureKind {
        match self {
            Self::Transport { reason, .. } => FailureKind::Transport(*reason),
            Self::Response(response) => FailureKind::Response(response.status),
        }
    }

    /// Returns the section of the runbook.
    pub fn section(&self) -> Option<Section> {
        match self {
            Self::Transport { reason, .. } => Some(Section::Endpoint(*reason)),
            Self::Response(response) => EndpointRefusal::of(response.status.as_u16()).map(Section::Refusal),
        }
    }

    /// Returns the error in one line.
    pub fn summary(&self) -> String {
        match self {
            Self::Transport { error, .. } => error.clone(),
            Self::Response(ErrorResponse { status, challenge: None, .. }) => format!("the endpoint responded {status}"),
            Self::Response(ErrorResponse { status, challenge: Some(challenge), .. }) => {
                format!("the endpoint responded {status}, {challenge}")
            }
        }
    }
}

impl FailureKind {
    /// Returns the label: that of the metric, or `response`.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Transport(reason) => reason.label(),
            Self::Response(_) => "response",
        }
    }

    /// Returns the status of the response, if there was one.
    pub fn status(self) -> Option<StatusCode> {
        match self {
            Self::Transport(_) => None,
            Self::Response(status) => Some(status),
        }
    }
}

//! Why spans could not be exported.

use std::time::Duration;

use http::{HeaderName, StatusCode};

use crate::credential::NoResponse;
use crate::files::SecretSourceError;
use crate::tls::TrustError;

/// What to do if the collector refuses spans for a reason of its own.
pub(super) const SEE_ITS_LOG: &str = "see the log of the collector";

/// Why spans could not be exported.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The CAs cannot be loaded.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// The value of a header cannot be read.
    #[error("the value of the header {name} cannot be read")]
    Header {
        /// The header.
        name: HeaderName,
        /// The cause.
        source: SecretSourceError,
    },
    /// The value of a header has characters that headers must not have.
    #[error("the value of the header {0} has control characters")]
    InvalidHeader(HeaderName),
    /// The request cannot be built.
    #[error("the request cannot be built")]
    InvalidRequest(#[from] http::Error),
    /// There was no response.
    #[error(transparent)]
    NoResponse(#[from] NoResponse),
    /// The collector refused the spans.
    #[error("the collector responded {status}")]
    Refused {
        /// Its status.
        status: StatusCode,
        /// The pause that it asks for.
        retry_after: Option<Duration>,
    },
    /// The gateway is stopping.
    #[error("the gateway is stopping")]
    Stopping,
}

impl ExportError {
    /// Returns whether the same spans may be accepted later.
    ///
    /// Source: OTLP/HTTP, "Failures".
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            Self::InvalidRequest(_) => false,
            Self::Trust(_) | Self::Header { .. } | Self::InvalidHeader(_) | Self::NoResponse(_) | Self::Stopping => {
                true
            }
        }
    }

    /// Returns the pause that the collector asks for.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::Refused { retry_after, .. } = self { *retry_after } else { None }
    }

    /// Returns what the operator can do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::Trust(_) => "correct `tracing.ca_file`",
            Self::Header { .. } | Self::InvalidHeader(_) => "correct the file or variable in `tracing.headers`",
            Self::Refused { status: StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, .. } => {
                "correct the credentials in `tracing.headers`"
            }
            Self::Refused { status: StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED, .. } => {
                "correct the port or path of `tracing.endpoint`: it must be the collector's OTLP/HTTP receiver"
            }
            Self::Refused { status: StatusCode::UNSUPPORTED_MEDIA_TYPE, .. } => {
                "use a collector that accepts OTLP/HTTP with JSON, such as the OpenTelemetry Collector"
            }
            Self::Refused { status, .. } if status.is_redirection() => {
                "set `tracing.endpoint` to the URL that the collector's address redirects to"
            }
            Self::Refused { .. } => SEE_ITS_LOG,
            Self::NoResponse(NoResponse::Certificate(refused)) => refused.remedy(),
            Self::NoResponse(NoResponse::Connect(_)) => {
                "start the collector, or correct `tracing.endpoint` (OTLP over HTTP, usually port 4318) or `tracing.ca_file`"
            }
            Self::InvalidRequest(_) | Self::NoResponse(_) | Self::Stopping => {
                "start the collector, or correct `tracing.endpoint` (OTLP over HTTP, usually port 4318)"
            }
        }
    }
}

//! Errors of requests to identity endpoints, and how the next acquisition is scheduled.
//!
//! The schedule depends on the OAuth `error` and the HTTP status. AADSTS codes only select explanations, the metric label and
//! who must act, since Microsoft changes them.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::identity_endpoint::{IdentityEndpoint, IdentityEndpointKind};
use super::remedy::remedy;
use super::schedule::ErrorClass;
use crate::egress::{EgressProxy, ProxyLayer};
use crate::metrics::TokenErrorReason;
use crate::redact::MaskedError;
use crate::tls::RefusedCertificate;

/// `AADSTS90055`: the tenant has too many requests.
const TENANT_THROTTLED: u32 = 90_055;

/// Why there is no complete response of an identity endpoint.
#[derive(Debug, thiserror::Error)]
pub enum NoResponse {
    /// The request timed out.
    #[error("no response within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// Name resolution, connection or TLS failed.
    #[error("the connection failed")]
    Connect(#[source] MaskedError),
    /// The certificate of the endpoint is refused. Nothing was sent to it.
    #[error("the TLS handshake failed")]
    Certificate(#[source] RefusedCertificate),
    /// The proxy opened no tunnel. Nothing was sent to the endpoint.
    #[error("no connection through the proxy {proxy}")]
    Proxy {
        /// The proxy.
        proxy: Arc<EgressProxy>,
        /// The layer that failed.
        layer: ProxyLayer,
        /// The certificate of the proxy itself, if it is refused.
        certificate: Option<RefusedCertificate>,
        /// The cause.
        source: MaskedError,
    },
    /// The connection closed before the response was complete, or the response is not HTTP.
    #[error("the connection closed before the response was complete, or the response is not HTTP")]
    Interrupted(#[source] MaskedError),
    /// The response is larger than any token response.
    #[error("the response is larger than {0} bytes")]
    TooLarge(usize),
    /// The request is not valid HTTP.
    #[error("the request cannot be sent: {0}")]
    InvalidRequest(&'static str),
}

/// The error of a response without a usable token.
#[derive(Clone, Debug)]
pub struct ResponseError {
    /// The endpoint.
    pub endpoint: IdentityEndpoint,
    /// The HTTP status.
    pub status: StatusCode,
    /// What is wrong with the token, if the status is a success.
    pub unusable: Option<UnusableResponse>,
    /// OAuth `error`, such as `invalid_client`, with possible secrets masked.
    pub error: Option<String>,
    /// AADSTS codes, the most specific first.
    pub codes: Vec<u32>,
    /// The description, with possible secrets masked.
    pub description: Option<String>,
    /// Entra's `correlation_id`.
    pub correlation_id: Option<String>,
    /// Entra's `trace_id`.
    pub trace_id: Option<String>,
    /// `Retry-After` of the response.
    pub retry_after: Option<Duration>,
    /// `Date` of the response.
    pub date: Option<SystemTime>,
    /// Whether the request carried a token of another identity.
    pub federated: bool,
}

/// Why a response with a success status holds no usable token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableResponse {
    /// Not a JSON object.
    #[error("the body is not a JSON object")]
    NotJson,
    /// No `access_token`, or an empty one.
    #[error("it holds no access token")]
    NoToken,
    /// The token is not allowed in a header.
    #[error("its access token has characters that a bearer token cannot have")]
    NotAToken,
    /// The lifetime is out of range.
    #[error("its token lifetime is {0} seconds")]
    Lifetime(i64),
    /// It has neither `expires_in` nor `expires_on`, and the token is not a JWT with `exp`.
    #[error("it has no token lifetime: neither `expires_in` nor `expires_on`")]
    NoLifetime,
    /// A field with the lifetime has an unknown format.
    #[error("its `{0}` is neither a number of seconds nor a date")]
    InvalidLifetime(&'static str),
    /// The field with the assertion is missing.
    #[error("it has no `{0}`")]
    NoAssertion(&'static str),
    /// The assertion is an opaque token.
    #[error("its token is not a JWT, and Entra accepts no other assertion")]
    NotAnAssertion,
    /// It lacks the header that Google's metadata server sets.
    #[error("it lacks `Metadata-Flavor: Google`: the response is not from the metadata server")]
    NotGoogle,
}

/// Whom Entra throttles.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ThrottledParty {
    /// The tenant.
    Tenant,
    /// The tenant or the app: the response does not say which.
    Unknown,
}

impl NoResponse {
    /// Returns the class. A password that the proxy does not accept is not tried again soon: many wrong tries lock an account.
    pub(super) fn class(&self) -> ErrorClass {
        match self {
            Self::Proxy { layer, .. } if layer.is_permanent() => ErrorClass::Permanent,
            Self::Proxy { .. }
            | Self::Timeout(_)
            | Self::Connect(_)
            | Self::Certificate(_)
            | Self::Interrupted(_)
            | Self::TooLarge(_)
            | Self::InvalidRequest(_) => ErrorClass::Transient,
        }
    }

    pub(super) fn reason(&self) -> TokenErrorReason {
        match self {
            Self::Proxy { .. } => TokenErrorReason::Proxy,
            Self::Timeout(_)
            | Self::Connect(_)
            | Self::Certificate(_)
            | Self::Interrupted(_)
            | Self::TooLarge(_)
            | Self::InvalidRequest(_) => TokenErrorReason::Network,
        }
    }

    /// Returns the proxy that opened no tunnel, and the layer that failed.
    pub(super) fn proxy(&self) -> Option<(&Arc<EgressProxy>, ProxyLayer)> {
        let Self::Proxy { proxy, layer, .. } = self else { return None };
        Some((proxy, *layer))
    }

    /// Returns the certificate of the endpoint, or of the proxy itself, if it is refused.
    pub fn certificate(&self) -> Option<&RefusedCertificate> {
        match self {
            Self::Certificate(certificate) => Some(certificate),
            Self::Proxy { certificate, .. } => certificate.as_ref(),
            Self::Timeout(_)
            | Self::Connect(_)
            | Self::Interrupted(_)
            | Self::TooLarge(_)
            | Self::InvalidRequest(_) => None,
        }
    }

    /// Returns the message of the layer that failed, if that was below HTTP or HTTP itself.
    pub fn root(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Connect(source) | Self::Proxy { source, .. } | Self::Interrupted(source) => {
                Some(source.root().into())
            }
            Self::Certificate(certificate) => Some(certificate.to_string().into()),
            Self::Timeout(_) | Self::TooLarge(_) | Self::InvalidRequest(_) => None,
        }
    }

    /// Returns a hint: what to check.
    pub(super) fn hint(&self, endpoint: IdentityEndpointKind) -> &'static str {
        if matches!(self, Self::Proxy { .. }) {
            return "the proxy failed, so nothing was sent";
        }
        if matches!(self, Self::Certificate(_)) {
            return "its certificate is refused, so nothing was sent";
        }
        endpoint.no_response_hint()
    }
}

impl UnusableResponse {
    /// Returns whether a retry is likely to get the same response.
    fn is_permanent(&self) -> bool {
        matches!(self, Self::NoAssertion(_) | Self::NotAnAssertion | Self::NotGoogle)
    }
}

impl ResponseError {
    /// Makes an error of Entra that has a status and nothing else.
    #[cfg(test)]
    pub(crate) fn of_entra(status: StatusCode) -> Self {
        Self {
            endpoint: IdentityEndpoint { kind: IdentityEndpointKind::Entra, authority: "login.example".to_owned() },
            status,
            unusable: None,
            error: None,
            codes: Vec::new(),
            description: None,
            correlation_id: None,
            trace_id: None,
            retry_after: None,
            date: None,
            federated: false,
        }
    }

    /// Returns whom Entra throttles, if the response says that it does.
    pub(super) fn throttled_party(&self) -> Option<ThrottledParty> {
        if self.endpoint.kind != IdentityEndpointKind::Entra {
            return None;
        }
        if self.codes.contains(&TENANT_THROTTLED) {
            return Some(ThrottledParty::Tenant);
        }
        (self.status == StatusCode::TOO_MANY_REQUESTS).then_some(ThrottledParty::Unknown)
    }

    /// Returns whether Entra rejects the assertion in the request, or the app's trust in its issuer.
    pub(super) fn rejects_assertion(&self) -> bool {
        self.federated && matches!(self.error.as_deref(), Some("invalid_client" | "invalid_request"))
    }

    pub(super) fn class(&self) -> ErrorClass {
        let status = self.status.as_u16();
        if self.unusable.as_ref().is_some_and(UnusableResponse::is_permanent) {
            return ErrorClass::Permanent;
        }
        if self.unusable.is_some() || matches!(status, 408 | 429 | 500..) {
            return ErrorClass::Transient;
        }
        let error = self.error.as_deref();
        let is_transient = match self.endpoint.kind {
            // A response without `error` is not from Entra, but from a proxy or captive portal.
            IdentityEndpointKind::Entra => matches!(error, None | Some("temporarily_unavailable" | "server_error")),
            // IMDS returns these while the host is being updated. Source: Microsoft, "How to use managed identities on an Azure
            // VM to acquire an access token", error handling.
            IdentityEndpointKind::InstanceMetadata => matches!(status, 404 | 410),
            IdentityEndpointKind::AppService | IdentityEndpointKind::Provider(_) => false,
        };
        let is_propagating = self.endpoint.kind == IdentityEndpointKind::Entra
            && (error == Some("unauthorized_client") || self.rejects_assertion());
        match (is_transient, is_propagating) {
            (true, _) => ErrorClass::Transient,
            (false, true) => ErrorClass::Propagation,
            (false, false) => ErrorClass::Permanent,
        }
    }

    pub(super) fn reason(&self) -> TokenErrorReason {
        if self.unusable.is_some() {
            return TokenErrorReason::Malformed;
        }
        let has = |codes: &[u32]| self.codes.iter().any(|code| codes.contains(code));
        match (self.status.as_u16(), self.error.as_deref()) {
            (429, _) => TokenErrorReason::Throttled,
            (408 | 500.., _) => TokenErrorReason::Network,
            _ if has(&[700_024]) => TokenErrorReason::AssertionExpired,
            _ if has(&[90002, 900_023, 700_016, 700_011, 7_000_229]) => TokenErrorReason::UnknownApp,
            (_, Some("unauthorized_client")) => TokenErrorReason::UnknownApp,
            (_, Some("invalid_client")) if !self.federated => TokenErrorReason::InvalidClient,
            (_, None) if self.endpoint.kind == IdentityEndpointKind::Entra => TokenErrorReason::Malformed,
            (_, Some(_) | None) => TokenErrorReason::Refused,
        }
    }

    /// Returns what is wrong, without what to do about a known AADSTS code.
    pub(super) fn fact(&self) -> String {
        let mut text = String::new();
        let _infallible = self.write(&mut text, false);
        text
    }

    fn write(&self, f: &mut impl fmt::Write, with_action: bool) -> fmt::Result {
        if let Some(unusable) = &self.unusable {
            return write!(f, "{} answered {} but {unusable}", self.endpoint, self.status.as_u16());
        }
        write!(f, "{} answered {}", self.endpoint, self.status.as_u16())?;
        if let Some(error) = &self.error {
            write!(f, " {error}")?;
        }
        match (remedy(&self.codes), self.codes.first(), &self.description) {
            (Some(remedy), _, _) => {
                write!(f, ": {}", remedy.fact_of(&self.codes))?;
                if with_action {
                    write!(f, "; {}", remedy.action)?;
                }
            }
            (None, Some(code), description) => {
                write!(f, ": {}", description.as_deref().unwrap_or("no description"))?;
                write!(f, "; see https://login.microsoftonline.com/error?code={code}")?;
            }
            (None, None, Some(description)) => write!(f, ": {description}")?,
            (None, None, None) => {}
        }
        match (self.endpoint.kind, self.reason()) {
            (IdentityEndpointKind::Entra, TokenErrorReason::Malformed) => {
                write!(f, ", which is not an error response of Entra: a proxy or captive portal responded instead")?;
            }
            (IdentityEndpointKind::InstanceMetadata | IdentityEndpointKind::AppService, TokenErrorReason::Refused) => {
                write!(f, "; check that the identity exists and is assigned to this host")?;
            }
            (IdentityEndpointKind::Provider(provider), TokenErrorReason::Refused | TokenErrorReason::InvalidClient) => {
                write!(f, "; {}", provider.rejection_hint())?;
            }
            _ => {}
        }
        if let Some(correlation_id) = &self.correlation_id {
            write!(f, " (correlation id {correlation_id})")?;
        }
        Ok(())
    }
}

impl fmt::Display for ResponseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, true)
    }
}

impl Error for ResponseError {}

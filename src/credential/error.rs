//! The error of an acquisition: its retry class, its metric label, and who must act.
//!
//! `schedule.rs` decides when an acquisition is retried.

use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::bearer::{Actor, NotAToken};
use super::identity_endpoint::{IdentityEndpoint, IdentityEndpointKind};
use super::local_error::{CertificateError, SecretError};
use super::process::CommandError;
use super::remedy::{Remedy, remedy};
use super::response_error::{NoResponse, ResponseError};
use super::schedule::ErrorClass;
use crate::egress::{EgressProxy, ProxyLayer};
use crate::metrics::TokenErrorReason;
use crate::redact::MaskedError;
use crate::tls::RefusedCertificate;

/// An error of an acquisition: why there is no new token.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// The response of an identity endpoint holds no usable token.
    #[error(transparent)]
    Response(#[from] Box<ResponseError>),
    /// An identity endpoint returned no complete response.
    #[error("{endpoint} returned no complete response ({})", source.hint(endpoint.kind))]
    NoResponse {
        /// The endpoint.
        endpoint: IdentityEndpoint,
        /// Why.
        #[source]
        source: NoResponse,
    },
    /// A secret, key, token or assertion on this host cannot be read.
    #[error(transparent)]
    Unreadable(#[from] SecretError),
    /// The client certificate or its key cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A program could not be run or printed no usable token.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file holds a token that has expired.
    #[error("the token in {} expired at {}: the program that updates the file has stopped", path.display(), humantime::format_rfc3339_seconds(*expired))]
    ExpiredFile {
        /// The file.
        path: PathBuf,
        /// When its token expired.
        expired: SystemTime,
    },
    /// The identity library rejects the settings, before anything is sent.
    #[error("the settings of the credential cannot be used")]
    Settings(#[source] MaskedError),
    /// The identity library rejects a response that the gateway accepts.
    #[error("the identity library rejects a response that the gateway accepts: this is a defect of the gateway")]
    RejectedByLibrary(#[source] MaskedError),
    /// The token is not allowed in a header.
    #[error(transparent)]
    NotAToken(#[from] NotAToken),
    /// The token had expired when it arrived.
    #[error("the token had expired when it arrived")]
    ExpiredOnArrival,
    /// The acquisition ran into its deadline.
    #[error("no token within {}", humantime::format_duration(*.0))]
    Deadline(Duration),
    /// Another request failed, and its failure also concerns this one, which was not sent.
    #[error(transparent)]
    OtherRequest(OtherRequestError),
    /// The acquisition panicked. The panic message is on stderr.
    #[error("obtaining the token panicked: this is a defect of the gateway")]
    Panicked,
}

impl CredentialError {
    /// Returns how the next acquisition is scheduled.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Response(response) => response.class(),
            Self::OtherRequest(other) => other.cause.class(),
            Self::Command(err) if err.is_transient() => ErrorClass::Transient,
            Self::NoResponse { source, .. } => source.class(),
            Self::RejectedByLibrary(_)
            | Self::NotAToken(_)
            | Self::ExpiredOnArrival
            | Self::Deadline(_)
            | Self::Panicked => ErrorClass::Transient,
            Self::Unreadable(_)
            | Self::Certificate(_)
            | Self::Command(_)
            | Self::ExpiredFile { .. }
            | Self::Settings(_) => ErrorClass::Permanent,
        }
    }

    /// Returns the metric label.
    pub fn reason(&self) -> TokenErrorReason {
        match self {
            Self::Response(response) => response.reason(),
            Self::OtherRequest(other) => other.cause.reason(),
            Self::NoResponse { source, .. } => source.reason(),
            Self::Deadline(_) => TokenErrorReason::Network,
            Self::RejectedByLibrary(_) | Self::NotAToken(_) | Self::ExpiredOnArrival => TokenErrorReason::Malformed,
            Self::Unreadable(_)
            | Self::Certificate(_)
            | Self::Command(_)
            | Self::ExpiredFile { .. }
            | Self::Settings(_) => TokenErrorReason::Local,
            Self::Panicked => TokenErrorReason::Other,
        }
    }

    /// Returns the failure itself, if this one is that of another request.
    pub fn innermost(&self) -> &Self {
        if let Self::OtherRequest(other) = self { other.cause.innermost() } else { self }
    }

    /// Returns why there was no response, if there was none.
    fn no_response(&self) -> Option<&NoResponse> {
        if let Self::NoResponse { source, .. } = self.innermost() { Some(source) } else { None }
    }

    /// Returns whether a client certificate has expired.
    pub fn is_expired_certificate(&self) -> bool {
        matches!(self.innermost(), Self::Certificate(CertificateError::Expired { .. }))
    }

    /// Returns whether a request got no response in time.
    pub(crate) fn is_timeout(&self) -> bool {
        let Self::NoResponse { source, .. } = self else { return false };
        matches!(source, NoResponse::Timeout(_))
    }

    /// Returns the response of the identity endpoint, if there was one.
    pub fn response(&self) -> Option<&ResponseError> {
        match self {
            Self::Response(response) => Some(response),
            Self::OtherRequest(other) => other.cause.response(),
            Self::NoResponse { .. }
            | Self::Unreadable(_)
            | Self::Certificate(_)
            | Self::Command(_)
            | Self::ExpiredFile { .. }
            | Self::Settings(_)
            | Self::RejectedByLibrary(_)
            | Self::NotAToken(_)
            | Self::ExpiredOnArrival
            | Self::Deadline(_)
            | Self::Panicked => None,
        }
    }

    /// Returns the proxy that opened no tunnel, if that is the cause, and the layer that failed.
    pub fn proxy(&self) -> Option<(&Arc<EgressProxy>, ProxyLayer)> {
        self.no_response()?.proxy()
    }

    /// Returns the certificate of the identity endpoint, or of the proxy to it, if it is refused.
    pub fn refused_certificate(&self) -> Option<&RefusedCertificate> {
        self.no_response()?.certificate()
    }

    /// Returns why there was no response, in the words of the layer that failed, such as the operating system.
    pub fn root(&self) -> Option<Cow<'_, str>> {
        self.no_response()?.root()
    }

    /// Returns the AADSTS codes of the response.
    pub fn codes(&self) -> &[u32] {
        self.response().map_or(&[], |response| &response.codes)
    }

    /// Returns the id by which Microsoft support finds the request.
    pub fn correlation_id(&self) -> Option<&str> {
        self.response()?.correlation_id.as_deref()
    }

    /// Returns `Retry-After` of the response, or what is left of the pause that began with it.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::OtherRequest(other) = self {
            return Some(other.retry_at?.saturating_duration_since(Instant::now()));
        }
        self.response()?.retry_after
    }

    /// Returns who must act, derived from the class and the AADSTS codes.
    pub fn who_acts(&self) -> Actor {
        if self.class() == ErrorClass::Transient {
            return Actor::Gateway;
        }
        let Some(response) = self.response().filter(|response| response.endpoint.kind == IdentityEndpointKind::Entra)
        else {
            return Actor::Operator;
        };
        let step = remedy(&response.codes).map(|remedy| remedy.step);
        match (step, self.reason()) {
            (Some(step), _) if step.is_in_endpoint_tenant() => Actor::TenantAdministrator,
            (None, TokenErrorReason::UnknownApp | TokenErrorReason::Refused) => Actor::TenantAdministrator,
            (Some(_) | None, _) => Actor::Operator,
        }
    }

    /// Returns whom the refusal concerns. `None` if the failure may end without action.
    pub(crate) fn refused_party(&self) -> Option<RefusedParty> {
        if self.class() == ErrorClass::Transient {
            return None;
        }
        let is_about_tenant = remedy(self.codes()).is_some_and(Remedy::is_about_tenant);
        let is_tenants = is_about_tenant || self.who_acts() == Actor::TenantAdministrator;
        Some(if is_tenants { RefusedParty::Tenant } else { RefusedParty::App })
    }

    /// Extracts the error that [`CredentialError::wrap`] wrapped, from under the errors that the identity library adds.
    pub(crate) fn unwrap(wrapped: azure_core::Error) -> Self {
        let mut current = wrapped;
        loop {
            let inner = match current.into_inner() {
                Ok(inner) => inner,
                Err(innermost) => return Self::RejectedByLibrary(MaskedError::new(&innermost)),
            };
            match inner.downcast::<Self>() {
                Ok(error) => return *error,
                Err(other) => match other.downcast::<azure_core::Error>() {
                    Ok(next) => current = *next,
                    Err(other) => return Self::RejectedByLibrary(MaskedError::new(&*other)),
                },
            }
        }
    }

    /// Wraps an error of the identity library about the settings.
    pub(crate) fn settings(err: &azure_core::Error) -> Self {
        Self::Settings(MaskedError::new(err))
    }

    /// Wraps the error so that it passes through the identity library. Its kind is `Other`: the library retries requests that
    /// fail with `Io` or `Connection`, whatever its retry options are.
    pub(crate) fn wrap(self) -> azure_core::Error {
        azure_core::Error::new(azure_core::error::ErrorKind::Other, self)
    }
}

/// Whom a refusal concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RefusedParty {
    /// The app in each of its tenants, or a credential without an app.
    App,
    /// The app in one tenant. It may be refused in the others as well.
    Tenant,
}

/// The failure of another request that also concerns this one.
#[derive(Debug)]
pub struct OtherRequestError {
    /// Why the other request failed.
    pub(crate) cause: Arc<CredentialError>,
    /// Why the failure concerns this request too.
    pub(crate) relation: Relation,
    /// When the next request may be sent, if that is known.
    pub(crate) retry_at: Option<Instant>,
}

/// Why the failure of a request concerns another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Relation {
    /// Both need the same assertion.
    Assertion,
    /// Both are for the same tenant, which Entra throttles.
    TenantThrottled,
    /// Both are of the same app, which Entra throttles in several tenants.
    AppThrottled,
}

impl Relation {
    /// Returns what the failure means for other requests, to be appended to it.
    pub(super) const fn consequence(self) -> &'static str {
        match self {
            Self::Assertion => "",
            Self::TenantThrottled => "; token requests for this tenant pause as long as Entra asks",
            Self::AppThrottled => {
                "; Entra throttles this app in several tenants, so all its token requests pause as long as Entra asks"
            }
        }
    }
}

impl From<OtherRequestError> for CredentialError {
    fn from(error: OtherRequestError) -> Self {
        Self::OtherRequest(error)
    }
}

impl OtherRequestError {
    /// Returns why the other request failed.
    pub fn cause(&self) -> &CredentialError {
        &self.cause
    }
}

impl fmt::Display for OtherRequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.cause, self.relation.consequence())
    }
}

impl Error for OtherRequestError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.cause.source()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_that_may_succeed_next_time_is_retried_soon() {
        let program = || PathBuf::from("get-token");
        for (err, class) in [
            (CommandError::Timeout { program: program(), after: Duration::from_secs(1) }, ErrorClass::Transient),
            (CommandError::NotAToken { program: program() }, ErrorClass::Permanent),
        ] {
            assert_eq!(CredentialError::from(err).class(), class);
        }
    }
}

//! Why a request to an identity endpoint brought no usable token, and what behaviour follows from it.
//!
//! Behaviour follows the OAuth `error` and the HTTP status; AADSTS numbers only explain (Microsoft changes them).

use std::error::Error;
use std::fmt;
use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::identity_endpoint::{IdentityEndpoint, IdentityEndpointKind};
use super::remedy::remedy;
use super::schedule::ErrorClass;
use crate::metrics::TokenErrorReason;
use crate::redact::Foreign;

/// What happened instead of an answer.
#[derive(Debug, thiserror::Error)]
pub enum NoAnswer {
    /// The time for one request passed.
    #[error("nothing came within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// Name resolution, connection or TLS failed.
    #[error("the connection could not be made")]
    Connect(#[source] Foreign),
    /// The connection broke before the answer was complete, or what came is not HTTP.
    #[error("the connection broke off")]
    Broken(#[source] Foreign),
    /// The answer goes on for longer than any token.
    #[error("the answer is larger than {0} bytes")]
    TooLarge(usize),
    /// The identity library asked for something that cannot be sent.
    #[error("the request cannot be sent: {0}")]
    Unsendable(&'static str),
}

/// An identity endpoint's answer that is not a usable token.
#[derive(Clone, Debug)]
pub struct TokenHttpError {
    /// Who answered.
    pub endpoint: IdentityEndpoint,
    /// The HTTP status.
    pub status: StatusCode,
    /// What is wrong with an answer that looks like success.
    pub unusable: Option<UnusableAnswer>,
    /// OAuth `error`, such as `invalid_client`, as far as it may be shown.
    pub error: Option<String>,
    /// AADSTS numbers, the first being the one that says most.
    pub codes: Vec<u32>,
    /// The description, as far as it may be shown.
    pub description: Option<String>,
    /// Entra's `correlation_id`.
    pub correlation_id: Option<String>,
    /// Entra's `trace_id`.
    pub trace_id: Option<String>,
    /// How long to wait, as the endpoint said it.
    pub retry_after: Option<Duration>,
    /// The endpoint's clock.
    pub date: Option<SystemTime>,
    /// Whether the request carried the assertion of another identity.
    pub federated: bool,
}

/// Why an answer that looks like success is not a usable token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UnusableAnswer {
    /// Not a JSON object.
    #[error("it is not the JSON of a token answer")]
    NotJson,
    /// No `access_token`, or an empty one.
    #[error("there is no access token in it")]
    NoToken,
    /// The token cannot stand in a header.
    #[error("its access token has characters that a bearer token cannot have")]
    NotAToken,
    /// No lifetime, or one that no token has.
    #[error("its token lives for {0} seconds")]
    Lifetime(i64),
    /// There is neither `expires_in` nor `expires_on`, and the token is not a JWT with an `exp`.
    #[error("it does not say how long its token lives: it has neither `expires_in` nor `expires_on`")]
    NoLifetime,
    /// A field says how long the token lives, in a way that cannot be read.
    #[error("its `{0}` is neither a number of seconds nor a date")]
    OddLifetime(&'static str),
    /// The field that holds an assertion is not there.
    #[error("there is no `{0}` in it")]
    NoAssertion(&'static str),
    /// What should be an assertion is an opaque token.
    #[error("its token is not a JWT, and Entra takes no other assertion")]
    NotAnAssertion,
    /// The header is missing by which Google's metadata server is known.
    #[error("it lacks `Metadata-Flavor: Google`: something else answers in the metadata server's place")]
    NotGoogle,
}

impl UnusableAnswer {
    /// Whether the same answer is to be expected next time.
    fn stays(&self) -> bool {
        matches!(self, Self::NoAssertion(_) | Self::NotAnAssertion | Self::NotGoogle)
    }
}

impl TokenHttpError {
    pub(super) fn class(&self) -> ErrorClass {
        let status = self.status.as_u16();
        if self.unusable.as_ref().is_some_and(UnusableAnswer::stays) {
            return ErrorClass::Permanent;
        }
        if self.unusable.is_some() || matches!(status, 408 | 429 | 500..) {
            return ErrorClass::Transient;
        }
        let error = self.error.as_deref();
        let passing = match self.endpoint.kind {
            // Without `error` it was not Entra that answered but a captive portal or a proxy.
            IdentityEndpointKind::Entra => matches!(error, None | Some("temporarily_unavailable" | "server_error")),
            // While the host is being updated. Source: Microsoft, "How to use managed identities on an Azure VM to
            // acquire an access token", error handling.
            IdentityEndpointKind::InstanceMetadata => matches!(status, 404 | 410),
            IdentityEndpointKind::AppService | IdentityEndpointKind::Provider(_) => false,
        };
        let spreading = self.endpoint.kind == IdentityEndpointKind::Entra
            && (error == Some("unauthorized_client")
                || self.federated && matches!(error, Some("invalid_client" | "invalid_request")));
        match (passing, spreading) {
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
}

impl fmt::Display for TokenHttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(unusable) = &self.unusable {
            return write!(f, "{} answered {} but {unusable}", self.endpoint, self.status.as_u16());
        }
        write!(f, "{} answered {}", self.endpoint, self.status.as_u16())?;
        if let Some(error) = &self.error {
            write!(f, " {error}")?;
        }
        let known = self.codes.iter().find_map(|code| remedy(*code).map(|remedy| (code, remedy)));
        match (known, self.codes.first(), &self.description) {
            (Some((code, remedy)), _, _) => write!(f, ": AADSTS{code}: {}; {}", remedy.fact, remedy.action)?,
            (None, Some(code), description) => {
                write!(f, ": {}", description.as_deref().unwrap_or("no description"))?;
                write!(f, "; see https://login.microsoftonline.com/error?code={code}")?;
            }
            (None, None, Some(description)) => write!(f, ": {description}")?,
            (None, None, None) => {}
        }
        match (self.endpoint.kind, self.reason()) {
            (IdentityEndpointKind::Entra, TokenErrorReason::Malformed) => {
                write!(f, ", which is not how Entra refuses: something stands between it and the gateway")?;
            }
            (IdentityEndpointKind::InstanceMetadata | IdentityEndpointKind::AppService, TokenErrorReason::Refused) => {
                write!(f, "; check that the identity exists and is assigned to this host")?;
            }
            (IdentityEndpointKind::Provider(provider), TokenErrorReason::Refused | TokenErrorReason::InvalidClient) => {
                write!(f, "; {}", provider.refused())?;
            }
            _ => {}
        }
        if let Some(correlation_id) = &self.correlation_id {
            write!(f, " (correlation id {correlation_id})")?;
        }
        Ok(())
    }
}

impl Error for TokenHttpError {}

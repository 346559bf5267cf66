//! Why there is no token: one error type for every leg of an acquisition, with what behaviour follows from it.
//!
//! Behaviour follows the OAuth `error` and the HTTP status; AADSTS numbers only explain (Microsoft changes them). Does
//! not know how often or when something is tried again: that is `schedule.rs`.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use http::StatusCode;

use super::assertion::CertificateError;
use super::bearer::{Actor, NotAToken};
use super::process::CommandError;
use super::remedy::remedy;
use super::secret::SecretError;
use crate::metrics::TokenErrorReason;
use crate::redact::Foreign;

/// What a failed acquisition says about the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// It may pass by itself: no answer, a 5xx, throttling.
    Transient,
    /// It is refused, in a way that newly made enterprise applications and federated credentials are refused for some
    /// minutes until Entra knows them everywhere.
    Propagation,
    /// Somebody has to mend something.
    Permanent,
}

/// Why a token could not be obtained.
#[derive(Debug, thiserror::Error)]
pub enum CredentialError {
    /// An identity endpoint answered, but not with a usable token.
    #[error(transparent)]
    Answer(#[from] Box<TokenHttpError>),
    /// An identity endpoint did not answer.
    #[error("{endpoint} did not answer ({})", endpoint.kind.reachability())]
    NoAnswer {
        /// Which one.
        endpoint: IdentityEndpoint,
        /// What happened instead.
        #[source]
        source: NoAnswer,
    },
    /// A secret, key, token or assertion on this host cannot be read.
    #[error(transparent)]
    Unreadable(#[from] SecretError),
    /// The client certificate or its key cannot be used.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// A program did not give a token.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// A file holds a token that has expired.
    #[error("the token in {} expired at {}: the program that keeps the file fresh has stopped", path.display(), humantime::format_rfc3339_seconds(*expired))]
    ExpiredFile {
        /// The file.
        path: PathBuf,
        /// When its token expired.
        expired: SystemTime,
    },
    /// The identity library refuses the settings, before anything was sent.
    #[error("the settings of the credential cannot be used")]
    Settings(#[source] Foreign),
    /// The identity library does not understand an answer.
    #[error(
        "the identity library does not understand an answer that the gateway does: this is a defect of the gateway"
    )]
    Misunderstood(#[source] Foreign),
    /// What came back cannot be a bearer token.
    #[error(transparent)]
    NotAToken(#[from] NotAToken),
    /// What came back is used up on arrival.
    #[error("the token that came back has no life left")]
    NoLifeLeft,
    /// The whole acquisition took too long.
    #[error("no token within {}", humantime::format_duration(*.0))]
    Deadline(Duration),
    /// The acquisition panicked. The panic itself is on stderr.
    #[error("obtaining the token panicked: this is a defect of the gateway")]
    Panicked,
}

impl CredentialError {
    /// Says what the failure means for the next acquisition.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Answer(answer) => answer.class(),
            Self::Command(err) if err.may_pass() => ErrorClass::Transient,
            Self::NoAnswer { .. }
            | Self::Misunderstood(_)
            | Self::NotAToken(_)
            | Self::NoLifeLeft
            | Self::Deadline(_)
            | Self::Panicked => ErrorClass::Transient,
            Self::Unreadable(_)
            | Self::Certificate(_)
            | Self::Command(_)
            | Self::ExpiredFile { .. }
            | Self::Settings(_) => ErrorClass::Permanent,
        }
    }

    /// Returns the metric label of the cause.
    pub fn reason(&self) -> TokenErrorReason {
        match self {
            Self::Answer(answer) => answer.reason(),
            Self::NoAnswer { .. } | Self::Deadline(_) => TokenErrorReason::Network,
            Self::Misunderstood(_) | Self::NotAToken(_) | Self::NoLifeLeft => TokenErrorReason::Malformed,
            Self::Unreadable(_)
            | Self::Certificate(_)
            | Self::Command(_)
            | Self::ExpiredFile { .. }
            | Self::Settings(_) => TokenErrorReason::Local,
            Self::Panicked => TokenErrorReason::Other,
        }
    }

    /// Returns the answer of the identity endpoint, if there was one.
    pub fn answer(&self) -> Option<&TokenHttpError> {
        match self {
            Self::Answer(answer) => Some(answer),
            Self::NoAnswer { .. }
            | Self::Unreadable(_)
            | Self::Certificate(_)
            | Self::Command(_)
            | Self::ExpiredFile { .. }
            | Self::Settings(_)
            | Self::Misunderstood(_)
            | Self::NotAToken(_)
            | Self::NoLifeLeft
            | Self::Deadline(_)
            | Self::Panicked => None,
        }
    }

    /// Returns the AADSTS numbers of the refusal.
    pub fn codes(&self) -> &[u32] {
        self.answer().map_or(&[], |answer| &answer.codes)
    }

    /// Returns the id under which Microsoft's support finds the request.
    pub fn correlation_id(&self) -> Option<&str> {
        self.answer()?.correlation_id.as_deref()
    }

    /// Returns how long the identity endpoint asks to be left alone, as it said it.
    pub fn retry_after(&self) -> Option<Duration> {
        self.answer()?.retry_after
    }

    /// Says who can do something about it, as far as it can be told.
    pub fn who_acts(&self) -> Actor {
        if self.class() == ErrorClass::Transient {
            return Actor::Nobody;
        }
        let Some(answer) = self.answer().filter(|answer| answer.endpoint.kind == IdentityEndpointKind::Entra) else {
            return Actor::Operator;
        };
        let step = answer.codes.iter().find_map(|code| remedy(*code)).map(|remedy| remedy.step);
        match (step, self.reason()) {
            (Some(step), _) if step.is_of_the_endpoints_tenant() => Actor::TenantAdministrator,
            (None, TokenErrorReason::UnknownApp | TokenErrorReason::Refused) => Actor::TenantAdministrator,
            (Some(_) | None, _) => Actor::Operator,
        }
    }

    /// Finds our error inside the identity library's wrappers.
    pub(crate) fn unwrap(wrapped: azure_core::Error) -> Self {
        let mut current = wrapped;
        loop {
            let inner = match current.into_inner() {
                Ok(inner) => inner,
                Err(innermost) => return Self::Misunderstood(Foreign::new(&innermost)),
            };
            match inner.downcast::<Self>() {
                Ok(ours) => return *ours,
                Err(other) => match other.downcast::<azure_core::Error>() {
                    Ok(next) => current = *next,
                    Err(foreign) => return Self::Misunderstood(Foreign::new(&*foreign)),
                },
            }
        }
    }

    /// The identity library refuses the settings.
    pub(crate) fn settings(err: &azure_core::Error) -> Self {
        Self::Settings(Foreign::new(err))
    }

    /// Wraps the error so that it passes through the identity library. The kind matters: the library repeats requests
    /// that end in `Io` or `Connection`, whatever its retry options say.
    pub(crate) fn wrap(self) -> azure_core::Error {
        azure_core::Error::new(azure_core::error::ErrorKind::Other, self)
    }
}

/// An identity endpoint: what it is and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdentityEndpoint {
    /// What it is.
    pub kind: IdentityEndpointKind,
    /// `host[:port]`, or the origin that stands in for it.
    pub authority: String,
}

impl fmt::Display for IdentityEndpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self.kind {
            IdentityEndpointKind::Entra => "Entra's token endpoint",
            IdentityEndpointKind::InstanceMetadata => "the instance metadata service",
            IdentityEndpointKind::AppService => "the App Service identity endpoint",
            IdentityEndpointKind::Provider(provider) => provider.name(),
        };
        write!(f, "{name} at {}", self.authority)
    }
}

/// What an identity endpoint is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityEndpointKind {
    /// A tenant's OAuth 2.0 token endpoint.
    Entra,
    /// IMDS of a virtual machine, scale set or Kubernetes node.
    InstanceMetadata,
    /// The endpoint that App Service, Functions and Container Apps name in `IDENTITY_ENDPOINT`.
    AppService,
    /// An identity provider outside Entra, whose token is presented to Entra.
    Provider(IdentityProvider),
}

/// An identity provider outside Entra.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdentityProvider {
    /// The OIDC provider of GitHub Actions.
    GithubActions,
    /// The OIDC provider of Azure Pipelines.
    AzurePipelines,
    /// The metadata server of Google Cloud.
    GcpMetadata,
    /// An OAuth 2.0 token endpoint.
    OAuth2,
}

impl IdentityProvider {
    const fn name(self) -> &'static str {
        match self {
            Self::GithubActions => "the OIDC provider of GitHub Actions",
            Self::AzurePipelines => "the OIDC provider of Azure Pipelines",
            Self::GcpMetadata => "the metadata server of Google Cloud",
            Self::OAuth2 => "the OAuth 2.0 token endpoint",
        }
    }

    /// What to look at when it refuses.
    const fn refused(self) -> &'static str {
        match self {
            Self::GithubActions => "the request token ends with the job that GitHub made it for",
            Self::AzurePipelines => {
                "check `service_connection`, that the pipeline may use it, and that the access token is that of the \
                 running job"
            }
            Self::GcpMetadata => "check that the host has the service account",
            Self::OAuth2 => "check `client_id`, `secret`, `authentication`, `scope` and `audience` of the assertion",
        }
    }
}

impl IdentityEndpointKind {
    /// What to look at when it does not answer.
    const fn reachability(self) -> &'static str {
        match self {
            Self::Entra => "check name resolution, outbound firewalls and, for a custom authority, `ca_file`",
            Self::InstanceMetadata => {
                "it exists on Azure hosts alone, and network policies or a proxy must not stand in its way"
            }
            Self::AppService => "check that the site has an identity assigned",
            Self::Provider(IdentityProvider::GithubActions) => {
                "its address is good for the job alone that it was made for"
            }
            Self::Provider(IdentityProvider::AzurePipelines) => "check that the agent can reach Azure DevOps",
            Self::Provider(IdentityProvider::GcpMetadata) => {
                "it exists on Google Cloud alone, and network policies or a proxy must not stand in its way"
            }
            Self::Provider(IdentityProvider::OAuth2) => {
                "check `token_url`, name resolution, outbound firewalls and, for a private CA, the assertion's `ca_file`"
            }
        }
    }
}

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
    fn class(&self) -> ErrorClass {
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

    fn reason(&self) -> TokenErrorReason {
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

/// Writes an error and its causes in one line.
pub(crate) fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        line.push_str(": ");
        line.push_str(&error.to_string());
        cause = error.source();
    }
    one_line(&line)
}

/// Turns line breaks, tabs and other control characters into single spaces: what comes from outside must not start a
/// new line in a log or move a terminal's cursor.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split(|character: char| character.is_whitespace() || character.is_control()) {
        if !word.is_empty() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    line
}

//! Why there is no token: one error type for every leg of an acquisition, with what behaviour follows from it.
//!
//! Behaviour follows the OAuth `error` and the HTTP status; AADSTS numbers only explain (Microsoft changes them). Does
//! not know how often or when something is tried again: that is `schedule.rs`.

use std::error::Error;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::bearer::{Actor, NotAToken};
use super::identity_endpoint::{IdentityEndpoint, IdentityEndpointKind};
use super::local_error::{CertificateError, SecretError};
use super::process::CommandError;
use super::refusal::{NoAnswer, TokenHttpError};
use super::remedy::remedy;
use super::schedule::ErrorClass;
use crate::metrics::TokenErrorReason;
use crate::redact::Foreign;

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

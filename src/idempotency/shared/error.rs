//! Why an operation of the shared store failed.

use std::io;

use crate::files::SecretSourceError;
use crate::redact;
use crate::tls::TrustError;
#[cfg(feature = "redis")]
use crate::tls::{CertificateProblem, RefusedCertificate};

/// Why an operation of the shared store failed. Contains no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {cause}")]
pub struct StoreError {
    /// What failed.
    pub what: StoreFailure,
    /// The cause, in one line.
    pub cause: String,
    /// What to do, if the cause itself says so.
    fix: Option<&'static str>,
}

/// What failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreFailure {
    /// Reading the password.
    #[error("the password cannot be read")]
    Secret,
    /// Resolving the host or connecting.
    #[error("the store cannot be reached")]
    Connect,
    /// The TLS handshake, or the CAs for it.
    #[error("the TLS connection to the store failed")]
    Tls,
    /// User and password.
    #[error("the store refuses the user or the password")]
    Auth,
    /// A command.
    #[error("the store refuses a command")]
    Command,
    /// The connection broke, or the response is not that of a store.
    #[error("the connection to the store broke")]
    Broken,
    /// It did not respond in time.
    #[error("the store does not respond in time")]
    Timeout,
    /// This program has no client for it.
    #[error("this build has no client for the store")]
    NotBuilt,
}

impl StoreFailure {
    /// Returns what to do about it.
    pub const fn remedy(self) -> &'static str {
        match self {
            Self::Secret => "check `idempotency.password` and the permissions of the file",
            Self::Connect => "check `idempotency.store`, that the store runs, and the network and firewalls in between",
            Self::Tls => {
                "check that the store serves TLS at this port (`rediss://`), that its certificate names the host, and \
                 `idempotency.ca_file`"
            }
            Self::Auth => {
                "check `idempotency.username` and `idempotency.password` against the users of the store (ACL LIST)"
            }
            Self::Command => {
                "use Redis 6 or later, as a primary, and allow the user the commands EVAL, TIME, HSET, HGET, HMGET, HGETALL, HDEL, \
                 EXISTS, PTTL and PEXPIRE on keys `signalr-gateway:*`"
            }
            Self::Broken => "check that the address is that of a Redis server, and its log",
            Self::Timeout => {
                "check the load and the disk of the store; `idempotency.store_timeout` bounds each operation"
            }
            Self::NotBuilt => "build with `--features redis`",
        }
    }
}

impl StoreError {
    /// Returns what to do about it.
    pub fn remedy(&self) -> &'static str {
        self.fix.unwrap_or(self.what.remedy())
    }

    /// Returns the error of a TLS handshake.
    #[cfg(feature = "redis")]
    pub(super) fn tls(err: &io::Error) -> Self {
        let Some(refused) = RefusedCertificate::find(err) else {
            return Self::new(StoreFailure::Tls, &err.to_string());
        };
        let fix = match refused.problem() {
            CertificateProblem::UnknownIssuer | CertificateProblem::BadSignature => {
                "if you know the issuer: set `idempotency.ca_file` to the PEM file of its CA; if not, do not trust it: correct \
                 `idempotency.store`, or find what answers in the store's place"
            }
            CertificateProblem::WrongName { .. } => {
                "correct the host in `idempotency.store`, or have the store's certificate name it"
            }
            CertificateProblem::NotValid { .. }
            | CertificateProblem::Revoked
            | CertificateProblem::Unreadable
            | CertificateProblem::NoProof
            | CertificateProblem::Other(_) => refused.remedy(),
        };
        Self { what: StoreFailure::Tls, cause: refused.to_string(), fix: Some(fix) }
    }

    /// Returns an error with a cause from outside, whose secrets are masked.
    pub(super) fn new(what: StoreFailure, cause: &str) -> Self {
        Self { what, cause: redact::prose(cause, &redact::SentSecrets::default()), fix: None }
    }
}

impl From<TrustError> for StoreError {
    fn from(err: TrustError) -> Self {
        Self { what: StoreFailure::Tls, cause: crate::redact::in_one_line(&err), fix: None }
    }
}

impl From<SecretSourceError> for StoreError {
    fn from(err: SecretSourceError) -> Self {
        Self { what: StoreFailure::Secret, cause: crate::redact::in_one_line(&err), fix: None }
    }
}

impl From<io::Error> for StoreError {
    fn from(err: io::Error) -> Self {
        Self { what: StoreFailure::Broken, cause: err.to_string(), fix: None }
    }
}

//! The record of an acquisition: its legs, and warnings about the files it read.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use tokio::time::Instant;

use super::bearer::Fingerprint;
use super::error::CredentialError;
use super::identity_endpoint::IdentityEndpoint;
use super::jwt::{self, Claims};
use super::schedule::ErrorClass;
use crate::files::Secret;
use crate::metrics::{TokenErrorReason, TokenStage};

/// One step of an acquisition: reading a secret, making or fetching an assertion, or requesting the token.
#[derive(Clone, Debug)]
pub struct Leg {
    /// Which step.
    pub stage: TokenStage,
    /// What was read or requested: `client secret from file /run/secrets/x`, `app … in tenant …`.
    pub subject: String,
    /// The identity endpoint that was called; `None` for a local step.
    pub endpoint: Option<IdentityEndpoint>,
    /// How long it took.
    pub took: Duration,
    /// When the proof on this host expires.
    pub not_after: Option<NotAfter>,
    /// Whether it succeeded.
    pub outcome: LegOutcome,
}

/// When a proof on this host expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAfter {
    /// A certificate, which somebody must renew before that time.
    Certificate(SystemTime),
    /// An assertion in a file, which another program replaces regularly.
    AssertionFile(SystemTime),
}

impl NotAfter {
    /// Returns the time of expiry.
    pub const fn time(self) -> SystemTime {
        match self {
            Self::Certificate(time) | Self::AssertionFile(time) => time,
        }
    }
}

/// The outcome of a leg. Does not contain the token or assertion.
#[derive(Clone, Debug)]
pub enum LegOutcome {
    /// A token or assertion.
    Token {
        /// Its name in logs.
        fingerprint: Fingerprint,
        /// Its unverified claims, if it is a JWT.
        claims: Option<Claims>,
        /// The `Date` of the response, for measuring clock skew.
        endpoint_clock: Option<SystemTime>,
    },
    /// A failure.
    Failed {
        /// How the next acquisition is scheduled.
        class: ErrorClass,
        /// The metric label of its cause.
        reason: TokenErrorReason,
    },
}

impl LegOutcome {
    pub(crate) fn failed(err: &CredentialError) -> Self {
        Self::Failed { class: err.class(), reason: err.reason() }
    }
}

/// The legs of an acquisition, in the order in which they ended, and warnings about the files they read. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Legs(Arc<Mutex<Record>>);

#[derive(Debug, Default)]
struct Record {
    legs: Vec<Leg>,
    remarks: Vec<String>,
}

impl Legs {
    pub(crate) fn record(&self, leg: Leg) {
        self.lock().legs.push(leg);
    }

    pub(crate) fn take(&self) -> Vec<Leg> {
        std::mem::take(&mut self.lock().legs)
    }

    /// Adds a warning that does not stop the acquisition. Retries add it once.
    pub(crate) fn remark(&self, remark: String) {
        let mut record = self.lock();
        if !record.remarks.contains(&remark) {
            record.remarks.push(remark);
        }
    }

    pub(crate) fn take_remarks(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().remarks)
    }

    fn lock(&self) -> MutexGuard<'_, Record> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a local step.
    pub(crate) fn record_local(
        &self,
        stage: TokenStage,
        subject: String,
        started: Instant,
        not_after: Option<NotAfter>,
        outcome: Result<&Secret, &CredentialError>,
    ) {
        let outcome = match outcome {
            Ok(proof) => LegOutcome::Token {
                fingerprint: Fingerprint::of(proof.expose()),
                claims: jwt::claims(proof.expose()),
                endpoint_clock: None,
            },
            Err(err) => LegOutcome::failed(err),
        };
        self.record(Leg { stage, subject, endpoint: None, took: started.elapsed(), not_after, outcome });
    }
}

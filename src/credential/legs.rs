//! The record of an acquisition: its legs, and what was odd about the files it read.
//!
//! Does not know how a leg is made, nor who reads the record.

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

/// One step of an acquisition: reading a secret, making or fetching an assertion, asking for the token.
#[derive(Clone, Debug)]
pub struct Leg {
    /// Which step.
    pub stage: TokenStage,
    /// Who or what it was about, in words: `client secret from file /run/secrets/x`, `app … in tenant …`.
    pub subject: String,
    /// The identity endpoint that was asked; `None` when the step stayed on this host.
    pub endpoint: Option<IdentityEndpoint>,
    /// How long it took.
    pub took: Duration,
    /// When what lies on this host as proof ends by itself.
    pub not_after: Option<NotAfter>,
    /// What came of it.
    pub outcome: LegOutcome,
}

/// When something that lies on this host as proof ends by itself, and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAfter {
    /// A certificate, for somebody to renew before.
    Certificate(SystemTime),
    /// An assertion in a file, which another program writes anew all the time.
    AssertionFile(SystemTime),
}

impl NotAfter {
    /// Returns when it ends.
    pub const fn time(self) -> SystemTime {
        match self {
            Self::Certificate(time) | Self::AssertionFile(time) => time,
        }
    }
}

/// What came of a leg. The token or assertion itself is not in it.
#[derive(Clone, Debug)]
pub enum LegOutcome {
    /// A token or assertion.
    Token {
        /// Its name.
        fingerprint: Fingerprint,
        /// Its claims, unverified, if it is a JWT.
        claims: Option<Claims>,
        /// The clock of the endpoint that answered, for measuring skew.
        endpoint_clock: Option<SystemTime>,
    },
    /// A failure.
    Failed {
        /// What it means for the next acquisition.
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

/// The legs of an acquisition, in the order in which they ended, and what was odd about the files they read. Cloning shares
/// them.
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

    /// Notes something odd that did not stop the acquisition, once however often it is tried.
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

    /// Records a step that stayed on this host.
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

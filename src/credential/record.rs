//! The record of an acquisition: its steps, and warnings about the files it read.

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

/// A step of an acquisition: reading a secret, signing or requesting an assertion, or requesting the token.
#[derive(Clone, Debug)]
pub struct AcquisitionStep {
    /// The stage, a metric label.
    pub stage: TokenStage,
    /// What was read or requested: `client secret from file /run/secrets/x`, `app … in tenant …`.
    pub subject: String,
    /// The identity endpoint that was called; `None` for a local step.
    pub endpoint: Option<IdentityEndpoint>,
    /// Its duration.
    pub took: Duration,
    /// The expiry of a certificate or assertion file that was read.
    pub not_after: Option<NotAfter>,
    /// Whether it succeeded.
    pub outcome: StepOutcome,
}

/// Returns the claims of the assertion that was presented last.
pub fn presented_assertion(steps: &[AcquisitionStep]) -> Option<&Claims> {
    steps.iter().rev().find_map(|step| match &step.outcome {
        StepOutcome::Token { claims, .. } if step.stage == TokenStage::Assertion => claims.as_ref(),
        StepOutcome::Token { .. } | StepOutcome::Failed { .. } => None,
    })
}

/// The expiry of a certificate or an assertion file on this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAfter {
    /// The expiry of a certificate, which the operator must renew.
    Certificate(SystemTime),
    /// The expiry of the assertion in a file, which another program replaces regularly.
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

/// The outcome of a step, without the token or assertion itself.
#[derive(Clone, Debug)]
pub enum StepOutcome {
    /// A token or assertion.
    Token {
        /// Its identifier in logs.
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

impl StepOutcome {
    pub(crate) fn failed(err: &CredentialError) -> Self {
        Self::Failed { class: err.class(), reason: err.reason() }
    }
}

/// An acquisition that failed.
#[derive(Debug)]
pub struct FailedAcquisition {
    /// When it ended.
    pub at: SystemTime,
    /// Why it failed.
    pub cause: Arc<CredentialError>,
    /// Its steps, in the order in which they ended.
    pub steps: Vec<AcquisitionStep>,
}

/// The steps of an acquisition, in the order in which they ended, and warnings about the files they read. Clones share their
/// content.
#[derive(Clone, Debug, Default)]
pub(crate) struct AcquisitionRecord(Arc<Mutex<Contents>>);

#[derive(Debug, Default)]
struct Contents {
    steps: Vec<AcquisitionStep>,
    warnings: Vec<String>,
    request_timeout: Option<Duration>,
}

impl AcquisitionRecord {
    pub(crate) fn add_step(&self, step: AcquisitionStep) {
        self.lock().steps.push(step);
    }

    pub(crate) fn take_steps(&self) -> Vec<AcquisitionStep> {
        std::mem::take(&mut self.lock().steps)
    }

    /// Adds a warning about a file or variable. Ignores a warning that a previous try has added.
    pub(crate) fn add_warning(&self, warning: String) {
        let mut contents = self.lock();
        if !contents.warnings.contains(&warning) {
            contents.warnings.push(warning);
        }
    }

    /// Sets how long each of the next requests may take.
    pub(crate) fn set_request_timeout(&self, timeout: Duration) {
        self.lock().request_timeout = Some(timeout);
    }

    /// Returns how long a request may take, if that differs from the usual time.
    pub(crate) fn request_timeout(&self) -> Option<Duration> {
        self.lock().request_timeout
    }

    pub(crate) fn take_warnings(&self) -> Vec<String> {
        std::mem::take(&mut self.lock().warnings)
    }

    fn lock(&self) -> MutexGuard<'_, Contents> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a step that called no identity endpoint.
    pub(crate) fn add_local_step(
        &self,
        stage: TokenStage,
        subject: String,
        started: Instant,
        not_after: Option<NotAfter>,
        outcome: Result<&Secret, &CredentialError>,
    ) {
        let outcome = match outcome {
            Ok(proof) => StepOutcome::Token {
                fingerprint: Fingerprint::of(proof.expose()),
                claims: jwt::claims(proof.expose()),
                endpoint_clock: None,
            },
            Err(err) => StepOutcome::failed(err),
        };
        self.add_step(AcquisitionStep { stage, subject, endpoint: None, took: started.elapsed(), not_after, outcome });
    }
}

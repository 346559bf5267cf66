//! One acquisition: the seam between those who know how a token is obtained and the cell that keeps it, and the record of
//! the legs it took.
//!
//! Does not know when an acquisition is made: that is `refresh.rs` and `schedule.rs`.

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use tokio::time::{Instant, sleep, timeout_at};

use super::access_key::AccessKey;
use super::bearer::{Bearer, Fingerprint, RequestUrl};
use super::error::{CredentialError, ErrorClass, IdentityEndpoint};
use super::jwt::{self, Claims};
use super::secret::Secret;
use crate::metrics::{TokenErrorReason, TokenStage};

/// How long one acquisition may take, all its tries and legs included. Chosen: one request that hangs until its own
/// deadline still leaves time for another.
const ACQUISITION_DEADLINE: Duration = Duration::from_secs(15);

/// How often a transient failure is tried within one acquisition. Chosen: Microsoft asks for few tries at once; the
/// longer waits are the cell's.
const TRIES: u32 = 3;

/// The first wait between tries; the next is three times as long. Source: IMDS asks for a back-off of at least a second in
/// all (0.4 s + 1.2 s).
const FIRST_WAIT: Duration = Duration::from_millis(400);

/// Obtains what signs requests. One for each way.
#[async_trait]
pub(crate) trait Acquire: fmt::Debug + Send + Sync {
    /// Obtains it afresh; nothing is taken from a cache.
    async fn acquire(&self, legs: &Legs) -> Result<Acquired, CredentialError>;

    /// Says which files it is made from, and when their change is worth an acquisition.
    fn files(&self) -> Files;
}

/// The files that an acquisition reads.
#[derive(Clone, Debug, Default)]
pub(crate) struct Files {
    pub(crate) paths: Vec<PathBuf>,
    /// Whether they are followed at all times (they hold the token itself), or only while the last acquisition failed.
    pub(crate) always: bool,
}

/// What came of an acquisition.
#[derive(Debug)]
pub(crate) struct Acquired {
    pub(crate) material: Material,
    /// How long it may be used; `None` for something that does not expire.
    pub(crate) life: Option<Life>,
}

/// How long a token may be used.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Life {
    /// From when it is counted.
    pub(crate) since: Instant,
    /// How long it is from there.
    pub(crate) lasts: Duration,
    /// When the issuer wants it refreshed, from there.
    pub(crate) refresh_in: Option<Duration>,
}

/// What signs requests.
#[derive(Clone, Debug)]
pub(crate) enum Material {
    /// A token that goes into the header as it is.
    Bearer(Bearer),
    /// A key that signs a token for each request.
    AccessKey(AccessKey),
}

impl Material {
    /// Returns the bearer of a request.
    pub(crate) fn bearer(&self, url: RequestUrl<'_>) -> Option<Bearer> {
        match self {
            Self::Bearer(bearer) => Some(bearer.clone()),
            Self::AccessKey(key) => key.sign(url, SystemTime::now()),
        }
    }

    pub(crate) fn fingerprint(&self) -> Fingerprint {
        match self {
            Self::Bearer(bearer) => bearer.fingerprint(),
            Self::AccessKey(key) => key.fingerprint(),
        }
    }
}

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
    /// When the proof itself ends: a certificate's or assertion's own expiry.
    pub not_after: Option<SystemTime>,
    /// What came of it.
    pub outcome: LegOutcome,
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

/// The legs of an acquisition, in the order in which they ended. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Legs(Arc<Mutex<Vec<Leg>>>);

impl Legs {
    pub(crate) fn record(&self, leg: Leg) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(leg);
    }

    pub(crate) fn take(&self) -> Vec<Leg> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Records a step that stayed on this host.
    pub(crate) fn record_local(
        &self,
        stage: TokenStage,
        subject: String,
        started: Instant,
        not_after: Option<SystemTime>,
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

/// Makes a few quick tries while a failure is transient, under the deadline of an acquisition. A failure that comes with
/// `Retry-After` is not tried again: the cell waits as long as it was asked to.
#[derive(Debug)]
pub(crate) struct QuickTries<A>(pub(crate) A);

#[async_trait]
impl<A: Acquire> Acquire for QuickTries<A> {
    async fn acquire(&self, legs: &Legs) -> Result<Acquired, CredentialError> {
        let deadline = Instant::now() + ACQUISITION_DEADLINE;
        let mut wait = FIRST_WAIT;
        let mut last = None;
        for _try in 0..TRIES {
            if last.is_some() {
                sleep(wait.mul_f64(0.8 + 0.4 * fastrand::f64())).await;
                wait *= 3;
            }
            match timeout_at(deadline, self.0.acquire(legs)).await {
                Ok(Err(err)) if err.class() == ErrorClass::Transient && err.retry_after().is_none() => last = Some(err),
                Ok(outcome) => return outcome,
                Err(_elapsed) => break,
            }
        }
        Err(last.unwrap_or(CredentialError::Deadline(ACQUISITION_DEADLINE)))
    }

    fn files(&self) -> Files {
        self.0.files()
    }
}

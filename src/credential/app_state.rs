//! What the token lives of one app registration share: when their tokens are released, and whether Entra accepts the app.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::record::NotAfter;
use crate::files::Stamp;
use crate::metrics::ProofExpiries;

/// When tokens are acquired and released. Shared by all token lives of a gateway, across reloads.
#[derive(Debug, Default)]
pub(crate) struct Demand {
    /// In milliseconds; 0 if tokens are acquired at start and never released.
    release_after: AtomicU64,
}

impl Demand {
    /// Sets how long a token is kept without use. `None`: tokens are acquired at start and kept. Returns whether this differs from
    /// before.
    pub(crate) fn set(&self, release_after: Option<Duration>) -> bool {
        let millis = release_after.map_or(0, |after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX).max(1));
        self.release_after.swap(millis, Ordering::Relaxed) != millis
    }

    pub(crate) fn release_after(&self) -> Option<Duration> {
        let millis = self.release_after.load(Ordering::Relaxed);
        (millis != 0).then(|| Duration::from_millis(millis))
    }
}

/// The state of an app registration, or of a credential without one.
#[derive(Debug, Default)]
pub(crate) struct AppState {
    demand: Arc<Demand>,
    /// Whether a token was ever obtained.
    obtained: AtomicBool,
    /// Whether the last outcome that says something about the app is that its operator must act, such as on a wrong secret.
    refused: AtomicBool,
    /// Whether all its tenants were tried, and each refused it for a reason of its own.
    refused_by_all_tenants: AtomicBool,
    expiries: Mutex<ProofExpiries>,
    /// The metadata of the files that prove the app, when Entra last accepted or refused it.
    judged_files: Mutex<Option<Box<[Option<Stamp>]>>>,
}

impl AppState {
    pub(crate) fn new(demand: Arc<Demand>) -> Self {
        Self { demand, ..Self::default() }
    }

    /// Returns how long a token is kept without use, or `None` if it is acquired at start and kept. Until the app has a first
    /// token, its tries continue, since the gateway is not ready before.
    pub(crate) fn release_after(&self) -> Option<Duration> {
        self.demand.release_after().filter(|_| self.obtained())
    }

    pub(crate) fn is_on_demand(&self) -> bool {
        self.demand.release_after().is_some()
    }

    pub(crate) fn succeeded(&self) {
        self.obtained.store(true, Ordering::Relaxed);
        self.refused.store(false, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.store(true, Ordering::Relaxed);
    }

    /// Records that a token request for which the app was refused before is now refused for a reason of its tenant.
    pub(crate) fn not_refused(&self) {
        self.refused.store(false, Ordering::Relaxed);
    }

    pub(crate) fn set_refused_by_all_tenants(&self, by_all: bool) {
        self.refused_by_all_tenants.store(by_all, Ordering::Relaxed);
    }

    pub(crate) fn is_refused_by_all_tenants(&self) -> bool {
        self.refused_by_all_tenants.load(Ordering::Relaxed)
    }

    /// Records the expiry of a file that was read.
    pub(crate) fn set_expiry(&self, not_after: NotAfter) {
        let mut expiries = self.expiries.lock().unwrap_or_else(PoisonError::into_inner);
        match not_after {
            NotAfter::Certificate(at) => expiries.certificate = Some(at),
            NotAfter::AssertionFile(at) => expiries.assertion_file = Some(at),
        }
    }

    pub(crate) fn expiries(&self) -> ProofExpiries {
        *self.expiries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the metadata of the files that prove the app, before they were read and Entra accepted or refused it.
    pub(crate) fn files_judged(&self, files: &[Option<Stamp>]) {
        let mut judged = self.judged_files.lock().unwrap_or_else(PoisonError::into_inner);
        if judged.as_deref() != Some(files) {
            *judged = Some(files.into());
        }
    }

    /// Returns whether Entra last accepted or refused the app with these files. `None` if it has done neither yet.
    pub(crate) fn are_judged(&self, files: &[Option<Stamp>]) -> Option<bool> {
        self.judged_files.lock().unwrap_or_else(PoisonError::into_inner).as_deref().map(|judged| judged == files)
    }

    pub(crate) fn obtained(&self) -> bool {
        self.obtained.load(Ordering::Relaxed)
    }

    pub(crate) fn is_refused(&self) -> bool {
        self.refused.load(Ordering::Relaxed)
    }
}

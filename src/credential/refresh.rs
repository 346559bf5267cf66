//! The refresh task of a cell: acquires a token, puts it in service, and sleeps until the next acquisition is due.
//!
//! It runs on the control runtime, records metrics and logs, and restarts after a panic.

use std::error::Error;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::acquire::{Acquire, Acquired};
use super::error::{CredentialError, in_one_line};
use super::file_watch::FileWatch;
use super::legs::{LegOutcome, Legs, NotAfter};
use super::schedule::ErrorClass;
use super::schedule::{self, UNEXPIRING_REFRESH};
use super::settings::CredentialName;
use super::state::{Failure, InService, Progress, TokenState};
use crate::metrics::{TokenErrorReason, TokenMetrics, TokenOutcome};

/// How long the task waits after a panic.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// The refresh task of a cell.
pub(crate) struct Refresher {
    state: Arc<TokenState>,
    progress: watch::Sender<Progress>,
    acquirer: Arc<dyn Acquire>,
    /// The credentials that share the cell. Each has its own metric series.
    names: Vec<CredentialName>,
    metrics: TokenMetrics,
    files: FileWatch,
    follow_always: bool,
    failures: u32,
    due: Instant,
    logged: Logged,
    /// The warnings about the files when they were last read.
    remarks: Vec<String>,
}

/// The state that was last logged, so that each is logged once.
#[derive(PartialEq, Eq)]
enum Logged {
    Nothing,
    InService,
    Failing { without_token: bool, reason: TokenErrorReason, codes: Vec<u32> },
}

impl Refresher {
    /// Makes the task. It starts with [`Refresher::run`].
    pub(crate) fn new(
        state: Arc<TokenState>,
        progress: watch::Sender<Progress>,
        acquirer: Arc<dyn Acquire>,
        names: Vec<CredentialName>,
        metrics: TokenMetrics,
    ) -> Self {
        let files = acquirer.files();
        Self {
            state,
            progress,
            acquirer,
            names,
            metrics,
            files: FileWatch::new(files.paths),
            follow_always: files.always,
            failures: 0,
            due: Instant::now(),
            logged: Logged::Nothing,
            remarks: Vec::new(),
        }
    }

    /// Sets the gauges of the token in service, if there is one. [`Refresher::new`] does not, so that a refused reload changes no
    /// metric.
    pub(crate) fn set_gauges(&self) {
        let in_service = self.state.dates();
        self.names.iter().for_each(|name| self.metrics.in_service(name.as_str(), in_service));
    }

    /// Runs until it is aborted.
    pub(crate) async fn run(mut self: Box<Self>) {
        loop {
            // Without a restart, the credential would fail when its token expires, with nothing in the log.
            let ended = AssertUnwindSafe(self.keep_fresh()).catch_unwind().await;
            if ended.is_err() {
                tracing::error!(credential = self.label(), "the refresh task panicked and restarts");
                self.progress.send_modify(|progress| progress.ended = progress.begun);
                sleep(AFTER_PANIC).await;
            }
        }
    }

    async fn keep_fresh(&mut self) {
        loop {
            self.acquire().await;
            self.wait_until_due().await;
        }
    }

    /// Sleeps until the next acquisition is due or requested, or a file changed.
    async fn wait_until_due(&mut self) {
        let follow = self.follow_always || self.failures > 0;
        loop {
            tokio::select! {
                () = sleep_until(self.due) => return,
                () = self.state.wake.notified() => {
                    if self.state.needs_acquisition(&self.progress.borrow()) {
                        return;
                    }
                }
                () = self.files.changed(), if follow => {
                    self.failures = 0;
                    return;
                }
            }
        }
    }

    /// Makes one acquisition and publishes its outcome.
    async fn acquire(&mut self) {
        self.files.remember().await;
        self.progress.send_modify(|progress| progress.begun += 1);
        let legs = Legs::default();
        let outcome = AssertUnwindSafe(self.acquirer.acquire(&legs)).catch_unwind().await;
        let outcome =
            outcome.unwrap_or(Err(CredentialError::Panicked)).and_then(|acquired| self.put_in_service(acquired));
        let failures_counted = self.count_legs(&legs);
        self.log_remarks(&legs);
        match outcome {
            Ok(()) => self.succeeded(),
            Err(err) => {
                if failures_counted == 0 {
                    self.names.iter().for_each(|name| self.metrics.request_failed(name.as_str(), err.reason()));
                }
                self.failed(err);
            }
        }
    }

    fn put_in_service(&mut self, acquired: Acquired) -> Result<(), CredentialError> {
        let due = acquired.lifetime.map_or_else(
            || Instant::now() + UNEXPIRING_REFRESH,
            |lifetime| lifetime.starts + schedule::refresh_after(lifetime.duration, lifetime.refresh_in, jitter()),
        );
        let next = InService::new(acquired).ok_or(CredentialError::NoLifeLeft)?;
        for name in &self.names {
            self.metrics.in_service(name.as_str(), Some((next.obtained_at, next.expires_at)));
        }
        self.state.put_in_service(next);
        self.due = due;
        Ok(())
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        let fingerprint = self.state.fingerprint().map(tracing::field::display);
        let next_in_secs = self.due.saturating_duration_since(Instant::now()).as_secs();
        if self.logged == Logged::InService {
            tracing::debug!(credential = self.label(), fingerprint, next_in_secs, "token refreshed");
        } else {
            tracing::info!(credential = self.label(), fingerprint, next_in_secs, "token in service");
            self.logged = Logged::InService;
        }
        self.progress.send_modify(|progress| {
            progress.ended = progress.begun;
            progress.failure = None;
            progress.last_success = Some(SystemTime::now());
        });
    }

    fn failed(&mut self, err: CredentialError) {
        self.failures = self.failures.saturating_add(1);
        let wait = schedule::back_off(err.class(), self.failures, err.retry_after(), jitter());
        self.due = Instant::now() + wait;
        self.log_failure_once(&err, wait);
        let failure = Failure { cause: Arc::new(err), next: self.due };
        self.progress.send_modify(|progress| {
            progress.ended = progress.begun;
            progress.failure = Some(failure);
        });
    }

    /// Logs each warning about the files once, until it changes.
    fn log_remarks(&mut self, legs: &Legs) {
        let remarks = legs.take_remarks();
        for remark in remarks.iter().filter(|remark| !self.remarks.contains(remark)) {
            tracing::warn!(credential = self.label(), remark, "a secret, key or token file needs attention");
        }
        self.remarks = remarks;
    }

    fn log_failure_once(&mut self, err: &CredentialError, wait: Duration) {
        let without_token = !self.state.valid();
        let now = Logged::Failing { without_token, reason: err.reason(), codes: err.codes().to_vec() };
        if self.logged == now {
            return;
        }
        self.logged = now;
        let error = in_one_line(err as &(dyn Error + 'static));
        let (credential, retry_in_secs) = (self.label(), wait.as_secs());
        if without_token {
            tracing::error!(credential, retry_in_secs, error, "no valid token: calls that need it get 503");
        } else {
            tracing::warn!(credential, retry_in_secs, error, "token not refreshed: the current one stays in service");
        }
    }

    /// Records the legs in the metrics and returns how many failed.
    fn count_legs(&self, legs: &Legs) -> usize {
        let mut failures = 0;
        for leg in legs.take() {
            failures += usize::from(matches!(leg.outcome, LegOutcome::Failed { .. }));
            let outcome = match leg.outcome {
                LegOutcome::Token { .. } => TokenOutcome::Ok,
                LegOutcome::Failed { class: ErrorClass::Transient, .. } => TokenOutcome::Transient,
                LegOutcome::Failed { class: ErrorClass::Propagation | ErrorClass::Permanent, .. } => {
                    TokenOutcome::Permanent
                }
            };
            for name in &self.names {
                if leg.endpoint.is_some() {
                    self.metrics.request_ended(name.as_str(), leg.stage, outcome, leg.took);
                }
                if let LegOutcome::Failed { reason, .. } = leg.outcome {
                    self.metrics.request_failed(name.as_str(), reason);
                }
                match leg.not_after {
                    Some(NotAfter::Certificate(at)) => self.metrics.certificate_expires(name.as_str(), at),
                    Some(NotAfter::AssertionFile(at)) => self.metrics.assertion_file_expires(name.as_str(), at),
                    None => {}
                }
            }
        }
        failures
    }

    fn label(&self) -> String {
        let names: Vec<&str> = self.names.iter().map(CredentialName::as_str).collect();
        names.join(", ")
    }
}

fn jitter() -> f64 {
    2.0 * fastrand::f64() - 1.0
}

//! The refresh task of a cell: acquires a token, puts it in service, and sleeps until the next acquisition is due.
//!
//! The task runs on the control runtime, records metrics, logs, and restarts after a panic.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use futures_util::FutureExt as _;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::acquire::{Acquire, Acquired, FileContent};
use super::app_state::AppState;
use super::error::{CredentialError, RefusedParty};
use super::failure_line;
use super::file_watch::{FileChecks, FileWatch};
use super::record::{AcquisitionRecord, AcquisitionStep, FailedAcquisition, StepOutcome};
use super::schedule::ErrorClass;
use super::schedule::{self, UNEXPIRING_REFRESH};
use super::settings::CredentialId;
use super::state::{CurrentToken, Failure, Progress, TokenState};
use crate::metrics::{Acquisition, TokenErrorReason, TokenMetrics, TokenOutcome};
use crate::runbook::{Condition, Section};

/// The pause of the task after a panic.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// The refresh task of a cell.
pub(crate) struct Refresher {
    state: Arc<TokenState>,
    progress: watch::Sender<Progress>,
    acquirer: Arc<dyn Acquire>,
    app: Arc<AppState>,
    metrics: TokenMetrics,
    files: FileWatch,
    content: FileContent,
    /// Whether the last acquisition was requested because a file of the app changed.
    is_requested: bool,
    /// Whether the app was refused at the last acquisition that says whether it is.
    refused_app: bool,
    failures: u32,
    due: Instant,
    last_used: Instant,
    logged: LoggedState,
    /// The warnings of the last acquisition.
    warnings: Vec<String>,
}

/// The state that was logged last, so that an unchanged state is logged once.
#[derive(PartialEq, Eq)]
enum LoggedState {
    Nothing,
    InService,
    Failing { without_token: bool, reason: TokenErrorReason, codes: Vec<u32> },
}

impl Refresher {
    /// Creates the task. [`Refresher::run`] runs it.
    pub(crate) fn new(
        state: Arc<TokenState>,
        progress: watch::Sender<Progress>,
        acquirer: Arc<dyn Acquire>,
        app: Arc<AppState>,
        metrics: TokenMetrics,
        checks: &FileChecks,
    ) -> Self {
        let files = acquirer.watched_files();
        Self {
            state,
            progress,
            acquirer,
            app,
            metrics,
            files: checks.watch(files.paths),
            content: files.content,
            is_requested: false,
            refused_app: false,
            failures: 0,
            due: Instant::now(),
            last_used: Instant::now(),
            logged: LoggedState::Nothing,
            warnings: Vec::new(),
        }
    }

    /// Runs until the token has not been used for so long that it may be released. The owner must then call
    /// [`Refresher::release`].
    pub(crate) async fn run(&mut self) {
        self.state.withdraw_release();
        self.last_used = Instant::now();
        self.due = self.last_used;
        loop {
            // Without a restart, the token would expire, and no log line would say why.
            let ended = AssertUnwindSafe(self.refresh_while_used()).catch_unwind().await;
            if ended.is_ok() {
                return;
            }
            let section = Section::Condition(Condition::WorkerFailed);
            tracing::error!(credential = self.joined_names(), side = "gateway", remedy = section.remedy(), runbook = %section, "the refresh task panicked and restarts");
            self.progress.send_modify(|progress| progress.ended = progress.begun);
            sleep(AFTER_PANIC).await;
        }
    }

    /// Drops the token and forgets what happened to it, unless a caller has used it meanwhile. Returns whether it did. Callers that
    /// start the task must be locked out.
    pub(crate) fn release(&mut self) -> bool {
        if !self.is_unused() {
            return false;
        }
        self.state.release();
        self.failures = 0;
        self.logged = LoggedState::Nothing;
        self.warnings = Vec::new();
        self.progress.send_modify(|progress| {
            let Progress { begun, ended, .. } = *progress;
            *progress = Progress { begun, ended, ..Progress::default() };
        });
        tracing::debug!(credential = self.joined_names(), "unused token released");
        true
    }

    /// Returns whether the token is released: no caller has used it for long enough, or since its release was requested.
    fn is_unused(&mut self) -> bool {
        if self.state.take_used() {
            self.state.withdraw_release();
            self.last_used = Instant::now();
        }
        if self.state.is_release_requested() {
            return true;
        }
        self.app.release_after().is_some_and(|after| self.last_used.elapsed() >= after)
    }

    async fn refresh_while_used(&mut self) {
        while !self.is_unused() {
            self.acquire().await;
            self.wait_until_due().await;
        }
    }

    /// Sleeps until the next acquisition is due or requested, until a file changes, or until the token has not been used for so
    /// long that it is released.
    async fn wait_until_due(&mut self) {
        let watch_files = self.content == FileContent::Token || self.failures > 0;
        loop {
            if self.is_unused() {
                return;
            }
            // Use is noticed at a look, so a token is kept for up to a quarter longer.
            let look = self.app.release_after().map(|after| (Instant::now() + after / 4).min(self.last_used + after));
            let next = look.map_or(self.due, |look| look.min(self.due));
            tokio::select! {
                () = sleep_until(next) => {
                    if next == self.due {
                        return;
                    }
                }
                () = self.state.wake.notified() => {
                    if self.state.needs_acquisition(&self.progress.borrow()) {
                        return;
                    }
                }
                () = self.files.changed(), if watch_files => {
                    self.failures = 0;
                    return;
                }
            }
        }
    }

    /// Makes one acquisition and publishes its outcome.
    async fn acquire(&mut self) {
        // Before the files are read.
        self.is_requested = self.state.take_renewal_request();
        self.files.update().await;
        self.progress.send_modify(|progress| progress.begun += 1);
        tracing::debug!(credential = self.joined_names(), failures = self.failures, "token requested");
        let (record, began) = (AcquisitionRecord::default(), Instant::now());
        let outcome = AssertUnwindSafe(self.acquirer.acquire(&record)).catch_unwind().await;
        let outcome =
            outcome.unwrap_or(Err(CredentialError::Panicked)).and_then(|acquired| self.put_in_service(acquired));
        self.metrics.acquisition_ended(&Acquisition {
            credential: &self.joined_names(),
            took: began.elapsed(),
            reason: outcome.as_ref().err().map(CredentialError::reason),
        });
        let steps = record.take_steps();
        let failures_counted = self.record_metrics(&steps);
        self.log_warnings(&record);
        match outcome {
            Ok(()) => self.succeeded(),
            Err(err) => {
                if failures_counted == 0 {
                    self.state.ids().iter().for_each(|id| self.metrics.request_failed(id.name.as_str(), err.reason()));
                }
                self.failed(err, steps);
            }
        }
    }

    fn put_in_service(&mut self, acquired: Acquired) -> Result<(), CredentialError> {
        let due = acquired.lifetime.map_or_else(
            || Instant::now() + UNEXPIRING_REFRESH,
            |lifetime| lifetime.starts + schedule::refresh_after(lifetime.duration, lifetime.refresh_in, jitter()),
        );
        let next = CurrentToken::new(acquired).ok_or(CredentialError::ExpiredOnArrival)?;
        self.state.put_in_service(next);
        self.due = due;
        Ok(())
    }

    fn succeeded(&mut self) {
        self.failures = 0;
        self.refused_app = false;
        self.app.succeeded();
        self.files_were_judged();
        let fingerprint = self.state.fingerprint().map(tracing::field::display);
        let next_in_secs = self.due.saturating_duration_since(Instant::now()).as_secs();
        if self.logged == LoggedState::InService {
            let credential = self.joined_names();
            if self.is_requested {
                tracing::info!(
                    credential,
                    fingerprint,
                    next_in_secs,
                    "token in service, obtained with the changed files"
                );
            } else {
                tracing::debug!(credential, fingerprint, next_in_secs, "token refreshed");
            }
        } else {
            tracing::info!(credential = self.joined_names(), fingerprint, next_in_secs, "token in service");
            self.logged = LoggedState::InService;
        }
        self.progress.send_modify(|progress| {
            progress.ended = progress.begun;
            let now = SystemTime::now();
            progress.next_at = now.checked_add(self.due.saturating_duration_since(Instant::now()));
            if progress.failures > 0 || progress.last_success.is_none() {
                progress.changed = Some(now);
            }
            progress.failures = 0;
            progress.last_success = Some(now);
        });
    }

    fn failed(&mut self, err: CredentialError, steps: Vec<AcquisitionStep>) {
        self.failures = self.failures.saturating_add(1);
        match err.refused_party() {
            Some(RefusedParty::App) => {
                self.refused_app = true;
                self.app.refused();
                self.files_were_judged();
            }
            Some(RefusedParty::Tenant) if std::mem::take(&mut self.refused_app) => self.app.not_refused(),
            Some(RefusedParty::Tenant) | None => {}
        }
        let wait = schedule::back_off(err.class(), self.failures, err.retry_after(), jitter());
        self.due = Instant::now() + wait;
        let at = SystemTime::now();
        self.log_failure_once(&err, &steps, at, wait);
        let failure =
            Failure { failed: Arc::new(FailedAcquisition { at, cause: Arc::new(err), steps }), retry_at: self.due };
        self.progress.send_modify(|progress| {
            progress.ended = progress.begun;
            progress.next_at = at.checked_add(wait);
            if progress.failures == 0 {
                progress.changed = Some(at);
            }
            progress.failures = progress.failures.saturating_add(1);
            progress.last_failure = Some(failure);
        });
    }

    /// Records that the acquisition shows whether the files prove the app.
    fn files_were_judged(&self) {
        if let Some(files) = self.files.recorded().filter(|_| self.content == FileContent::Proof) {
            self.app.files_judged(files);
        }
    }

    /// Logs the warnings that the previous acquisition did not have.
    fn log_warnings(&mut self, record: &AcquisitionRecord) {
        let (warnings, file) = (record.take_warnings(), Section::Condition(Condition::CredentialFile));
        for warning in warnings.iter().filter(|warning| !self.warnings.contains(warning)) {
            tracing::warn!(
                credential = self.joined_names(),
                remark = warning,
                remedy = file.remedy(),
                runbook = %file,
                "a secret, key or token file needs attention"
            );
        }
        self.warnings = warnings;
    }

    fn log_failure_once(&mut self, err: &CredentialError, steps: &[AcquisitionStep], at: SystemTime, wait: Duration) {
        let without_token = !self.state.has_valid_token();
        let now = LoggedState::Failing { without_token, reason: err.reason(), codes: err.codes().to_vec() };
        let (credential, error, retry_in_secs) = (self.joined_names(), failure_line::cause(err), wait.as_secs());
        if self.logged == now {
            tracing::debug!(credential, retry_in_secs, error, "token request failed again");
            return;
        }
        self.logged = now;
        let (section, who_acts, app) = (Section::Token(err.reason()), err.who_acts(), self.acquirer.app());
        let time = humantime::format_rfc3339_seconds;
        let retry_at = at.checked_add(wait).map(|at| time(at).to_string());
        let token_expires =
            self.state.current().as_ref().and_then(|token| token.expires_at).map(|at| time(at).to_string());
        let (proof, clocks) = (failure_line::proof(app, steps), failure_line::clocks(err, at));
        macro_rules! line {
            ($level:expr, $message:literal) => {
                tracing::event!(
                    $level,
                    credential,
                    client_id = app.map(|app| app.client_id.as_str()),
                    proof,
                    assertion = failure_line::assertion_times(err, steps),
                    clocks,
                    token_expires,
                    retry_in_secs,
                    retry_at,
                    error,
                    side = "credential",
                    %who_acts,
                    remedy = &*failure_line::what_to_do(err, app, at),
                    runbook = %section,
                    $message
                )
            };
        }
        if without_token {
            line!(tracing::Level::ERROR, "no valid token: calls that need it get 503");
        } else {
            line!(tracing::Level::WARN, "token not refreshed: the current one stays in service");
        }
    }

    /// Records the steps in the metrics. Returns how many failed.
    fn record_metrics(&self, steps: &[AcquisitionStep]) -> usize {
        let (mut failures, ids) = (0, self.state.ids());
        for step in steps {
            failures += usize::from(matches!(step.outcome, StepOutcome::Failed { .. }));
            if let Some(not_after) = step.not_after {
                self.app.set_expiry(not_after);
            }
            let took_ms = step.took.as_millis();
            tracing::debug!(
                credential = self.joined_names(),
                stage = step.stage.label(),
                took_ms,
                failed = matches!(step.outcome, StepOutcome::Failed { .. }),
                "token step ended"
            );
            let outcome = match step.outcome {
                StepOutcome::Token { .. } => TokenOutcome::Ok,
                StepOutcome::Failed { class: ErrorClass::Transient, .. } => TokenOutcome::Transient,
                StepOutcome::Failed { class: ErrorClass::Propagation | ErrorClass::Permanent, .. } => {
                    TokenOutcome::Permanent
                }
            };
            for CredentialId { name, .. } in ids.iter() {
                if step.endpoint.is_some() {
                    self.metrics.request_ended(name.as_str(), step.stage, outcome, step.took);
                }
                if let StepOutcome::Failed { reason, .. } = step.outcome {
                    self.metrics.request_failed(name.as_str(), reason);
                }
            }
        }
        failures
    }

    fn joined_names(&self) -> String {
        let names: Vec<String> = self.state.ids().iter().map(CredentialId::to_string).collect();
        names.join(", ")
    }
}

fn jitter() -> f64 {
    2.0 * fastrand::f64() - 1.0
}

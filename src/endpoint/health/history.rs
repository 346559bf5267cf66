//! What happened to an endpoint, for people: what `/status` shows and the log reports. Written only when something fails or changes,
//! and by probes.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::super::failure::{EndpointFailure, FailureCause, FailureKind};
use super::super::settings::EndpointSettings;
use super::line::EndpointLine;
use crate::credential::Claims;
use crate::runbook::{EndpointRefusal, Section};

/// The time in which only the first of several failures of the same kind is kept: while an endpoint is down, every call fails.
const SAME_FAILURE: Duration = Duration::from_millis(100);

/// The shortest time between two log lines about refusals of the token.
const SAME_REFUSAL: Duration = Duration::from_secs(60);

/// What it means that an endpoint answers `access_key` with 403, for the log and `/status`.
const REFUSES_ACCESS_KEY: &str = "the endpoint refuses access_key: no role of the gateway's app on the resource allows it; \
    assign SignalR App Server or SignalR Service Owner (SignalR REST API Owner does not suffice)";

/// What happened to an endpoint, as a copy.
#[derive(Clone, Debug)]
pub struct History {
    /// Since when its circuit is open or closed.
    pub circuit_since: SystemTime,
    /// Since when it refuses the token of calls, if it does.
    pub refuses_token_since: Option<SystemTime>,
    /// Since when it refuses `access_key` for want of a role, if it does.
    pub refuses_access_key_since: Option<SystemTime>,
    /// The last failure of a call or a probe, even if later ones succeeded.
    pub last_failure: Option<Arc<EndpointFailure>>,
    /// The last probe.
    pub last_probe: Option<ProbeRecord>,
}

/// The result of a probe.
#[derive(Clone, Copy, Debug)]
pub struct ProbeRecord {
    /// When it ended.
    pub at: SystemTime,
    /// Whether the endpoint responded without a server error.
    pub ok: bool,
    /// How long it took.
    pub took: Duration,
}

/// The history of an endpoint.
pub struct EndpointHistory {
    endpoint: Arc<EndpointSettings>,
    /// Whether the endpoint's last response to `access_key` was 403.
    refuses_access_key: AtomicBool,
    /// Whether the endpoint refused the token of the last call (401 or 403).
    refuses_token: AtomicBool,
    kept: Mutex<Kept>,
}

struct Kept {
    history: History,
    /// When a refusal of the token was last logged.
    refusal_logged: Option<Instant>,
    /// When the first of the failures occurred that no success has followed.
    failing_since: Option<SystemTime>,
}

impl EndpointHistory {
    pub(super) fn new(endpoint: Arc<EndpointSettings>) -> Self {
        let history = History {
            circuit_since: SystemTime::now(),
            refuses_token_since: None,
            refuses_access_key_since: None,
            last_failure: None,
            last_probe: None,
        };
        Self {
            endpoint,
            refuses_access_key: AtomicBool::new(false),
            refuses_token: AtomicBool::new(false),
            kept: Mutex::new(Kept { history, refusal_logged: None, failing_since: None }),
        }
    }

    /// Returns the name of the endpoint.
    pub(super) fn endpoint(&self) -> &str {
        self.endpoint.name.as_str()
    }

    /// Returns a copy.
    pub fn get(&self) -> History {
        self.lock().history.clone()
    }

    /// Records whether the endpoint refused `access_key` for want of a role. The first refusal is logged.
    #[cold]
    pub fn set_refuses_access_key(&self, refuses: bool) {
        if self.refuses_access_key.swap(refuses, Ordering::Relaxed) == refuses {
            return;
        }
        self.lock().history.refuses_access_key_since = refuses.then(SystemTime::now);
        if refuses {
            let section = Section::Refusal(EndpointRefusal::Forbidden);
            tracing::warn!(endpoint = self.endpoint(), side = "endpoint", remedy = section.remedy_at(self.endpoint()), runbook = %section, "{REFUSES_ACCESS_KEY}");
        }
    }

    /// Keeps why a call failed. The permit of the call reports what the failure means for the health.
    #[cold]
    pub fn note_failure(&self, kind: FailureKind, cause: impl FnOnce() -> FailureCause) {
        let at = SystemTime::now();
        let history = &mut self.lock().history;
        let is_known = history.last_failure.as_ref().is_some_and(|last| {
            last.cause.kind() == kind && at.duration_since(last.at).is_ok_and(|since| since < SAME_FAILURE)
        });
        if !is_known {
            history.last_failure = Some(Arc::new(EndpointFailure { at, cause: cause() }));
        }
    }

    /// Records that the endpoint refused the token of a call with these claims, and why. It does until it accepts one.
    #[cold]
    pub fn note_refused_token(
        &self,
        kind: FailureKind,
        cause: impl FnOnce() -> FailureCause,
        claims: impl FnOnce() -> Option<Claims>,
    ) {
        self.note_failure(kind, cause);
        if self.refuses_token.swap(true, Ordering::Relaxed) {
            return;
        }
        let last = {
            let mut kept = self.lock();
            kept.history.refuses_token_since = Some(SystemTime::now());
            // A role may allow some calls alone, so that the state changes with each call.
            if kept.refusal_logged.is_some_and(|logged| logged.elapsed() < SAME_REFUSAL) {
                return;
            }
            kept.refusal_logged = Some(Instant::now());
            kept.history.last_failure.clone()
        };
        let line = EndpointLine::of(&self.endpoint, last.as_ref().map(|last| &last.cause));
        let line = line.with_token(claims().as_ref());
        tracing::warn!(
            endpoint = self.endpoint(),
            address = line.address,
            credential = %self.endpoint.credential,
            object_id = line.object_id,
            tenant = line.tenant,
            callers_get = line.callers_get,
            error.cause = line.cause,
            side = "endpoint",
            remedy = line.remedy,
            runbook = %line.section,
            "the endpoint refuses the token: its calls fail until the cause is repaired"
        );
    }

    /// Records that the endpoint accepted the token of a call.
    #[cold]
    pub(super) fn accepts_token(&self) {
        if self.refuses_token.swap(false, Ordering::Relaxed) {
            self.lock().history.refuses_token_since = None;
            tracing::debug!(endpoint = self.endpoint(), "the endpoint accepts the token again");
        }
    }

    /// Returns whether the endpoint refused the token of the last call.
    pub fn refuses_token(&self) -> bool {
        self.refuses_token.load(Ordering::Relaxed)
    }

    /// Returns what the operator should know about an endpoint that serves calls.
    pub fn note(&self) -> Option<&'static str> {
        self.refuses_access_key.load(Ordering::Relaxed).then_some(REFUSES_ACCESS_KEY)
    }

    pub(super) fn add_probe(&self, probe: ProbeRecord) {
        self.lock().history.last_probe = Some(probe);
    }

    /// Records a failure that follows a success.
    #[cold]
    pub(super) fn begins_to_fail(&self) {
        self.lock().failing_since = Some(SystemTime::now());
    }

    /// Records that the circuit opened now, and logs why. The failures are those of so many calls in the window.
    #[cold]
    pub(super) fn circuit_opened(&self, (failures, calls): (u64, u64), pause: Duration) {
        let (last, since) = {
            let mut kept = self.lock();
            kept.history.circuit_since = SystemTime::now();
            (kept.history.last_failure.clone(), kept.failing_since)
        };
        let cause = last.as_ref().map(|last| &last.cause);
        let line = EndpointLine::of(&self.endpoint, cause);
        tracing::warn!(
            endpoint = self.endpoint(),
            address = line.address,
            since = since.map(|since| humantime::format_rfc3339_seconds(since).to_string()),
            failures,
            calls,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            callers_get = line.callers_get,
            error.kind = cause.map(|cause| cause.kind().label()),
            error.cause = line.cause,
            side = "endpoint",
            remedy = line.remedy.map(|remedy| format!("{remedy}; once that is repaired, the circuit closes by itself")),
            runbook = %line.section,
            "the endpoint's circuit is open: until it recovers, calls go to another endpoint of their route or fail"
        );
    }

    /// Records that the circuit closed now.
    pub(super) fn circuit_closed(&self) {
        self.lock().history.circuit_since = SystemTime::now();
        tracing::info!(endpoint = self.endpoint(), "the endpoint's circuit is closed: the endpoint has recovered");
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

//! The health of an endpoint: a circuit breaker over the share of failed calls, and the cool-downs after the endpoint throttles
//! calls or reports that it is unavailable.
//!
//! All workers share the health and read it for every request. A successful call only increments a counter on a cache line of
//! its worker.

mod history;
mod line;
mod settings;
mod window;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use super::failure::FailureCause;
use super::settings::EndpointSettings;
use crate::metrics::{BreakerState, EndpointState};
pub use history::{EndpointHistory, History, ProbeRecord};
pub use settings::{CallClass, FailureRatio, HealthSettings};
use window::{Counts, Window};

/// The maximum time for which a circuit stays open before a trial. Chosen: recovery is detected within a minute.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// The factor by which the probe interval is shorter while the circuit is open.
pub(super) const OPEN_CIRCUIT_FACTOR: u32 = 6;
/// The maximum cool-down that an endpoint can request.
const MAX_COOL_DOWN: Duration = Duration::from_secs(300);

/// The health of one endpoint.
pub struct Health {
    settings: HealthSettings,
    /// The origin of the times in milliseconds.
    epoch: Instant,
    /// Milliseconds after `epoch` at which the open circuit permits a trial; 0 while it is closed.
    open_until: AtomicU64,
    /// Milliseconds after `epoch` at which the cool-down of each class ends; 0 if there is none.
    cools_until: [AtomicU64; CallClass::COUNT],
    /// The number of consecutive failures.
    failures: AtomicU32,
    /// Whether the endpoint was reached but failed a call since the last success. If so, a successful probe does not close the
    /// circuit, since a probe exercises less than a call.
    failed_since_success: AtomicBool,
    /// The number of times that the circuit has opened since it was last closed.
    trips: AtomicU32,
    /// Whether a trial call is in flight.
    trial_in_flight: AtomicBool,
    /// The result of the last probe: [`UP`], [`DOWN`], or 0 before the first one.
    last_probe: AtomicU8,
    /// Seconds after `epoch` of the last call, plus one; 0 before the first. Workers write it once a second at most.
    used: AtomicU32,
    window: Window,
    history: EndpointHistory,
}

const UP: u8 = 1;
const DOWN: u8 = 2;

/// Permission to call an endpoint. The holder reports the result of the call; dropping it reports nothing. It borrows the health,
/// since all workers would contend for a reference count.
#[derive(Debug)]
pub struct Permit<'a> {
    health: &'a Health,
    class: CallClass,
    /// Whether this is the trial call of an open circuit.
    is_trial: bool,
}

impl Health {
    /// Creates the health of a new endpoint.
    pub fn new(endpoint: &Arc<EndpointSettings>) -> Arc<Self> {
        let settings = endpoint.health;
        Arc::new(Self {
            settings,
            epoch: Instant::now(),
            open_until: AtomicU64::new(0),
            cools_until: Default::default(),
            failures: AtomicU32::new(0),
            failed_since_success: AtomicBool::new(false),
            trips: AtomicU32::new(0),
            trial_in_flight: AtomicBool::new(false),
            last_probe: AtomicU8::new(0),
            used: AtomicU32::new(0),
            window: Window::new(settings.window),
            history: EndpointHistory::new(Arc::clone(endpoint)),
        })
    }

    /// Returns what happened to the endpoint.
    pub fn history(&self) -> &EndpointHistory {
        &self.history
    }

    /// Returns the state for metrics.
    pub fn state(&self) -> EndpointState {
        let is_trying = self.trial_in_flight.load(Ordering::Relaxed);
        EndpointState {
            breaker: match (self.is_closed(), is_trying) {
                (true, _) => BreakerState::Closed,
                (false, true) => BreakerState::HalfOpen,
                (false, false) => BreakerState::Open,
            },
            up: match self.last_probe.load(Ordering::Relaxed) {
                UP => Some(true),
                DOWN => Some(false),
                _ => None,
            },
            cool_down: self.longest_cool_down().map(|left| SystemTime::now() + left),
        }
    }

    /// Returns the time that is left of the longest cool-down.
    fn longest_cool_down(&self) -> Option<Duration> {
        let longest = self.cools_until.iter().map(|until| until.load(Ordering::Relaxed)).max().filter(|at| *at != 0)?;
        Some(Duration::from_millis(longest.saturating_sub(self.now()))).filter(|left| !left.is_zero())
    }

    /// Permits a call of a class, unless the class is in a cool-down or the circuit is open. An open circuit permits one trial
    /// call at a time after its pause.
    pub fn try_acquire(&self, class: CallClass) -> Option<Permit<'_>> {
        let open_until = self.open_until.load(Ordering::Relaxed);
        if open_until == 0 && self.cools_until(class) == 0 {
            return Some(self.permit(class, false));
        }
        self.try_acquire_slow(class, open_until)
    }

    #[cold]
    fn try_acquire_slow(&self, class: CallClass, open_until: u64) -> Option<Permit<'_>> {
        let now = self.now();
        if now < self.cools_until(class) || now < open_until {
            return None;
        }
        self.end_cool_down(class);
        if open_until == 0 {
            return Some(self.permit(class, false));
        }
        // One trial at a time: the other calls are sent to other endpoints until it ends.
        let is_first = self.trial_in_flight.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        is_first.then(|| self.permit(class, true))
    }

    /// Permits a call regardless of the health, for calls without another endpoint.
    pub fn acquire_anyway(&self, class: CallClass) -> Permit<'_> {
        self.permit(class, false)
    }

    /// Returns whether the circuit is closed.
    pub fn is_closed(&self) -> bool {
        self.open_until.load(Ordering::Relaxed) == 0
    }

    /// Returns whether the circuit is closed and the class is not in a cool-down.
    pub fn accepts_calls(&self, class: CallClass) -> bool {
        self.is_closed() && self.now() >= self.cools_until(class)
    }

    /// Returns whether a successful probe closes the circuit. If the endpoint was reached and failed calls, only a call does.
    pub fn closes_by_probe(&self) -> bool {
        !self.failed_since_success.load(Ordering::Relaxed)
    }

    /// Returns the interval of probes while the circuit is open, without jitter.
    pub fn probe_interval(&self) -> Duration {
        self.settings.probe_interval / OPEN_CIRCUIT_FACTOR
    }

    /// Returns when the open circuit permits a trial call.
    pub fn trial_at(&self) -> SystemTime {
        let left = self.open_until.load(Ordering::Relaxed).saturating_sub(self.now());
        SystemTime::now() + Duration::from_millis(left)
    }

    /// Returns the time until a call of a class may be tried.
    pub fn time_until_trial(&self, class: CallClass) -> Duration {
        let until = self.open_until.load(Ordering::Relaxed).max(self.cools_until(class));
        Duration::from_millis(until.saturating_sub(self.now()))
    }

    /// Records the result of a health probe. A success closes the circuit if the endpoint was unreachable. If the endpoint failed
    /// calls, only a successful call closes it.
    pub fn record_probe(&self, result: Result<(), FailureCause>, took: Duration) {
        let ok = result.is_ok();
        self.history.add_probe(ProbeRecord { at: SystemTime::now(), ok, took });
        if let Err(cause) = result {
            self.history.note_failure(cause.kind(), || cause);
        }
        self.last_probe.store(if ok { UP } else { DOWN }, Ordering::Relaxed);
        match ok {
            true if self.failed_since_success.load(Ordering::Relaxed) => {}
            true => self.recovered(),
            false => self.failed(false, self.now()),
        }
    }

    /// Returns whether a call used the endpoint within this time, rounded up to seconds.
    pub(super) fn was_used_within(&self, time: Duration) -> bool {
        let used = self.used.load(Ordering::Relaxed);
        let ago = u64::from(seconds(self.now()).saturating_sub(used));
        used != 0 && ago <= time.as_secs().saturating_add(1)
    }

    /// Records that a call used the endpoint.
    fn set_used(&self, now: u64) {
        let now = seconds(now);
        if self.used.load(Ordering::Relaxed) != now {
            self.used.store(now, Ordering::Relaxed);
        }
    }

    fn permit(&self, class: CallClass, is_trial: bool) -> Permit<'_> {
        Permit { health: self, class, is_trial }
    }

    fn responded(&self, now: u64) {
        self.window.succeeded(now);
        self.recovered();
    }

    /// Resets the number of consecutive failures and closes the circuit.
    fn recovered(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.failed_since_success.store(false, Ordering::Relaxed);
        }
        if self.open_until.load(Ordering::Relaxed) != 0 {
            self.close();
        }
    }

    #[cold]
    fn close(&self) {
        if self.open_until.swap(0, Ordering::Relaxed) == 0 {
            return;
        }
        self.trips.store(0, Ordering::Relaxed);
        // Earlier failures do not count against a recovered endpoint.
        self.window.clear();
        self.history.circuit_closed();
    }

    fn failed(&self, is_trial: bool, now: u64) {
        let in_a_row = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if in_a_row == 1 {
            self.history.begins_to_fail();
        }
        self.window.failed(now);
        let open_until = self.open_until.load(Ordering::Relaxed);
        let was_open = open_until != 0;
        let counts = self.window.counts(now);
        // While the circuit is open, only the trial counts. Probes and calls that were in flight when it opened would postpone the
        // next trial indefinitely.
        let decides = if was_open { is_trial } else { self.fails_too_often(in_a_row, counts) };
        if !decides {
            return;
        }
        let trips = self.trips.load(Ordering::Relaxed);
        let pause = self.settings.pause.saturating_mul(1 << trips.min(8)).min(MAX_PAUSE);
        let until = now.saturating_add(millis(pause)).max(1);
        // Of several concurrent failures, one opens the circuit.
        if self.open_until.compare_exchange(open_until, until, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        self.trips.fetch_add(1, Ordering::Relaxed);
        if !was_open {
            self.history.circuit_opened((counts.failures, counts.failures + counts.successes), pause);
        }
    }

    /// Returns whether the failures open the circuit. Consecutive failures count even if they are older than the window, for
    /// endpoints with so few calls that no window has enough of them.
    fn fails_too_often(&self, in_a_row: u32, counts: Counts) -> bool {
        let failures = counts.failures.max(u64::from(in_a_row));
        failures >= u64::from(self.settings.failures) && self.settings.failure_ratio.is_reached(counts)
    }

    fn cools_until(&self, class: CallClass) -> u64 {
        self.cools_until.get(class.0).map_or(0, |until| until.load(Ordering::Relaxed))
    }

    fn cool_down(&self, class: CallClass, time: Duration, now: u64) {
        let until = now.saturating_add(millis(time)).max(1);
        if let Some(cools_until) = self.cools_until.get(class.0) {
            cools_until.fetch_max(until, Ordering::Relaxed);
        }
    }

    /// Ends the cool-down of a class, if there is one.
    fn end_cool_down(&self, class: CallClass) {
        if let Some(until) = self.cools_until.get(class.0) {
            until.store(0, Ordering::Relaxed);
        }
    }

    fn now(&self) -> u64 {
        self.at(Instant::now())
    }

    fn at(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.epoch);
        elapsed.as_secs() * 1000 + u64::from(elapsed.subsec_millis())
    }
}

impl Permit<'_> {
    /// Reports that the endpoint responded at `now` and accepted the token.
    pub fn succeeded(self, now: Instant) {
        if self.health.history.refuses_token() {
            self.health.history.accepts_token();
        }
        self.denied(now);
    }

    /// Reports that the endpoint responded at `now` that the call is not allowed (401 or 403). It works, and its circuit stays
    /// closed.
    pub fn denied(self, now: Instant) {
        let now = self.health.at(now);
        self.health.set_used(now);
        self.health.responded(now);
    }

    /// Reports that the endpoint was reached and failed: it closed the connection, was too slow or responded with a server error.
    pub fn failed(self, now: Instant) {
        let now = self.health.at(now);
        self.health.set_used(now);
        self.health.failed_since_success.store(true, Ordering::Relaxed);
        self.health.failed(self.is_trial, now);
    }

    /// Reports that the endpoint could not be reached.
    pub fn unreachable(self, now: Instant) {
        let now = self.health.at(now);
        self.health.set_used(now);
        self.health.failed(self.is_trial, now);
    }

    /// Reports that the endpoint throttled the call. It receives no calls of this class during the cool-down.
    pub fn throttled(self, cool_down: Duration, now: Instant) {
        let now = self.health.at(now);
        self.health.set_used(now);
        self.health.cool_down(self.class, cool_down.min(MAX_COOL_DOWN), now);
        self.health.responded(now);
    }

    /// Reports that the endpoint is unavailable, as its response states. It receives no calls during the cool-down.
    pub fn unavailable(self, cool_down: Duration, now: Instant) {
        let at = self.health.at(now);
        for class in 0..CallClass::COUNT {
            self.health.cool_down(CallClass::new(class), cool_down.min(MAX_COOL_DOWN), at);
        }
        self.failed(now);
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_trial {
            self.health.trial_in_flight.store(false, Ordering::Release);
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("is_closed", &self.is_closed()).finish_non_exhaustive()
    }
}

/// Returns the seconds of a time in milliseconds, plus one.
fn seconds(millis: u64) -> u32 {
    u32::try_from(millis / 1000).unwrap_or(u32::MAX).saturating_add(1)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;

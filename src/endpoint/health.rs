//! Whether an endpoint is worth trying: a circuit breaker over its failures, and the pauses it asks for itself.
//!
//! Shared by all workers and read on every request, written only when something fails or recovers. Decides nothing about
//! where a call goes instead.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

use crate::metrics::{BreakerState, EndpointMetrics};

/// The longest an endpoint stays out before it is tried again. Chosen: an endpoint that has come back is noticed within
/// a minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// The longest pause that is granted to an endpoint that asks for one.
const LONGEST_COOL_DOWN: Duration = Duration::from_secs(300);

/// When an endpoint is taken out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// How many failures in a row take it out.
    pub failures: u32,
    /// How long it stays out at first; twice as long each time in a row, a minute at most.
    pub pause: Duration,
    /// How often `/api/health` is asked.
    pub probe_interval: Duration,
}

/// The health of one endpoint.
pub struct Health {
    name: String,
    settings: HealthSettings,
    metrics: EndpointMetrics,
    /// What the times below are counted from.
    epoch: Instant,
    /// Failures in a row.
    failures: AtomicU32,
    /// Whether a call failed at the endpoint since the last that did not. Then a probe cannot tell that it is well again:
    /// it asks for less than callers do.
    fails_calls: AtomicBool,
    /// How often in a row it was taken out.
    trips: AtomicU32,
    /// Milliseconds after `epoch` until which it is out; 0 while it is in.
    out_until: AtomicU64,
    /// Whether a request is finding out if it is back.
    is_tried: AtomicBool,
    /// Milliseconds after `epoch` until which it asked not to be called; 0 if it did not.
    cools_until: AtomicU64,
}

/// Leave to try an endpoint. What became of it must be said: dropping it says nothing either way. It borrows, since a
/// count of references would be one more thing that workers write at the same time.
#[derive(Debug)]
pub struct Permit<'a> {
    health: &'a Health,
    /// Whether this is the one request that finds out if the endpoint is back.
    is_trial: bool,
}

impl Health {
    /// Makes the health of an endpoint that nothing is known of. Shows nothing yet: the endpoint may never be called.
    pub fn new(name: &str, settings: HealthSettings, metrics: EndpointMetrics) -> Arc<Self> {
        Arc::new(Self {
            name: name.to_owned(),
            settings,
            metrics,
            epoch: Instant::now(),
            failures: AtomicU32::new(0),
            fails_calls: AtomicBool::new(false),
            trips: AtomicU32::new(0),
            out_until: AtomicU64::new(0),
            is_tried: AtomicBool::new(false),
            cools_until: AtomicU64::new(0),
        })
    }

    /// Shows the endpoint in the metrics, as its calls begin.
    pub(super) fn announce(&self) {
        self.metrics.breaker(&self.name, BreakerState::Closed);
        self.metrics.cool_down(&self.name, None);
    }

    /// Gives leave to try the endpoint: always while it is in; once while it is out and its pause is over; not while it
    /// cools down.
    pub fn enter(&self) -> Option<Permit<'_>> {
        let out_until = self.out_until.load(Ordering::Relaxed);
        if out_until == 0 && self.cools_until.load(Ordering::Relaxed) == 0 {
            return Some(self.permit(false));
        }
        let now = self.now();
        if now < self.cools_until.load(Ordering::Relaxed) || now < out_until {
            return None;
        }
        if self.cools_until.swap(0, Ordering::Relaxed) != 0 {
            self.metrics.cool_down(&self.name, None);
        }
        if out_until == 0 {
            return Some(self.permit(false));
        }
        // One request finds out; the others go elsewhere until it has.
        let is_first = self.is_tried.compare_exchange(false, true, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        is_first.then(|| {
            self.metrics.breaker(&self.name, BreakerState::HalfOpen);
            self.permit(true)
        })
    }

    /// Gives leave whatever the health: for when there is nowhere else to go.
    pub fn enter_anyway(&self) -> Permit<'_> {
        self.permit(false)
    }

    /// Whether calls go to it without further ado.
    pub fn is_in(&self) -> bool {
        self.out_until.load(Ordering::Relaxed) == 0 && self.now() >= self.cools_until.load(Ordering::Relaxed)
    }

    /// Says how long until it may be tried again.
    pub fn out_for(&self) -> Duration {
        let until = self.out_until.load(Ordering::Relaxed).max(self.cools_until.load(Ordering::Relaxed));
        Duration::from_millis(until.saturating_sub(self.now()))
    }

    /// Notes that `/api/health` was answered, or not. An answer lets calls come back to an endpoint that could not be
    /// reached; one that was reached and failed its calls has to be tried by a call.
    pub fn probed(&self, ok: bool) {
        self.metrics.up(&self.name, ok);
        match ok {
            true if self.fails_calls.load(Ordering::Relaxed) => {}
            true => self.succeeded(),
            false => self.failed(false),
        }
    }

    fn permit(&self, is_trial: bool) -> Permit<'_> {
        Permit { health: self, is_trial }
    }

    fn succeeded(&self) {
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Relaxed);
            self.fails_calls.store(false, Ordering::Relaxed);
        }
        if self.out_until.load(Ordering::Relaxed) != 0 && self.out_until.swap(0, Ordering::Relaxed) != 0 {
            self.trips.store(0, Ordering::Relaxed);
            self.metrics.breaker(&self.name, BreakerState::Closed);
            tracing::info!(endpoint = self.name, "the endpoint is back");
        }
    }

    fn failed(&self, is_trial: bool) {
        let failures = self.failures.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        let out_until = self.out_until.load(Ordering::Relaxed);
        let was_out = out_until != 0;
        // While it is out, its trial alone says anything new: calls that were under way when it was taken out, and probes,
        // would put the next trial off for ever.
        let decides = if was_out { is_trial } else { failures >= self.settings.failures };
        if !decides {
            return;
        }
        let trips = self.trips.load(Ordering::Relaxed);
        let pause = self.settings.pause.saturating_mul(1 << trips.min(8)).min(LONGEST_PAUSE);
        let until = self.now().saturating_add(millis(pause)).max(1);
        // Of those that fail together, one takes it out.
        if self.out_until.compare_exchange(out_until, until, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return;
        }
        self.trips.fetch_add(1, Ordering::Relaxed);
        self.metrics.breaker(&self.name, BreakerState::Open);
        if !was_out {
            tracing::warn!(
                endpoint = self.name,
                failures,
                pause_ms = millis(pause),
                "the endpoint is out: calls go elsewhere until it answers again"
            );
        }
    }

    fn now(&self) -> u64 {
        millis(self.epoch.elapsed())
    }
}

impl Permit<'_> {
    /// The endpoint answered.
    pub fn succeeded(self) {
        self.health.succeeded();
    }

    /// The endpoint was reached, and broke off, was too slow or answered with a fault of its own.
    pub fn failed(self) {
        self.health.fails_calls.store(true, Ordering::Relaxed);
        self.health.failed(self.is_trial);
    }

    /// The endpoint could not be reached.
    pub fn unreachable(self) {
        self.health.failed(self.is_trial);
    }

    /// The endpoint asked for a pause (`Retry-After`).
    pub fn asked_for(self, pause: Duration) {
        let pause = pause.min(LONGEST_COOL_DOWN);
        let until = self.health.now().saturating_add(millis(pause)).max(1);
        self.health.cools_until.fetch_max(until, Ordering::Relaxed);
        self.health.metrics.cool_down(&self.health.name, Some(SystemTime::now() + pause));
        self.health.succeeded();
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        if self.is_trial {
            self.health.is_tried.store(false, Ordering::Release);
        }
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("is_in", &self.is_in()).finish_non_exhaustive()
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::metrics::Metrics;

    fn health(pause: Duration) -> Arc<Health> {
        let settings = HealthSettings { failures: 3, pause, probe_interval: Duration::from_secs(1) };
        Health::new("east", settings, Metrics::new().unwrap().endpoints().clone())
    }

    #[test]
    fn failures_in_a_row_take_it_out_and_a_success_between_does_not() {
        let health = health(Duration::from_secs(60));
        for _ in 0..2 {
            health.enter().unwrap().failed();
            health.enter().unwrap().failed();
            health.enter().unwrap().succeeded();
        }
        for _ in 0..3 {
            health.enter().unwrap().failed();
        }
        assert!(health.enter().is_none() && !health.is_in());
        assert!(health.out_for() > Duration::from_secs(50));
    }

    #[test]
    fn probe_vouches_for_the_way_to_the_endpoint_and_not_for_its_answers() {
        let health = health(Duration::from_secs(60));
        for _ in 0..3 {
            health.enter().unwrap().unreachable();
        }
        assert!(!health.is_in());
        health.probed(true);
        assert!(health.is_in(), "it can be reached again");

        for _ in 0..2 {
            health.enter().unwrap().failed();
            health.probed(true);
        }
        health.enter().unwrap().failed();
        assert!(!health.is_in(), "probes in between do not make three failures in a row fewer");
        health.probed(true);
        assert!(!health.is_in(), "a call has to succeed");
        health.enter_anyway().succeeded();
        assert!(health.is_in());
    }

    #[test]
    fn one_trial_at_a_time_finds_out_whether_it_is_back() {
        let health = health(Duration::ZERO);
        for _ in 0..3 {
            health.enter().unwrap().failed();
        }
        while health.out_for() > Duration::ZERO {}
        let trial = health.enter().unwrap();
        assert!(health.enter().is_none(), "a second trial");
        drop(trial);
        let trial = health.enter().expect("a trial that said nothing made way for another");
        trial.succeeded();
        assert!(health.is_in() && health.enter().is_some());
    }

    #[test]
    fn a_pause_it_asks_for_is_granted_and_capped() {
        let health = health(Duration::from_secs(60));
        health.enter().unwrap().asked_for(Duration::from_secs(7200));
        assert!(health.enter().is_none());
        assert!(health.out_for() <= LONGEST_COOL_DOWN);
        assert!(!health.enter_anyway().is_trial);
    }

    /// What happens to an endpoint.
    #[derive(Clone, Copy, Debug)]
    enum Event {
        Enter,
        EnterAnyway,
        Succeed,
        Fail,
        Unreachable,
        AskForPause,
        SayNothing,
        Probe(bool),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            4 => Just(Event::Enter),
            1 => Just(Event::EnterAnyway),
            2 => Just(Event::Succeed),
            4 => Just(Event::Fail),
            2 => Just(Event::Unreachable),
            1 => Just(Event::AskForPause),
            1 => Just(Event::SayNothing),
            1 => any::<bool>().prop_map(Event::Probe),
        ]
    }

    /// Lives through events; what is under way is ended in the order in which it began.
    fn live<'a>(health: &'a Arc<Health>, events: &[Event], longest: Duration) {
        // In its first millisecond, a pause of nothing is not over yet, and no trial would be let through.
        while health.now() == 0 {}
        let mut under_way = std::collections::VecDeque::new();
        for event in events {
            let mut end = |end: fn(Permit<'a>)| under_way.pop_front().map_or((), end);
            match event {
                Event::Enter => under_way.extend(health.enter()),
                Event::EnterAnyway => under_way.push_back(health.enter_anyway()),
                Event::Succeed => end(Permit::succeeded),
                Event::Fail => end(Permit::failed),
                Event::Unreachable => end(Permit::unreachable),
                Event::AskForPause => end(|permit| permit.asked_for(Duration::ZERO)),
                Event::SayNothing => end(drop),
                Event::Probe(ok) => health.probed(*ok),
            }
            assert!(health.out_for() <= longest, "out for {:?} after {event:?}", health.out_for());
        }
    }

    proptest! {
        /// Whatever became of an endpoint: once its pause is over it is tried, and one good answer brings it back.
        #[test]
        fn an_endpoint_that_is_well_again_comes_back(events in prop::collection::vec(event(), 0..60)) {
            let health = health(Duration::ZERO);
            live(&health, &events, Duration::from_millis(1));
            while health.out_for() > Duration::ZERO {}
            let permit = health.enter();
            prop_assert!(permit.is_some(), "nobody may find out whether it is back");
            permit.unwrap().succeeded();
            prop_assert!(health.is_in() && health.enter().is_some() && health.enter().is_some());
        }

        /// However many calls fail together, and whatever probes say: it is tried after the first pause.
        #[test]
        fn failures_that_were_under_way_do_not_put_its_trial_off(under_way in 3..200_usize, probes in 0..20_usize) {
            let pause = Duration::from_secs(5);
            let health = health(pause);
            let permits: Vec<_> = (0..under_way).filter_map(|_| health.enter()).collect();
            permits.into_iter().for_each(Permit::failed);
            (0..probes).for_each(|_| health.probed(false));
            health.enter_anyway().failed();
            prop_assert!(!health.is_in() && health.out_for() <= pause, "out for {:?}", health.out_for());
        }

        /// An endpoint that never fails as often in a row as it takes is never refused a call.
        #[test]
        fn an_endpoint_that_mostly_answers_is_never_out(runs in prop::collection::vec(0..3_u32, 0..40)) {
            let health = health(Duration::from_secs(60));
            for failures in runs {
                for _ in 0..failures {
                    health.enter().unwrap().failed();
                }
                health.enter().unwrap().succeeded();
            }
            prop_assert!(health.is_in());
        }
    }
}

use proptest::prelude::*;

use super::*;
use crate::endpoint;

/// Two classes of calls.
const SENDS: CallClass = CallClass::new(0);
const TOKENS: CallClass = CallClass::new(5);

fn health_of(window: Duration, pause: Duration) -> Arc<Health> {
    let failure_ratio = FailureRatio::new(0.5).unwrap();
    let settings = HealthSettings { failures: 3, failure_ratio, window, pause, probe_interval: Duration::from_secs(1) };
    Health::new(&Arc::new(EndpointSettings { health: settings, ..endpoint::tests::settings(443) }))
}

fn refused() -> FailureCause {
    let err = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    crate::endpoint::transport_failure(crate::metrics::UpstreamErrorReason::Connect, &err)
}

/// Returns a health whose window is longer than any test.
fn health(pause: Duration) -> Arc<Health> {
    health_of(Duration::from_secs(3600), pause)
}

impl Health {
    fn try_acquire_send(&self) -> Option<Permit<'_>> {
        self.try_acquire(SENDS)
    }

    fn record_calls(&self, succeeded: u32, failed: u32) {
        (0..succeeded).for_each(|_| self.acquire_anyway(SENDS).succeeded(Instant::now()));
        (0..failed).for_each(|_| self.acquire_anyway(SENDS).failed(Instant::now()));
    }
}

#[test]
fn circuit_opens_at_the_failure_ratio_and_not_below_it() {
    let health = health(Duration::from_secs(60));
    health.record_calls(100, 0);
    let concurrent: Vec<_> = (0..50).filter_map(|_| health.try_acquire_send()).collect();
    for permit in concurrent {
        permit.failed(Instant::now());
    }
    assert!(health.is_closed(), "fifty consecutive failures are a third of the calls");
    health.record_calls(0, 49);
    assert!(health.is_closed());
    health.record_calls(0, 1);
    assert!(!health.is_closed() && health.try_acquire_send().is_none(), "half of the calls failed");
    assert!(health.time_until_trial(SENDS) > Duration::from_secs(50));
}

#[test]
fn fewer_failures_than_the_minimum_do_not_open_the_circuit() {
    let health = health(Duration::from_secs(60));
    health.record_calls(0, 2);
    assert!(health.is_closed());
    health.record_calls(0, 1);
    assert!(!health.is_closed());
}

#[test]
fn consecutive_failures_count_even_if_calls_are_rare() {
    let window = Duration::from_secs(10);
    let at = |health: &Health, minutes: u64| health.epoch + Duration::from_secs(60 * minutes);
    let health = health_of(window, Duration::from_secs(3600));
    for minute in 1..3 {
        health.acquire_anyway(SENDS).unreachable(at(&health, minute));
        assert!(health.is_closed());
    }
    health.acquire_anyway(SENDS).unreachable(at(&health, 3));
    assert!(!health.is_closed());

    let health = health_of(window, Duration::from_secs(3600));
    for minute in 1..10 {
        health.acquire_anyway(SENDS).unreachable(at(&health, 2 * minute));
        health.acquire_anyway(SENDS).succeeded(at(&health, 2 * minute + 1));
    }
    assert!(health.is_closed(), "the failures are not consecutive");
}

#[test]
fn failures_before_a_recovery_do_not_count() {
    let health = health(Duration::from_secs(60));
    health.record_calls(0, 3);
    assert!(!health.is_closed());
    health.record_calls(1, 2);
    assert!(health.is_closed(), "only two calls failed since the recovery");
}

#[test]
fn successful_probe_closes_the_circuit_of_an_unreachable_endpoint_but_not_of_one_that_fails_calls() {
    let health = health(Duration::from_secs(60));
    for _ in 0..3 {
        health.try_acquire_send().unwrap().unreachable(Instant::now());
    }
    assert!(!health.is_closed());
    health.record_probe(Ok(()), Duration::ZERO);
    assert!(health.is_closed(), "the endpoint is reachable again");

    for _ in 0..2 {
        health.record_calls(0, 1);
        health.record_probe(Ok(()), Duration::ZERO);
    }
    health.record_calls(0, 1);
    assert!(!health.is_closed(), "probes do not interrupt three consecutive failures");
    health.record_probe(Ok(()), Duration::ZERO);
    assert!(!health.is_closed(), "only a successful call closes the circuit");
    health.record_calls(1, 0);
    assert!(health.is_closed());
}

#[test]
fn open_circuit_permits_one_trial_at_a_time() {
    let health = health(Duration::ZERO);
    health.record_calls(0, 3);
    while health.time_until_trial(SENDS) > Duration::ZERO {}
    let trial = health.try_acquire_send().unwrap();
    assert!(health.try_acquire_send().is_none(), "a second trial");
    drop(trial);
    let trial = health.try_acquire_send().expect("another trial after one without a result");
    trial.succeeded(Instant::now());
    assert!(health.is_closed() && health.try_acquire_send().is_some());
}

#[test]
fn breaker_state_is_correct_after_every_result_of_a_trial() {
    let health = health(Duration::ZERO);
    let breaker = || health.state().breaker;
    let trial = || {
        while health.time_until_trial(SENDS) > Duration::ZERO {}
        health.try_acquire_send().unwrap()
    };
    health.record_calls(0, 3);
    assert_eq!(breaker(), BreakerState::Open);
    let without_result = trial();
    assert_eq!(breaker(), BreakerState::HalfOpen);
    drop(without_result);
    assert_eq!(breaker(), BreakerState::Open, "the trial had no result");
    trial().failed(Instant::now());
    assert_eq!(breaker(), BreakerState::Open);
    let overtaken = trial();
    health.record_calls(1, 0);
    drop(overtaken);
    assert_eq!(breaker(), BreakerState::Closed, "another call has closed the circuit");
}

#[test]
fn cool_down_is_limited() {
    let health = health(Duration::from_secs(60));
    health.try_acquire_send().unwrap().throttled(Duration::from_secs(7200), Instant::now());
    assert!(health.try_acquire_send().is_none());
    assert!(
        health.time_until_trial(SENDS) <= MAX_COOL_DOWN && health.time_until_trial(SENDS) > Duration::from_secs(200)
    );
    assert!(!health.acquire_anyway(SENDS).is_trial);
}

#[test]
fn throttling_applies_to_one_class_and_unavailability_to_all() {
    let health = health(Duration::from_secs(60));
    health.try_acquire(TOKENS).unwrap().throttled(Duration::from_secs(60), Instant::now());
    assert!(health.try_acquire(TOKENS).is_none() && !health.accepts_calls(TOKENS));
    assert!(
        health.try_acquire(SENDS).is_some() && health.accepts_calls(SENDS) && health.time_until_trial(SENDS).is_zero()
    );
    health.try_acquire(SENDS).unwrap().unavailable(Duration::from_secs(60), Instant::now());
    assert!((0..CallClass::COUNT).all(|class| health.try_acquire(CallClass::new(class)).is_none()));
}

#[test]
fn state_shows_the_longest_cool_down_until_it_ends() {
    let health = health(Duration::ZERO);
    let cool_down = || health.state().cool_down;
    assert_eq!(cool_down(), None);
    health.try_acquire(TOKENS).unwrap().throttled(Duration::from_millis(30), Instant::now());
    while health.time_until_trial(TOKENS) > Duration::ZERO {}
    assert_eq!(cool_down(), None, "no class is in a cool-down");
    health.try_acquire(TOKENS).unwrap().throttled(Duration::from_secs(60), Instant::now());
    drop(health.try_acquire(SENDS).unwrap());
    let left = cool_down().unwrap().duration_since(SystemTime::now()).unwrap();
    assert!(left > Duration::from_secs(50), "a call of another class ended it: {left:?}");
}

/// An event in the life of an endpoint.
#[derive(Clone, Copy, Debug)]
enum Event {
    Acquire,
    AcquireAnyway,
    Succeed,
    Fail,
    Unreachable,
    Throttle,
    BecomeUnavailable,
    Drop,
    Probe(bool),
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        4 => Just(Event::Acquire),
        1 => Just(Event::AcquireAnyway),
        2 => Just(Event::Succeed),
        4 => Just(Event::Fail),
        2 => Just(Event::Unreachable),
        1 => Just(Event::Throttle),
        1 => Just(Event::BecomeUnavailable),
        1 => Just(Event::Drop),
        1 => any::<bool>().prop_map(Event::Probe),
    ]
}

/// Applies events to a health. Calls end in the order in which they began. After each event, a trial is due within `max_wait`.
fn apply<'a>(health: &'a Arc<Health>, events: &[Event], max_wait: Duration) {
    // In the first millisecond, a pause of zero has not passed, so no trial would be permitted.
    while health.now() == 0 {}
    let mut in_flight = std::collections::VecDeque::new();
    for event in events {
        let mut end = |end: fn(Permit<'a>)| in_flight.pop_front().map_or((), end);
        match event {
            Event::Acquire => in_flight.extend(health.try_acquire_send()),
            Event::AcquireAnyway => in_flight.push_back(health.acquire_anyway(SENDS)),
            Event::Succeed => end(|permit| permit.succeeded(Instant::now())),
            Event::Fail => end(|permit| permit.failed(Instant::now())),
            Event::Unreachable => end(|permit| permit.unreachable(Instant::now())),
            Event::Throttle => end(|permit| permit.throttled(Duration::ZERO, Instant::now())),
            Event::BecomeUnavailable => end(|permit| permit.unavailable(Duration::ZERO, Instant::now())),
            Event::Drop => end(drop),
            Event::Probe(ok) => health.record_probe(if *ok { Ok(()) } else { Err(refused()) }, Duration::ZERO),
        }
        assert!(
            health.time_until_trial(SENDS) <= max_wait,
            "no trial for {:?} after {event:?}",
            health.time_until_trial(SENDS)
        );
    }
}

proptest! {
    /// After any events, a trial is permitted when the pause is over, and one success closes the circuit.
    #[test]
    fn one_successful_trial_closes_the_circuit_after_any_events(events in prop::collection::vec(event(), 0..60)) {
        let health = health(Duration::ZERO);
        apply(&health, &events, Duration::from_millis(1));
        while health.time_until_trial(SENDS) > Duration::ZERO {}
        let permit = health.try_acquire_send();
        prop_assert!(permit.is_some(), "no trial is permitted");
        permit.unwrap().succeeded(Instant::now());
        prop_assert!(health.accepts_calls(SENDS) && health.try_acquire_send().is_some() && health.try_acquire_send().is_some());
    }

    /// A trial is due after the first pause, however many calls and probes fail concurrently.
    #[test]
    fn concurrent_failures_do_not_postpone_the_trial(concurrent in 3..200_usize, probes in 0..20_usize) {
        let pause = Duration::from_secs(5);
        let health = health(pause);
        let permits: Vec<_> = (0..concurrent).filter_map(|_| health.try_acquire_send()).collect();
        for permit in permits {
            permit.failed(Instant::now());
        }
        (0..probes).for_each(|_| health.record_probe(Err(refused()), Duration::ZERO));
        health.acquire_anyway(SENDS).failed(Instant::now());
        prop_assert!(!health.is_closed() && health.time_until_trial(SENDS) <= pause, "no trial for {:?}", health.time_until_trial(SENDS));
    }

    /// The circuit opens exactly at the first failure with which both the minimum number and the ratio are reached.
    #[test]
    fn circuit_opens_when_the_share_of_failures_is_reached_and_not_before(calls in prop::collection::vec(any::<bool>(), 0..80)) {
        let health = health(Duration::from_secs(60));
        let (mut successes, mut failures) = (0, 0);
        for ok in calls {
            let permit = health.try_acquire_send().unwrap();
            if ok {
                permit.succeeded(Instant::now());
                successes += 1;
            } else {
                permit.failed(Instant::now());
                failures += 1;
            }
            let is_open = !ok && failures >= 3 && failures >= successes;
            prop_assert_eq!(health.is_closed(), !is_open, "{} of {}", failures, failures + successes);
            if is_open {
                break;
            }
        }
    }
}

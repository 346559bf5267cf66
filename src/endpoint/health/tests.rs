use proptest::prelude::*;

use super::*;
use crate::metrics::{Exposition, Metrics};

/// A class of calls, and another.
const SENDS: CallClass = CallClass::new(0);
const TOKENS: CallClass = CallClass::new(5);

fn health_of(window: Duration, pause: Duration) -> (Arc<Health>, Metrics) {
    let failure_ratio = FailureRatio::new(0.5).unwrap();
    let settings = HealthSettings { failures: 3, failure_ratio, window, pause, probe_interval: Duration::from_secs(1) };
    let metrics = Metrics::new().unwrap();
    let health = Health::new("east", settings, metrics.endpoints().clone());
    health.announce();
    (health, metrics)
}

/// One whose window no test leaves.
fn health(pause: Duration) -> Arc<Health> {
    health_of(Duration::from_secs(3600), pause).0
}

impl Health {
    fn try_acquire_send(&self) -> Option<Permit<'_>> {
        self.try_acquire(SENDS)
    }

    fn has_calls(&self, succeeded: u32, failed: u32) {
        (0..succeeded).for_each(|_| self.acquire_anyway(SENDS).succeeded(Instant::now()));
        (0..failed).for_each(|_| self.acquire_anyway(SENDS).failed(Instant::now()));
    }
}

/// The value of a series that has these words in it.
async fn shown(metrics: &Metrics, series: &[&str]) -> f64 {
    let text = String::from_utf8(metrics.exposition(Exposition::Prometheus).await.unwrap()).unwrap();
    let line = text.lines().find(|line| !line.starts_with('#') && series.iter().all(|word| line.contains(word)));
    line.unwrap_or_else(|| panic!("{series:?} in {text}")).rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn share_of_calls_that_fail_takes_it_out_and_a_few_among_many_do_not() {
    let health = health(Duration::from_secs(60));
    health.has_calls(100, 0);
    let side_by_side: Vec<_> = (0..50).filter_map(|_| health.try_acquire_send()).collect();
    for permit in side_by_side {
        permit.failed(Instant::now());
    }
    assert!(health.is_closed(), "fifty in a row are a third of the calls");
    health.has_calls(0, 49);
    assert!(health.is_closed());
    health.has_calls(0, 1);
    assert!(!health.is_closed() && health.try_acquire_send().is_none(), "half of the calls");
    assert!(health.time_until_trial(SENDS) > Duration::from_secs(50));
}

#[test]
fn fewer_failures_than_the_least_do_not_take_it_out() {
    let health = health(Duration::from_secs(60));
    health.has_calls(0, 2);
    assert!(health.is_closed());
    health.has_calls(0, 1);
    assert!(!health.is_closed());
}

#[test]
fn failures_in_a_row_count_where_calls_come_seldom() {
    let window = Duration::from_secs(10);
    let at = |health: &Health, minutes: u64| health.epoch + Duration::from_secs(60 * minutes);
    let (health, _metrics) = health_of(window, Duration::from_secs(3600));
    for minute in 1..3 {
        health.acquire_anyway(SENDS).unreachable(at(&health, minute));
        assert!(health.is_closed());
    }
    health.acquire_anyway(SENDS).unreachable(at(&health, 3));
    assert!(!health.is_closed());

    let (health, _metrics) = health_of(window, Duration::from_secs(3600));
    for minute in 1..10 {
        health.acquire_anyway(SENDS).unreachable(at(&health, 2 * minute));
        health.acquire_anyway(SENDS).succeeded(at(&health, 2 * minute + 1));
    }
    assert!(health.is_closed(), "none of them is in a row");
}

#[test]
fn what_failed_before_it_came_back_is_forgotten() {
    let health = health(Duration::from_secs(60));
    health.has_calls(0, 3);
    assert!(!health.is_closed());
    health.has_calls(1, 2);
    assert!(health.is_closed(), "two failures since it came back");
}

#[test]
fn probe_vouches_for_the_way_to_the_endpoint_and_not_for_its_answers() {
    let health = health(Duration::from_secs(60));
    for _ in 0..3 {
        health.try_acquire_send().unwrap().unreachable(Instant::now());
    }
    assert!(!health.is_closed());
    health.probed(true);
    assert!(health.is_closed(), "it can be reached again");

    for _ in 0..2 {
        health.has_calls(0, 1);
        health.probed(true);
    }
    health.has_calls(0, 1);
    assert!(!health.is_closed(), "probes in between do not make three failures in a row fewer");
    health.probed(true);
    assert!(!health.is_closed(), "a call has to succeed");
    health.has_calls(1, 0);
    assert!(health.is_closed());
}

#[test]
fn one_trial_at_a_time_finds_out_whether_it_is_back() {
    let health = health(Duration::ZERO);
    health.has_calls(0, 3);
    while health.time_until_trial(SENDS) > Duration::ZERO {}
    let trial = health.try_acquire_send().unwrap();
    assert!(health.try_acquire_send().is_none(), "a second trial");
    drop(trial);
    let trial = health.try_acquire_send().expect("a trial that said nothing made way for another");
    trial.succeeded(Instant::now());
    assert!(health.is_closed() && health.try_acquire_send().is_some());
}

#[tokio::test]
async fn breaker_is_shown_as_it_is_whatever_became_of_the_trial() {
    let (health, metrics) = health_of(Duration::from_secs(3600), Duration::ZERO);
    let is_shown = async |state| shown(&metrics, &["breaker_state{", state]).await > 0.5;
    let trial = || {
        while health.time_until_trial(SENDS) > Duration::ZERO {}
        health.try_acquire_send().unwrap()
    };
    health.has_calls(0, 3);
    assert!(is_shown("\"open\"").await);
    let silent = trial();
    assert!(is_shown("half_open").await);
    drop(silent);
    assert!(is_shown("\"open\"").await && !is_shown("half_open").await, "the trial said nothing");
    trial().failed(Instant::now());
    assert!(is_shown("\"open\"").await && !is_shown("half_open").await);
    let overtaken = trial();
    health.has_calls(1, 0);
    drop(overtaken);
    assert!(is_shown("closed").await && !is_shown("half_open").await, "another call closed it meanwhile");
}

#[test]
fn a_pause_it_asks_for_is_granted_and_capped() {
    let health = health(Duration::from_secs(60));
    health.try_acquire_send().unwrap().throttled(Duration::from_secs(7200), Instant::now());
    assert!(health.try_acquire_send().is_none());
    assert!(
        health.time_until_trial(SENDS) <= LONGEST_COOL_DOWN
            && health.time_until_trial(SENDS) > Duration::from_secs(200)
    );
    assert!(!health.acquire_anyway(SENDS).is_trial);
}

#[test]
fn calls_of_one_class_that_are_too_many_leave_the_others_alone() {
    let health = health(Duration::from_secs(60));
    health.try_acquire(TOKENS).unwrap().throttled(Duration::from_secs(60), Instant::now());
    assert!(health.try_acquire(TOKENS).is_none() && !health.accepts_calls(TOKENS));
    assert!(
        health.try_acquire(SENDS).is_some() && health.accepts_calls(SENDS) && health.time_until_trial(SENDS).is_zero()
    );
    // One that is out of service is so for all.
    health.try_acquire(SENDS).unwrap().unavailable(Duration::from_secs(60), Instant::now());
    assert!((0..CallClass::COUNT).all(|class| health.try_acquire(CallClass::new(class)).is_none()));
}

#[tokio::test]
async fn end_of_a_pause_is_shown_when_the_next_call_is_permitted() {
    let (health, metrics) = health_of(Duration::from_secs(3600), Duration::ZERO);
    let until = async || shown(&metrics, &["endpoint_cooldown_until_timestamp_seconds{"]).await;
    assert!(until().await < 1.0);
    health.try_acquire(TOKENS).unwrap().throttled(Duration::from_millis(30), Instant::now());
    assert!(until().await > 1.0);
    while health.time_until_trial(TOKENS) > Duration::ZERO {}
    drop(health.try_acquire(TOKENS).expect("the pause is over"));
    assert!(until().await < 1.0, "no class has a pause");
    // A class that had none does not show another's end.
    health.try_acquire(TOKENS).unwrap().throttled(Duration::from_secs(60), Instant::now());
    let shown = until().await;
    drop(health.try_acquire(SENDS).unwrap());
    assert!((until().await - shown).abs() < 1.0);
}

#[test]
fn ratios_above_one_and_of_nothing_are_none() {
    for (ratio, thousandths) in [
        (0.5, Some(500)),
        (1.0, Some(1000)),
        (0.0001, Some(1)),
        (0.0, None),
        (1.1, None),
        (-1.0, None),
        (f64::NAN, None),
    ] {
        assert_eq!(FailureRatio::new(ratio).map(|FailureRatio(thousandths)| thousandths), thousandths, "{ratio}");
    }
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
    GoAway,
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
        1 => Just(Event::GoAway),
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
            Event::Enter => under_way.extend(health.try_acquire_send()),
            Event::EnterAnyway => under_way.push_back(health.acquire_anyway(SENDS)),
            Event::Succeed => end(|permit| permit.succeeded(Instant::now())),
            Event::Fail => end(|permit| permit.failed(Instant::now())),
            Event::Unreachable => end(|permit| permit.unreachable(Instant::now())),
            Event::AskForPause => end(|permit| permit.throttled(Duration::ZERO, Instant::now())),
            Event::GoAway => end(|permit| permit.unavailable(Duration::ZERO, Instant::now())),
            Event::SayNothing => end(drop),
            Event::Probe(ok) => health.probed(*ok),
        }
        assert!(
            health.time_until_trial(SENDS) <= longest,
            "no trial for {:?} after {event:?}",
            health.time_until_trial(SENDS)
        );
    }
}

proptest! {
    /// Whatever became of an endpoint: once its pause is over it is tried, and one good answer brings it back.
    #[test]
    fn an_endpoint_that_is_well_again_comes_back(events in prop::collection::vec(event(), 0..60)) {
        let health = health(Duration::ZERO);
        live(&health, &events, Duration::from_millis(1));
        while health.time_until_trial(SENDS) > Duration::ZERO {}
        let permit = health.try_acquire_send();
        prop_assert!(permit.is_some(), "nobody may find out whether it is back");
        permit.unwrap().succeeded(Instant::now());
        prop_assert!(health.accepts_calls(SENDS) && health.try_acquire_send().is_some() && health.try_acquire_send().is_some());
    }

    /// However many calls fail together, and whatever probes say: it is tried after the first pause.
    #[test]
    fn failures_that_were_under_way_do_not_put_its_trial_off(under_way in 3..200_usize, probes in 0..20_usize) {
        let pause = Duration::from_secs(5);
        let health = health(pause);
        let permits: Vec<_> = (0..under_way).filter_map(|_| health.try_acquire_send()).collect();
        for permit in permits {
            permit.failed(Instant::now());
        }
        (0..probes).for_each(|_| health.probed(false));
        health.acquire_anyway(SENDS).failed(Instant::now());
        prop_assert!(!health.is_closed() && health.time_until_trial(SENDS) <= pause, "no trial for {:?}", health.time_until_trial(SENDS));
    }

    /// The first failure that makes enough of them, and enough of all calls, takes it out; nothing else does.
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
            let is_out = !ok && failures >= 3 && failures >= successes;
            prop_assert_eq!(health.is_closed(), !is_out, "{} of {}", failures, failures + successes);
            if is_out {
                break;
            }
        }
    }
}

//! Health probes: `HEAD /api/health` without a token, as the Management SDK sends them. They detect failure and recovery of
//! endpoints between calls.
//!
//! One task probes all endpoints. If there are many, it probes only those that calls use and their alternatives: the endpoints of
//! the same route, to which a failover goes. So thousands of unused endpoints cost no connections.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{Method, Request};
use http_body_util::Full;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::failure::{ErrorResponse, FailureCause};
use super::health::OPEN_CIRCUIT_FACTOR;
use super::transport_failure::probe_failure;
use super::{Endpoint, UnpooledError};

/// The maximum number of endpoints that are all probed, also those that no call uses. Chosen: the number of credentials that obtain
/// their tokens at the start by default.
const ALL_PROBED: usize = 64;
/// How long an endpoint with an open circuit is probed after its last call. Its callers may have given up for a while.
const PROBED_WHILE_OPEN: Duration = Duration::from_secs(3600);
/// The maximum number of probes in flight.
const MAX_CONCURRENT: usize = 32;
/// The shortest and longest times between two searches for endpoints to probe.
const SEARCH_INTERVAL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// The timeout of the response to a probe. Source: the SDK's `RestHealthCheckService` has two seconds. The connection has the
/// timeouts of a call's: the first query of a name may be lost.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The path of a probe. Any API version with this path works.
const PROBE_PATH: &str = "/api/health?api-version=2022-06-01";

/// The endpoints that are probed.
#[derive(Debug, Default)]
struct ProbedSet {
    endpoints: Arc<[Arc<Endpoint>]>,
    /// The indexes of the endpoints that a failover may go to, by the index of an endpoint. Empty if all endpoints are probed.
    alternatives: HashMap<usize, Vec<usize>>,
}

impl ProbedSet {
    fn new(endpoints: &Arc<[Arc<Endpoint>]>, groups: impl IntoIterator<Item = Vec<usize>>) -> Self {
        let mut alternatives = HashMap::<usize, Vec<usize>>::new();
        if endpoints.len() > ALL_PROBED {
            // Many routes may have the same endpoints.
            for group in groups.into_iter().collect::<BTreeSet<_>>() {
                for one in &group {
                    alternatives.entry(*one).or_default().extend(group.iter().filter(|other| *other != one));
                }
            }
        }
        Self { endpoints: Arc::clone(endpoints), alternatives }
    }

    /// Returns whether calls have used an alternative of an endpoint within this time.
    fn has_used_alternative(&self, index: usize, within: Duration) -> bool {
        let alternatives = self.alternatives.get(&index).into_iter().flatten();
        let mut endpoints = alternatives.filter_map(|index| self.endpoints.get(*index));
        endpoints.any(|endpoint| endpoint.health().was_used_within(within))
    }
}

/// The task that probes a set of endpoints. Dropping it stops the task.
#[derive(Debug, Default)]
pub struct Probes {
    running: Option<(watch::Sender<Arc<ProbedSet>>, JoinHandle<()>)>,
}

impl Drop for Probes {
    fn drop(&mut self) {
        if let Some((_, task)) = &self.running {
            task.abort();
        }
    }
}

impl Probes {
    /// Replaces the set of probed endpoints. Each of `groups` has the indexes of endpoints among which calls fail over. The intervals
    /// of endpoints in both sets continue. Must be called on the control runtime.
    pub fn set_endpoints(&mut self, endpoints: &Arc<[Arc<Endpoint>]>, groups: impl IntoIterator<Item = Vec<usize>>) {
        let probed = Arc::new(ProbedSet::new(endpoints, groups));
        if let Some((set, _)) = &self.running {
            set.send_replace(probed);
        } else {
            let (set, changes) = watch::channel(probed);
            self.running = Some((set, tokio::spawn(keep_probing(changes))));
        }
    }
}

/// An endpoint and its last round, in which it was probed or no call had used it.
struct Scheduled {
    endpoint: Arc<Endpoint>,
    /// `None` before the first round, which is due at once.
    last: Option<Instant>,
    /// The factor of the interval. It keeps replicas that start together from probing together.
    jitter: f32,
}

impl Scheduled {
    /// Returns when its next round is due.
    fn due(&self, now: Instant) -> Instant {
        let interval = self.endpoint.settings().health.probe_interval;
        let pause = pause(interval, self.endpoint.health().is_closed()).mul_f32(self.jitter);
        self.last.map_or(now, |last| last + pause)
    }

    /// Starts a round. Returns the time within which calls must have used the endpoint, or an alternative: since the last round.
    fn begin_round(&mut self, now: Instant) -> Duration {
        let last = self.last.replace(now).unwrap_or(now);
        self.jitter = 0.9 + fastrand::f32() * 0.2;
        if self.endpoint.health().is_closed() { now.saturating_duration_since(last) } else { PROBED_WHILE_OPEN }
    }
}

async fn keep_probing(mut changes: watch::Receiver<Arc<ProbedSet>>) {
    let mut set = Arc::clone(&changes.borrow_and_update());
    let mut schedule = reschedule(&[], &set.endpoints);
    let mut running = FuturesUnordered::new();
    // The endpoint at which the next search begins.
    let mut first = 0;
    loop {
        let now = Instant::now();
        let (shortest, longest) = SEARCH_INTERVAL;
        let mut next = now + longest;
        let is_all = schedule.len() <= ALL_PROBED;
        for index in (first..schedule.len()).chain(0..first) {
            let Some(scheduled) = schedule.get_mut(index) else { continue };
            let due = scheduled.due(now);
            if due > now {
                next = next.min(due);
                continue;
            }
            if running.len() >= MAX_CONCURRENT {
                (first, next) = (index, now);
                break;
            }
            let within = scheduled.begin_round(now);
            let is_used = || scheduled.endpoint.health().was_used_within(within);
            if is_all || is_used() || set.has_used_alternative(index, within) {
                running.push(probe_and_record(Arc::clone(&scheduled.endpoint)));
            }
        }
        let next = next.max(now + shortest);
        loop {
            tokio::select! {
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    set = Arc::clone(&changes.borrow_and_update());
                    schedule = reschedule(&schedule, &set.endpoints);
                    first = 0;
                    break;
                }
                Some(()) = running.next() => {}
                () = tokio::time::sleep_until(next) => break,
            }
        }
    }
}

/// Returns the schedule of a set of endpoints, in which those that were scheduled before keep their intervals.
fn reschedule(before: &[Scheduled], endpoints: &[Arc<Endpoint>]) -> Vec<Scheduled> {
    let before: HashMap<_, _> = before.iter().map(|before| (Arc::as_ptr(&before.endpoint), before)).collect();
    // Many endpoints have their first round after an interval: no call has used them yet.
    let first = (endpoints.len() > ALL_PROBED).then(Instant::now);
    let schedule = |endpoint: &Arc<Endpoint>| {
        let known = before.get(&Arc::as_ptr(endpoint));
        let (last, jitter) = known.map_or((first, fastrand::f32()), |known| (known.last, known.jitter));
        Scheduled { endpoint: Arc::clone(endpoint), last, jitter }
    };
    endpoints.iter().map(schedule).collect()
}

async fn probe_and_record(endpoint: Arc<Endpoint>) {
    let began = Instant::now();
    if let Some(result) = probe(&endpoint).await {
        endpoint.health().record_probe(result, began.elapsed());
    }
}

/// Returns the pause before the next probe, without jitter.
fn pause(interval: Duration, is_circuit_closed: bool) -> Duration {
    if is_circuit_closed { interval } else { interval / OPEN_CIRCUIT_FACTOR }
}

/// Requests the health of the endpoint, which must respond with a status below 500. Returns `None` if the gateway's host has run
/// out of a resource.
async fn probe(endpoint: &Endpoint) -> Option<Result<(), FailureCause>> {
    let request = Request::builder().method(Method::HEAD).uri(PROBE_PATH).body(Full::default());
    let request = request.ok()?;
    match endpoint.send_unpooled(request, RESPONSE_TIMEOUT).await {
        Ok(response) if response.status().is_server_error() => {
            Some(Err(FailureCause::Response(ErrorResponse::of(&response, false))))
        }
        Ok(_) => Some(Ok(())),
        Err(err) => {
            let is_shortage = matches!(&err, UnpooledError::Connect(err) if err.is_local_shortage());
            let cause = std::error::Error::source(&err).map(tracing::field::display);
            tracing::debug!(endpoint = %endpoint.name(), error = %err, cause, "a health probe got no response");
            (!is_shortage).then(|| Err(probe_failure(&err)))
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::endpoint::tests::{endpoint, settings};
    use crate::endpoint::{CallClass, EndpointSettings};

    #[test]
    fn probes_are_more_frequent_while_the_circuit_is_open() {
        let minute = Duration::from_secs(60);
        assert_eq!((pause(minute, true), pause(minute, false)), (minute, Duration::from_secs(10)));
    }

    /// Returns the settings of endpoints that are probed often, and the listener that they connect to.
    async fn listen() -> (EndpointSettings, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut settings = settings(listener.local_addr().unwrap().port());
        settings.health.probe_interval = Duration::from_millis(60);
        (settings, listener)
    }

    #[tokio::test]
    async fn of_many_endpoints_those_in_use_and_their_alternatives_are_probed() {
        let ((unused, no_connection), (used, connections)) = (listen().await, listen().await);
        let mut endpoints: Vec<_> = (0..ALL_PROBED).map(|_| endpoint(&unused)).collect();
        endpoints.push(endpoint(&used));
        endpoints[ALL_PROBED].health().acquire_anyway(CallClass::new(0)).succeeded(std::time::Instant::now());
        let mut probes = Probes::default();
        let standby = listen().await;
        endpoints.push(endpoint(&standby.0));
        probes.set_endpoints(&endpoints.into(), [vec![ALL_PROBED, ALL_PROBED + 1], vec![0, 1]]);
        for listener in [&connections, &standby.1] {
            for _ in 0..3 {
                let probe = tokio::time::timeout(Duration::from_secs(20), listener.accept()).await;
                drop(probe.expect("the endpoint in use and its alternative are probed").unwrap());
            }
        }
        assert!(futures_util::poll!(std::pin::pin!(no_connection.accept())).is_pending());
    }

    /// Waits until no task probes the endpoint.
    async fn wait_until_unused(endpoint: &Arc<Endpoint>) {
        let unused = async {
            while Arc::strong_count(endpoint) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), unused).await.expect("the endpoint is still probed");
    }

    #[test]
    fn endpoint_of_many_is_probed_only_in_rounds_in_which_a_call_used_it() {
        let endpoint = endpoint(&settings(9));
        let second = Duration::from_secs(1);
        let mut scheduled = Scheduled { endpoint: Arc::clone(&endpoint), last: None, jitter: 1.0 };
        let start = Instant::now();
        assert_eq!(scheduled.due(start), start);
        let is_used = |within| endpoint.health().was_used_within(within);
        assert!(!is_used(scheduled.begin_round(start)), "no call has used it");
        assert!(scheduled.due(start) > start + 50 * second);
        endpoint.health().acquire_anyway(CallClass::new(0)).succeeded(std::time::Instant::now());
        assert!(is_used(scheduled.begin_round(start + 60 * second)));
        for _ in 0..10 {
            endpoint.health().acquire_anyway(CallClass::new(0)).unreachable(std::time::Instant::now());
        }
        assert!(!endpoint.health().is_closed());
        assert!(is_used(scheduled.begin_round(start + 60 * second)), "its circuit is open");
    }

    #[tokio::test]
    async fn endpoints_are_probed_only_while_they_are_in_the_set() {
        // Nothing listens there.
        let (east, west) = (endpoint(&settings(9)), endpoint(&settings(9)));
        let mut probes = Probes::default();
        probes.set_endpoints(&[Arc::clone(&east), Arc::clone(&west)].into(), []);
        assert!(Arc::strong_count(&east) > 1 && Arc::strong_count(&west) > 1);
        probes.set_endpoints(&[Arc::clone(&west)].into(), []);
        wait_until_unused(&east).await;
        assert!(Arc::strong_count(&west) > 1);
        drop(probes);
        wait_until_unused(&west).await;
    }
}

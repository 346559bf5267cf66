//! Live figures: a ring of what was counted in the last ten minutes, from samples of the metrics. The request path does nothing
//! for it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::quantile::Deltas;
use crate::metrics::{EndpointSample, Metrics, Responses, Sample};

/// The time between two samples.
pub(super) const INTERVAL: Duration = Duration::from_secs(5);
/// The number of intervals that are kept: ten minutes.
const KEPT: usize = 120;
/// The largest number of endpoints, and of routes, that are kept for each interval: those with most calls. Chosen: ten minutes
/// need at most a megabyte, however many there are.
const MAX_LABELS: usize = 64;
/// The number of intervals of the figures for the last minute.
pub(super) const LAST_MINUTE: usize = 12;
/// The number of points of a chart.
pub(super) const POINTS: usize = 60;

/// What was counted in the last ten minutes.
#[derive(Debug, Default)]
pub(super) struct Figures(Mutex<Ring>);

#[derive(Debug, Default)]
struct Ring {
    before: Option<(Instant, Sample)>,
    intervals: VecDeque<Arc<Interval>>,
}

/// What was counted in an interval.
#[derive(Clone, Debug, Default)]
pub(super) struct Interval {
    pub(super) seconds: f64,
    pub(super) requests: Responses,
    pub(super) overhead: Deltas,
    /// By label, those with calls.
    endpoints: HashMap<Arc<str>, EndpointInterval>,
    routes: HashMap<Arc<str>, u64>,
}

/// What was counted for an endpoint in an interval.
#[derive(Clone, Debug, Default)]
pub(super) struct EndpointInterval {
    pub(super) calls: u64,
    /// Calls with an error response, or without a response.
    pub(super) failed: u64,
    pub(super) duration: Deltas,
}

/// A copy of the ring, for one response.
#[derive(Clone, Debug, Default)]
pub(super) struct Recent(Vec<Arc<Interval>>);

impl Figures {
    /// Samples the metrics for as long as the future is polled.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn keep_sampling(&self, metrics: &Arc<Metrics>) {
        let mut ticks = tokio::time::interval(INTERVAL);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            if let Some(sample) = metrics.sample().await {
                self.lock().add(Instant::now(), sample);
            }
        }
    }

    /// Returns what was counted in the last ten minutes, the latest last.
    pub(super) fn recent(&self) -> Recent {
        Recent(self.lock().intervals.iter().cloned().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn add(&mut self, at: Instant, sample: Sample) {
        if let Some((began, before)) = &self.before {
            if self.intervals.len() == KEPT {
                self.intervals.pop_front();
            }
            let seconds = at.saturating_duration_since(*began).as_secs_f64().max(0.001);
            self.intervals.push_back(Arc::new(Interval::between(before, &sample, seconds)));
        }
        self.before = Some((at, sample));
    }
}

impl Interval {
    fn between(before: &Sample, after: &Sample, seconds: f64) -> Self {
        let none = EndpointSample::default();
        let endpoints = after.endpoints.iter().filter_map(|(label, after)| {
            let before = before.endpoints.get(label).unwrap_or(&none);
            let responses = after.responses.since(before.responses);
            let errors = after.errors.saturating_sub(before.errors);
            let failed = responses.client_errors + responses.server_errors + errors;
            let duration = Deltas::between(&before.duration, &after.duration);
            let interval = EndpointInterval { calls: responses.total + errors, failed, duration };
            (interval.calls > 0).then_some((label.as_str(), interval))
        });
        let routes = after.routes.iter().filter_map(|(label, after)| {
            let before = before.routes.get(label).copied().unwrap_or_default();
            let calls = after.since(before).total;
            (calls > 0).then_some((label.as_str(), calls))
        });
        Self {
            seconds,
            requests: after.requests.since(before.requests),
            overhead: Deltas::between(&before.overhead, &after.overhead),
            endpoints: busiest(endpoints.collect(), |interval| interval.calls),
            routes: busiest(routes.collect(), |calls| *calls),
        }
    }

    /// Returns the sum of some intervals, without endpoints and routes.
    fn sum<'a>(intervals: impl IntoIterator<Item = &'a Arc<Self>>) -> Self {
        let mut sum = Self::default();
        intervals.into_iter().for_each(|interval| sum.merge(interval));
        sum
    }

    fn merge(&mut self, other: &Self) {
        self.seconds += other.seconds;
        self.requests += other.requests;
        self.overhead.merge(&other.overhead);
    }
}

impl EndpointInterval {
    /// Returns the sum of an endpoint's calls in some intervals.
    fn sum<'a>(label: &str, intervals: impl IntoIterator<Item = &'a Arc<Interval>>) -> Self {
        let mut sum = Self::default();
        let of_endpoint = intervals.into_iter().filter_map(|interval| interval.endpoints.get(label));
        of_endpoint.for_each(|interval| sum.merge(interval));
        sum
    }

    fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.failed += other.failed;
        self.duration.merge(&other.duration);
    }
}

impl Recent {
    /// Returns the sum of the last `count` intervals.
    pub(super) fn last(&self, count: usize) -> Interval {
        Interval::sum(self.latest(count))
    }

    /// Returns the sums of two intervals each, for the points of a chart.
    pub(super) fn points(&self) -> Vec<Interval> {
        self.pairs().map(Interval::sum).collect()
    }

    /// Returns the sum of an endpoint's last `count` intervals and their seconds; `None` if it had no calls in them.
    pub(super) fn endpoint(&self, label: &str, count: usize) -> Option<(EndpointInterval, f64)> {
        let sum = EndpointInterval::sum(label, self.latest(count));
        (sum.calls > 0).then(|| (sum, seconds(self.latest(count))))
    }

    /// Returns the sums of two of an endpoint's intervals each, for the points of a chart.
    pub(super) fn endpoint_points(&self, label: &str) -> Vec<EndpointInterval> {
        self.pairs().map(|pair| EndpointInterval::sum(label, pair)).collect()
    }

    /// Returns the last `count` intervals, the latest first.
    fn latest(&self, count: usize) -> impl Iterator<Item = &Arc<Interval>> {
        self.0.iter().rev().take(count)
    }

    /// Returns pairs of intervals, the latest last.
    fn pairs(&self) -> impl Iterator<Item = &[Arc<Interval>]> {
        self.0.rchunks(KEPT / POINTS).rev()
    }

    /// Returns the calls of a route in the last `count` intervals, and their seconds.
    pub(super) fn route(&self, label: &str, count: usize) -> (u64, f64) {
        self.latest(count).fold((0, 0.0), |(calls, seconds), interval| {
            (calls + interval.routes.get(label).copied().unwrap_or(0), seconds + interval.seconds)
        })
    }

    /// Returns how many seconds it covers.
    pub(super) fn seconds(&self) -> f64 {
        seconds(&self.0)
    }
}

/// Returns how many seconds some intervals cover.
fn seconds<'a>(intervals: impl IntoIterator<Item = &'a Arc<Interval>>) -> f64 {
    // Not `sum`: that of nothing is -0.0.
    intervals.into_iter().fold(0.0, |sum, interval| sum + interval.seconds)
}

/// Returns the entries with most calls.
fn busiest<T>(mut entries: Vec<(&str, T)>, calls: impl Fn(&T) -> u64) -> HashMap<Arc<str>, T> {
    entries.sort_by_key(|(_, entry)| std::cmp::Reverse(calls(entry)));
    entries.truncate(MAX_LABELS);
    entries.into_iter().map(|(label, entry)| (label.into(), entry)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Distribution;

    fn sample(total: u64, endpoints: usize) -> Sample {
        let endpoint = |number: usize| {
            let calls = total * u64::try_from(number + 1).unwrap();
            let duration = Distribution { buckets: vec![(0.001, calls), (0.01, calls)], count: calls };
            let responses = Responses { total: calls, client_errors: 0, server_errors: total };
            (format!("e{number:03}"), EndpointSample { responses, errors: 0, duration })
        };
        let requests = Responses { total, client_errors: 0, server_errors: 0 };
        Sample {
            requests,
            routes: HashMap::from([("chat".to_owned(), requests)]),
            endpoints: (0..endpoints).map(endpoint).collect(),
            ..Sample::default()
        }
    }

    #[test]
    fn keeps_ten_minutes_of_the_busiest_endpoints() {
        let (figures, start) = (Figures::default(), Instant::now());
        for number in 0..=200_u32 {
            figures.lock().add(start + INTERVAL * number, sample(u64::from(number) * 10, 100));
        }
        let recent = figures.recent();
        assert_eq!((recent.0.len(), recent.points().len()), (KEPT, POINTS));
        assert!((recent.seconds() - 600.0).abs() < 1e-6, "{}", recent.seconds());
        assert_eq!(recent.last(LAST_MINUTE).requests.total, 120);
        assert_eq!(recent.route("chat", KEPT).0, 1200);
        assert!(recent.endpoint("e000", KEPT).is_none(), "one of the least busy");
        let (busiest, seconds) = recent.endpoint("e099", LAST_MINUTE).unwrap();
        assert_eq!((busiest.calls, busiest.failed), (12_000, 120));
        assert!((seconds - 60.0).abs() < 1e-6);
        assert_eq!(recent.endpoint_points("e099").len(), POINTS);
    }

    #[test]
    fn first_sample_is_no_interval() {
        let figures = Figures::default();
        figures.lock().add(Instant::now(), sample(7, 1));
        assert_eq!(figures.recent().last(LAST_MINUTE).requests, Responses::default());
    }
}

//! A sample of the metrics that the status page shows as live figures.

use std::collections::HashMap;
use std::ops::AddAssign;

use prometheus::core::Collector;
use prometheus::proto::{Metric, MetricFamily};

use super::shared::SharedMetrics;

/// Counts since the start of the gateway.
#[derive(Clone, Debug, Default)]
pub struct Sample {
    /// Requests of callers.
    pub requests: Responses,
    /// Requests of callers by the label of the route.
    pub routes: HashMap<String, Responses>,
    /// The time that the gateway itself adds.
    pub overhead: Distribution,
    /// Calls to endpoints by the label of the endpoint.
    pub endpoints: HashMap<String, EndpointSample>,
}

/// The calls to an endpoint.
#[derive(Clone, Debug, Default)]
pub struct EndpointSample {
    /// Its responses.
    pub responses: Responses,
    /// Attempts without a complete response.
    pub errors: u64,
    /// The time to the head of a response.
    pub duration: Distribution,
}

/// Responses by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Responses {
    /// All responses.
    pub total: u64,
    /// Those with a status from 400 to 499.
    pub client_errors: u64,
    /// Those with a status from 500.
    pub server_errors: u64,
}

/// A histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Distribution {
    /// The upper bound of each bucket, in seconds, and how many values are at most that, in ascending order.
    pub buckets: Vec<(f64, u64)>,
    /// How many values there are.
    pub count: u64,
}

impl Sample {
    /// Reads the metrics, as far as the workers have flushed them.
    pub(super) fn of(metrics: &SharedMetrics) -> Self {
        let mut sample = Self::default();
        for_each(&metrics.requests, |metric| {
            let (code, count) = (label(metric, "code"), counter(metric));
            sample.requests.add(code, count);
            sample.routes.entry(label(metric, "route").to_owned()).or_default().add(code, count);
        });
        for_each(&metrics.overhead, |metric| sample.overhead = Distribution::of(metric));
        let mut endpoints = HashMap::<String, EndpointSample>::new();
        let mut with_endpoint = |metric: &Metric, change: &dyn Fn(&mut EndpointSample)| {
            change(endpoints.entry(label(metric, "endpoint").to_owned()).or_default());
        };
        for_each(&metrics.upstream_requests, |metric| {
            with_endpoint(metric, &|endpoint| endpoint.responses.add(label(metric, "code"), counter(metric)));
        });
        for_each(&metrics.upstream_errors, |metric| {
            with_endpoint(metric, &|endpoint| endpoint.errors += counter(metric));
        });
        for_each(&metrics.upstream_duration, |metric| {
            with_endpoint(metric, &|endpoint| endpoint.duration = Distribution::of(metric));
        });
        sample.endpoints = endpoints;
        sample
    }
}

impl Responses {
    /// Reads how many requests have ended, as far as the workers have counted them.
    pub(super) fn of(metrics: &SharedMetrics) -> Self {
        let mut responses = Self::default();
        for_each(&metrics.requests, |metric| responses.add(label(metric, "code"), counter(metric)));
        responses
    }

    /// Returns the responses since an earlier count.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            total: self.total.saturating_sub(before.total),
            client_errors: self.client_errors.saturating_sub(before.client_errors),
            server_errors: self.server_errors.saturating_sub(before.server_errors),
        }
    }

    fn add(&mut self, code: &str, count: u64) {
        self.total += count;
        match code.as_bytes().first() {
            Some(b'4') => self.client_errors += count,
            Some(b'5') => self.server_errors += count,
            Some(_) | None => {}
        }
    }
}

impl AddAssign for Responses {
    fn add_assign(&mut self, other: Self) {
        self.total += other.total;
        self.client_errors += other.client_errors;
        self.server_errors += other.server_errors;
    }
}

impl Distribution {
    fn of(metric: &Metric) -> Self {
        let histogram = metric.get_histogram();
        let buckets = histogram.get_bucket().iter();
        Self {
            buckets: buckets.map(|bucket| (bucket.upper_bound(), bucket.cumulative_count())).collect(),
            count: histogram.get_sample_count(),
        }
    }
}

fn for_each(collector: &impl Collector, mut visit: impl FnMut(&Metric)) {
    collector.collect().iter().flat_map(MetricFamily::get_metric).for_each(&mut visit);
}

fn label<'a>(metric: &'a Metric, name: &str) -> &'a str {
    metric.get_label().iter().find(|label| label.name() == name).map_or("", |label| label.value())
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count that is far below 2^53")]
fn counter(metric: &Metric) -> u64 {
    metric.get_counter().get_value() as u64
}

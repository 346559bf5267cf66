//! Registration of metrics: names, buckets, and pruning of every vector that is registered.

use std::sync::Arc;

use arc_swap::ArcSwapOption;
use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricFamily;
use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

use super::label_table::Labels;
use super::prune::Prune;

/// The buckets that OpenTelemetry recommends for HTTP durations, and two finer ones, since many calls take about a
/// millisecond.
pub(super) const DURATION_BUCKETS: [f64; 16] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Where metrics are registered. All names begin with `signalr_gateway_`.
///
/// Every vector that is registered is also pruned: [`gather`](Self::gather) removes the series of names that the
/// configuration no longer has.
#[derive(Default)]
pub struct MetricRegistry {
    registry: Registry,
    vectors: Vec<Box<dyn Prune>>,
    labels: LabelsInForce,
}

/// The labels of the configuration in force; `None` before the first one.
pub(super) type LabelsInForce = Arc<ArcSwapOption<Labels>>;

impl MetricRegistry {
    pub(super) fn counter(&mut self, name: &str, help: &str) -> prometheus::Result<IntCounter> {
        self.register(IntCounter::with_opts(opts(name, help))?)
    }

    pub(super) fn gauge(&mut self, name: &str, help: &str) -> prometheus::Result<IntGauge> {
        self.register(IntGauge::with_opts(opts(name, help))?)
    }

    pub(super) fn float_gauge(&mut self, name: &str, help: &str) -> prometheus::Result<Gauge> {
        self.register(Gauge::with_opts(opts(name, help))?)
    }

    pub(super) fn histogram(&mut self, name: &str, help: &str, buckets: &[f64]) -> prometheus::Result<Histogram> {
        self.register(Histogram::with_opts(HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec()))?)
    }

    pub(super) fn counters(&mut self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntCounterVec> {
        self.register_vector(IntCounterVec::new(opts(name, help), labels)?)
    }

    pub(super) fn gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<IntGaugeVec> {
        self.register_vector(IntGaugeVec::new(opts(name, help), labels)?)
    }

    pub(super) fn float_gauges(&mut self, name: &str, help: &str, labels: &[&str]) -> prometheus::Result<GaugeVec> {
        self.register_vector(GaugeVec::new(opts(name, help), labels)?)
    }

    pub(super) fn histograms(
        &mut self,
        name: &str,
        help: &str,
        label: &str,
        buckets: &[f64],
    ) -> prometheus::Result<HistogramVec> {
        let opts = HistogramOpts::from(opts(name, help)).buckets(buckets.to_vec());
        self.register_vector(HistogramVec::new(opts, &[label])?)
    }

    /// Returns the labels of the configuration in force, which may change.
    pub(super) fn labels(&self) -> LabelsInForce {
        Arc::clone(&self.labels)
    }

    /// Registers the metrics of the process. Linux only.
    pub(super) fn process(&mut self) -> prometheus::Result<()> {
        #[cfg(target_os = "linux")]
        self.registry.register(Box::new(super::process::ProcessMetrics::new()))?;
        Ok(())
    }

    /// Returns all metrics. Prunes them first if there are series of names that the configuration in force does not have.
    pub fn gather(&self) -> Vec<MetricFamily> {
        let families = self.registry.gather();
        let labels = self.labels.load();
        let Some(labels) = labels.as_ref().filter(|labels| labels.has_unknown_names(&families)) else {
            return families;
        };
        for vector in &self.vectors {
            vector.prune(labels);
        }
        self.registry.gather()
    }

    /// Returns the names of the metrics with labels, without their common beginning, and of their labels.
    #[cfg(test)]
    pub(super) fn described(&self) -> Vec<(String, Vec<String>)> {
        let described = self.vectors.iter().flat_map(|vector| vector.described());
        described.map(|(name, labels)| (name.replacen("signalr_gateway_", "", 1), labels)).collect()
    }

    fn register<M: Collector + Clone + 'static>(&self, metric: M) -> prometheus::Result<M> {
        self.registry.register(Box::new(metric.clone()))?;
        Ok(metric)
    }

    fn register_vector<T: MetricVecBuilder + 'static>(
        &mut self,
        vector: MetricVec<T>,
    ) -> prometheus::Result<MetricVec<T>> {
        self.vectors.push(Box::new(vector.clone()));
        self.register(vector)
    }
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(name, help).namespace("signalr_gateway")
}

impl std::fmt::Debug for MetricRegistry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetricRegistry").field("vectors", &self.vectors.len()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::metrics::LabelTable;

    #[test]
    fn series_of_names_that_are_no_longer_configured_are_removed() {
        let mut registry = MetricRegistry::default();
        let calls = registry.counters("calls_total", "Calls.", &["endpoint", "code"]).unwrap();
        for endpoint in ["east", "west", "_other"] {
            calls.with_label_values(&[endpoint, "202"]).inc();
        }
        let series = |families: &[MetricFamily]| -> BTreeSet<String> {
            let labels =
                families.iter().flat_map(MetricFamily::get_metric).flat_map(prometheus::proto::Metric::get_label);
            labels.filter(|label| label.name() == "endpoint").map(|label| label.value().to_owned()).collect()
        };
        assert_eq!(series(&registry.gather()).len(), 3);
        let none = LabelTable::new(1);
        let endpoints = none.next(["east", "west"].into_iter());
        let labels = Labels {
            endpoints,
            routes: none.clone(),
            credentials: none.clone(),
            callers: none,
            listeners: BTreeSet::new(),
        };
        registry.labels().store(Some(Arc::new(labels)));
        assert_eq!(series(&registry.gather()), BTreeSet::from(["_other".to_owned(), "east".to_owned()]));
    }
}

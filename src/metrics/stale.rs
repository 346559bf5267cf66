//! Takes the series of what the configuration does not have any more out of the metrics. A request that began under an
//! older configuration may bring one back, so this is looked at with each scrape and not once.

use std::collections::{BTreeSet, HashMap};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricFamily;

/// The configured names that label series, all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KnownNames {
    /// The routes.
    pub routes: BTreeSet<String>,
    /// The endpoints.
    pub endpoints: BTreeSet<String>,
    /// The credentials.
    pub credentials: BTreeSet<String>,
    /// The listeners.
    pub listeners: BTreeSet<String>,
}

/// A metric whose series may be taken out one by one.
pub(super) trait Vector: Send + Sync {
    fn forget(&self, known: &KnownNames);
}

impl KnownNames {
    /// Whether a series is one of something that is not there. What begins with `_` stands for no name at all.
    fn is_stale(&self, label: &str, value: &str) -> bool {
        let names = match label {
            "route" => &self.routes,
            "endpoint" => &self.endpoints,
            "credential" => &self.credentials,
            "listener" => &self.listeners,
            _ => return false,
        };
        !value.starts_with('_') && !names.contains(value)
    }

    /// Whether any series is one of something that is not there.
    pub(super) fn has_stale(&self, families: &[MetricFamily]) -> bool {
        let labels = families.iter().flat_map(MetricFamily::get_metric).flat_map(prometheus::proto::Metric::get_label);
        labels.into_iter().any(|label| self.is_stale(label.name(), label.value()))
    }
}

impl<T: MetricVecBuilder> Vector for MetricVec<T> {
    fn forget(&self, known: &KnownNames) {
        for family in self.collect() {
            for metric in family.get_metric() {
                let labels: HashMap<&str, &str> =
                    metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
                if labels.iter().any(|(label, value)| known.is_stale(label, value)) {
                    // Nobody else takes series out.
                    let _was_there = self.remove(&labels);
                }
            }
        }
    }
}

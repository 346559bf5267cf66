//! Removes the series of names that the configuration no longer has.
//!
//! A request that began under an older configuration may bring a series back, so every scrape prunes, not only the reload.

use std::collections::{BTreeSet, HashMap};

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};
use prometheus::proto::MetricFamily;

/// The names in the configuration that label series.
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

/// A metric whose series can be removed one by one.
pub(super) trait Prune: Send + Sync {
    /// Removes the series whose names are not among `known`.
    fn prune(&self, known: &KnownNames);
}

impl KnownNames {
    /// Returns whether any series belongs to a name that is not known.
    pub(super) fn has_unknown_names(&self, families: &[MetricFamily]) -> bool {
        let labels = families.iter().flat_map(MetricFamily::get_metric).flat_map(prometheus::proto::Metric::get_label);
        labels.into_iter().any(|label| self.is_unknown(label.name(), label.value()))
    }

    /// Returns whether a label's value is a name that is not known. Values that begin with `_` are not names.
    fn is_unknown(&self, label: &str, value: &str) -> bool {
        let names = match label {
            "route" => &self.routes,
            "endpoint" => &self.endpoints,
            "credential" => &self.credentials,
            "listener" => &self.listeners,
            _ => return false,
        };
        !value.starts_with('_') && !names.contains(value)
    }
}

impl<T: MetricVecBuilder> Prune for MetricVec<T> {
    fn prune(&self, known: &KnownNames) {
        for family in self.collect() {
            for metric in family.get_metric() {
                let labels: HashMap<&str, &str> =
                    metric.get_label().iter().map(|label| (label.name(), label.value())).collect();
                if labels.iter().any(|(label, value)| known.is_unknown(label, value)) {
                    // Only this function removes series, so the series exists.
                    let _was_removed = self.remove(&labels);
                }
            }
        }
    }
}

//! Removes the series of names that the configuration no longer has.
//!
//! A request that began under an older configuration may bring a series back, so every scrape prunes, not only the reload.

use std::collections::HashMap;

use prometheus::core::{Collector, MetricVec, MetricVecBuilder};

use super::label_table::Labels;

/// A metric whose series can be removed one by one.
pub(super) trait Prune: Send + Sync {
    /// Removes the series of names that are not among `labels`.
    fn prune(&self, labels: &Labels);

    /// Returns the names of the metric and of its labels.
    #[cfg(test)]
    fn described(&self) -> Vec<(String, Vec<String>)>;
}

impl<T: MetricVecBuilder> Prune for MetricVec<T> {
    fn prune(&self, known: &Labels) {
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

    #[cfg(test)]
    fn described(&self) -> Vec<(String, Vec<String>)> {
        self.desc().iter().map(|desc| (desc.fq_name.clone(), desc.variable_labels.clone())).collect()
    }
}

//! Gauges of canaries. A scrape reads the last rounds of those in force, and shows the worst of those that share a label.

use std::collections::BTreeMap;
use std::time::Duration;

use prometheus::{GaugeVec, IntGaugeVec};

use super::registry::MetricRegistry;
use super::states::StateSource;

/// The gauges.
#[derive(Clone, Debug)]
pub(super) struct CanaryGauges {
    success: IntGaugeVec,
    delivery: GaugeVec,
}

impl CanaryGauges {
    /// Registers the metrics.
    ///
    /// # Errors
    /// If one of them is registered already.
    pub(super) fn register(registry: &mut MetricRegistry) -> prometheus::Result<Self> {
        Ok(Self {
            success: registry.gauges(
                "canary_success",
                "1 if the last message of an endpoint's canary arrived at its client, 0 if it did not.",
                &["endpoint"],
            )?,
            delivery: registry.float_gauges(
                "canary_delivery_seconds",
                "Time from sending the last message of an endpoint's canary to its arrival; absent if it did not arrive.",
                &["endpoint"],
            )?,
        })
    }

    /// Sets the gauges to the last rounds of the canaries in force.
    pub(super) fn refresh(&self, parts: &dyn StateSource) {
        let mut worst: BTreeMap<String, Option<Duration>> = BTreeMap::new();
        parts.canaries(&mut |label, arrived_after| {
            let entry = worst.entry(label.name().to_owned()).or_insert(arrived_after);
            *entry = entry.zip(arrived_after).map(|(one, other)| one.max(other));
        });
        self.success.reset();
        self.delivery.reset();
        for (label, arrived_after) in &worst {
            self.success.with_label_values(&[label]).set(i64::from(arrived_after.is_some()));
            if let Some(after) = arrived_after {
                self.delivery.with_label_values(&[label]).set(after.as_secs_f64());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::metrics::{EndpointState, Label, LabelTable, ProofExpiries, TokenTimes};

    #[derive(Debug)]
    struct Rounds(Vec<(Label, Option<Duration>)>);

    impl StateSource for Rounds {
        fn endpoints(&self, _visit: &mut dyn FnMut(&Label, EndpointState)) {}

        fn certificates(&self, _visit: &mut dyn FnMut(&str, SystemTime, bool)) {}

        fn tokens(&self, _visit: &mut dyn FnMut(&str, Option<TokenTimes>)) {}

        fn proofs(&self, _visit: &mut dyn FnMut(&str, ProofExpiries)) {}

        fn fan_outs(&self, _visit: &mut dyn FnMut(&str)) {}

        fn canaries(&self, visit: &mut dyn FnMut(&Label, Option<Duration>)) {
            self.0.iter().for_each(|(label, round)| visit(label, *round));
        }
    }

    #[test]
    fn canaries_that_share_a_label_show_the_slowest_or_the_failure() {
        let labels = LabelTable::new(2).next(["east", "west"].into_iter());
        let [east, west] = ["east", "west"].map(|name| labels.get(name).clone());
        let after = |millis| Some(Duration::from_millis(millis));
        let rounds = Rounds(vec![
            (east.clone(), after(3)),
            (east.clone(), after(250)),
            (east, after(7)),
            (west.clone(), after(1)),
            (west, None),
        ]);
        let mut registry = MetricRegistry::default();
        let gauges = CanaryGauges::register(&mut registry).unwrap();
        gauges.refresh(&rounds);
        let shown = |label: &str| gauges.success.with_label_values(&[label]).get();
        assert_eq!((shown("east"), shown("west")), (1, 0));
        let families = registry.gather();
        let delivery = families.iter().find(|family| family.name().ends_with("canary_delivery_seconds")).unwrap();
        let values: Vec<f64> = delivery.get_metric().iter().map(|metric| metric.get_gauge().get_value()).collect();
        assert_eq!(values, [0.25], "no time of a message that did not arrive");
    }
}

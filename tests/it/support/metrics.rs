//! Parses the Prometheus text format.

use std::collections::{BTreeMap, BTreeSet};

/// The samples of one scrape, by series (`name{label="value",…}`).
#[derive(Debug)]
pub(crate) struct Samples(BTreeMap<String, f64>);

impl Samples {
    pub(crate) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        let samples = lines.map(|line| {
            let (series, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("not a sample: {line}"));
            (series.to_owned(), value.parse().unwrap_or_else(|_invalid| panic!("not a number: {line}")))
        });
        Self(samples.collect())
    }

    /// Sums all series of a metric that have these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let wanted: Vec<String> = labels.iter().map(|(label, value)| format!("{label}=\"{value}\"")).collect();
        let matching = self.0.iter().filter(|(series, _)| {
            let (found, rest) = series.split_once('{').unwrap_or((series, ""));
            found == format!("signalr_gateway_{name}") && wanted.iter().all(|label| rest.contains(label.as_str()))
        });
        matching.map(|(_, value)| value).sum()
    }

    /// Asserts that the series of a metric with these labels sum up to a number.
    #[track_caller]
    pub(crate) fn assert_sum(&self, name: &str, labels: &[(&str, &str)], expected: u32) {
        let found = self.sum(name, labels);
        assert!((found - f64::from(expected)).abs() < 1e-9, "{name} {labels:?} is {found}, not {expected}");
    }

    /// Returns the number of series.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Returns all series.
    pub(crate) fn series(&self) -> BTreeSet<&str> {
        self.0.keys().map(String::as_str).collect()
    }
}

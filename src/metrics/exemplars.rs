//! Exemplars: for each bucket of a histogram, the trace of the last request in it whose trace is recorded. Only OpenMetrics has
//! them.

use std::collections::HashMap;
use std::fmt;
use std::num::NonZeroU128;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use prometheus::local::LocalHistogram;

use super::label_table::Labels;
use super::registry::DURATION_BUCKETS;

/// The id of a trace. It displays as 32 hex digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceId(NonZeroU128);

impl TraceId {
    /// Returns the id with these bits; `None` if all are zero, which is no valid id.
    pub fn new(bits: u128) -> Option<Self> {
        NonZeroU128::new(bits).map(Self)
    }

    /// Returns the id of a new trace with these random low bits.
    pub fn with_low(low: u64) -> Self {
        let bits = u128::from(fastrand::u64(1..)) << 64 | u128::from(low);
        // The high bits are not all zero.
        Self(NonZeroU128::new(bits).unwrap_or(NonZeroU128::MIN))
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// A value that was observed, and its trace.
#[derive(Clone, Copy, Debug)]
struct Exemplar {
    trace: TraceId,
    value: f64,
    observed: SystemTime,
}

/// As OpenMetrics writes it behind a bucket. Its labels are 40 characters long; at most 128 are allowed.
///
/// Source: OpenMetrics 1.0.0, section "Exemplars".
impl fmt::Display for Exemplar {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { trace, value, observed } = self;
        let since_epoch = observed.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (seconds, millis) = (since_epoch.as_secs(), since_epoch.subsec_millis());
        write!(f, "# {{trace_id=\"{trace}\"}} {value} {seconds}.{millis:03}")
    }
}

/// The exemplars of one series, by bucket. The last bucket has no upper bound.
type Buckets = Box<[Option<Exemplar>; DURATION_BUCKETS.len() + 1]>;

/// A worker's histogram of durations, with its exemplars since the last flush.
pub(super) struct TracedHistogram {
    histogram: LocalHistogram,
    /// `None` unless a request was traced.
    exemplars: Option<Buckets>,
}

impl TracedHistogram {
    pub(super) fn new(histogram: LocalHistogram) -> Self {
        Self { histogram, exemplars: None }
    }

    /// Observes a duration in seconds. `trace` is its trace, if that is recorded.
    pub(super) fn observe(&mut self, value: f64, trace: Option<TraceId>) {
        self.histogram.observe(value);
        if let Some(trace) = trace {
            self.keep(value, trace);
        }
    }

    #[cold]
    fn keep(&mut self, value: f64, trace: TraceId) {
        let bucket = DURATION_BUCKETS.partition_point(|bound| *bound < value);
        if let Some(kept) = self.exemplars.get_or_insert_default().get_mut(bucket) {
            *kept = Some(Exemplar { trace, value, observed: SystemTime::now() });
        }
    }

    /// Flushes the counts to the shared histogram, and the exemplars to the shared ones of the series with this label.
    pub(super) fn flush(&mut self, shared: &Exemplars, name: &str) {
        self.histogram.flush();
        if let Some(exemplars) = self.exemplars.take() {
            shared.add(name, exemplars);
        }
    }
}

/// The last exemplars of a histogram of durations with one label: at most one for each bucket of each series.
#[derive(Debug)]
pub(super) struct Exemplars {
    /// The name of the histogram.
    metric: &'static str,
    label: &'static str,
    /// By the value of the label.
    series: Mutex<HashMap<String, Buckets>>,
}

impl Exemplars {
    pub(super) fn new(metric: &'static str, label: &'static str) -> Self {
        Self { metric, label, series: Mutex::default() }
    }

    /// Adds what a worker observed. The latest exemplar of each bucket is kept.
    fn add(&self, name: &str, added: Buckets) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(buckets) = series.get_mut(name) else {
            series.insert(name.to_owned(), added);
            return;
        };
        for (kept, added) in buckets.iter_mut().zip(*added) {
            let Some(exemplar) = added else { continue };
            if kept.is_none_or(|kept| kept.observed <= exemplar.observed) {
                *kept = added;
            }
        }
    }

    /// Removes the exemplars of names that are not among `labels`.
    pub(super) fn prune(&self, labels: &Labels) {
        let mut series = self.series.lock().unwrap_or_else(PoisonError::into_inner);
        series.retain(|name, _| !labels.is_unknown(self.label, name));
    }

    /// Adds each exemplar to `found`, by the series of its bucket as the text formats write it.
    pub(super) fn collect(&self, found: &mut HashMap<String, String>) {
        let Self { metric, label, series } = self;
        let bounds: Vec<String> = DURATION_BUCKETS.iter().map(f64::to_string).chain(["+Inf".to_owned()]).collect();
        for (name, buckets) in &*series.lock().unwrap_or_else(PoisonError::into_inner) {
            for (bound, exemplar) in bounds.iter().zip(buckets.iter()) {
                if let Some(exemplar) = exemplar {
                    let bucket = format!("signalr_gateway_{metric}_bucket{{{label}=\"{name}\",le=\"{bound}\"}}");
                    found.insert(bucket, exemplar.to_string());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::{Histogram, HistogramOpts};

    use super::*;

    fn histogram() -> TracedHistogram {
        let opts = HistogramOpts::new("calls", "Calls.").buckets(DURATION_BUCKETS.to_vec());
        TracedHistogram::new(Histogram::with_opts(opts).unwrap().local())
    }

    fn trace(id: u128) -> TraceId {
        TraceId::new(id).unwrap()
    }

    fn collected(exemplars: &Exemplars) -> HashMap<String, String> {
        let mut found = HashMap::new();
        exemplars.collect(&mut found);
        found
    }

    fn traces(exemplars: &Exemplars) -> Vec<(String, String)> {
        let found = collected(exemplars);
        let mut found: Vec<_> = found
            .into_iter()
            .map(|(series, exemplar)| (series, exemplar.split('"').nth(1).unwrap().trim_start_matches('0').to_owned()))
            .collect();
        found.sort();
        found
    }

    #[test]
    fn an_exemplar_is_written_as_open_metrics_asks_within_its_limit() {
        let exemplar = Exemplar {
            trace: TraceId::new(u128::MAX >> 4).unwrap(),
            value: 0.0123,
            observed: SystemTime::UNIX_EPOCH + Duration::from_millis(1_700_000_000_042),
        };
        let text = exemplar.to_string();
        assert_eq!(text, "# {trace_id=\"0fffffffffffffffffffffffffffffff\"} 0.0123 1700000000.042");
        let labels = text.split(['{', '}']).nth(1).unwrap();
        let characters = labels.chars().filter(|letter| !matches!(letter, '=' | '"' | ',')).count();
        assert_eq!(characters, "trace_id".len() + 32);
        assert!(characters <= 128, "{labels}");
    }

    #[test]
    fn zero_is_no_trace_id() {
        assert_eq!(TraceId::new(0), None);
    }

    #[test]
    fn each_bucket_of_a_series_keeps_its_last_exemplar() {
        let shared = Exemplars::new("calls_seconds", "operation");
        let mut histogram = histogram();
        for (value, id) in [(0.003, 1), (0.004, 2), (0.005, 3), (0.006, 4), (60.0, 5)] {
            histogram.observe(value, Some(trace(id)));
        }
        histogram.observe(0.0001, None);
        assert_eq!(collected(&shared), HashMap::new());
        histogram.flush(&shared, "hub_send");
        let bucket =
            |bound: &str| format!("signalr_gateway_calls_seconds_bucket{{operation=\"hub_send\",le=\"{bound}\"}}");
        let of = |bound: &str, id: &str| (bucket(bound), id.to_owned());
        // A bucket includes its upper bound.
        assert_eq!(traces(&shared), [of("+Inf", "5"), of("0.005", "3"), of("0.01", "4")]);

        // What was flushed stays until the next exemplar of its bucket.
        histogram.observe(0.007, Some(trace(6)));
        histogram.flush(&shared, "hub_send");
        assert_eq!(traces(&shared), [of("+Inf", "5"), of("0.005", "3"), of("0.01", "6")]);
    }

    #[test]
    fn the_latest_exemplar_of_all_workers_is_kept() {
        let shared = Exemplars::new("calls_seconds", "operation");
        let (mut first, mut second) = (histogram(), histogram());
        first.observe(0.002, Some(trace(1)));
        second.observe(0.002, Some(trace(2)));
        if let Some(Some(exemplar)) = first.exemplars.as_mut().and_then(|buckets| buckets.get_mut(1)) {
            exemplar.observed += Duration::from_secs(60);
        }
        first.flush(&shared, "hub_send");
        second.flush(&shared, "hub_send");
        assert_eq!(traces(&shared).first().unwrap().1, "1");
    }

    #[test]
    fn exemplars_of_names_that_are_no_longer_configured_are_removed() {
        let shared = Exemplars::new("calls_seconds", "endpoint");
        for name in ["east", "west", "_other"] {
            let mut histogram = histogram();
            histogram.observe(0.002, Some(trace(1)));
            histogram.flush(&shared, name);
        }
        let mut labels = Labels::new(1, 1, 1, 1);
        labels.endpoints = labels.endpoints.next(["west"].into_iter());
        shared.prune(&labels);
        let left: Vec<String> = traces(&shared).into_iter().map(|(series, _)| series).collect();
        assert_eq!(left.len(), 2, "{left:?}");
        assert!(left.iter().all(|series| !series.contains("east")), "{left:?}");
    }
}

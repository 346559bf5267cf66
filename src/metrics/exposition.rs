//! The text formats of a scrape.

use std::collections::HashMap;

use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use super::exemplars::Exemplars;

/// A text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposition {
    /// Prometheus text, version 0.0.4.
    Prometheus,
    /// OpenMetrics text, version 1.0.0.
    OpenMetrics,
}

impl Exposition {
    /// Returns the format that an `Accept` header asks for: OpenMetrics if it is named, Prometheus otherwise.
    pub fn preferred(accept: Option<&str>) -> Self {
        if accept.is_some_and(|accept| accept.contains("application/openmetrics-text")) {
            Self::OpenMetrics
        } else {
            Self::Prometheus
        }
    }

    /// Returns the media type.
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Prometheus => prometheus::TEXT_FORMAT,
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }

    /// Encodes metric families, with exemplars if the format has them.
    pub(super) fn encode(self, families: &[MetricFamily], exemplars: &[&Exemplars]) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(families, &mut text)?;
        match self {
            Self::Prometheus => Ok(text),
            Self::OpenMetrics => {
                let mut found = HashMap::new();
                for exemplars in exemplars {
                    exemplars.collect(&mut found);
                }
                Ok(to_open_metrics(&String::from_utf8_lossy(&text), families, &found).into_bytes())
            }
        }
    }
}

/// Converts Prometheus text to OpenMetrics. For the metrics used here the two differ in three ways: the metadata of a
/// counter names it without `_total`, an exemplar (by the series of its bucket) follows the value of its bucket, and the text
/// ends with `# EOF`.
///
/// Source: OpenMetrics 1.0.0, sections "Counter", "Exemplars" and "Overall structure".
fn to_open_metrics(text: &str, families: &[MetricFamily], exemplars: &HashMap<String, String>) -> String {
    let is_counter = |name: &str| {
        families.iter().any(|family| family.name() == name && family.get_field_type() == MetricType::COUNTER)
    };
    let mut out = String::with_capacity(text.len() + 8);
    for line in text.lines() {
        let mut words = line.splitn(4, ' ');
        match (words.next(), words.next(), words.next(), words.next()) {
            (Some("#"), Some(keyword), Some(name), Some(rest)) if is_counter(name) => {
                let family = name.strip_suffix("_total").unwrap_or(name);
                out.extend(["# ", keyword, " ", family, " ", rest]);
            }
            _ => {
                out.push_str(line);
                let exemplar = line.rsplit_once(' ').and_then(|(series, _)| exemplars.get(series));
                out.extend(exemplar.into_iter().flat_map(|exemplar| [" ", exemplar]));
            }
        }
        out.push('\n');
    }
    out.push_str("# EOF\n");
    out
}

#[cfg(test)]
mod tests {
    use prometheus::{HistogramOpts, HistogramVec, IntCounter, IntGauge, Registry};

    use super::*;
    use crate::metrics::TraceId;
    use crate::metrics::exemplars::TracedHistogram;
    use crate::metrics::registry::DURATION_BUCKETS;

    #[test]
    fn open_metrics_text_names_counters_without_total_and_has_an_end() {
        let registry = Registry::new();
        let counter = IntCounter::new("calls_total", "Calls.").unwrap();
        counter.inc();
        registry.register(Box::new(counter)).unwrap();
        registry.register(Box::new(IntGauge::new("open", "Open ones.").unwrap())).unwrap();
        let text = String::from_utf8(Exposition::OpenMetrics.encode(&registry.gather(), &[]).unwrap()).unwrap();
        assert_eq!(
            text,
            "# HELP calls Calls.\n# TYPE calls counter\ncalls_total 1\n# HELP open Open ones.\n# TYPE open gauge\nopen 0\n# EOF\n"
        );
    }

    #[test]
    fn only_open_metrics_text_has_exemplars() {
        let registry = Registry::new();
        let opts = HistogramOpts::new("signalr_gateway_calls_seconds", "Calls.").buckets(DURATION_BUCKETS.to_vec());
        let calls = HistogramVec::new(opts, &["operation"]).unwrap();
        registry.register(Box::new(calls.clone())).unwrap();
        let exemplars = Exemplars::new("calls_seconds", "operation");
        for operation in ["hub_send", "user_send"] {
            let mut histogram = TracedHistogram::new(calls.with_label_values(&[operation]).local());
            histogram.observe(0.002, TraceId::new(0xabc).filter(|_| operation == "hub_send"));
            histogram.flush(&exemplars, operation);
        }
        let encode = |format: Exposition| {
            let text = format.encode(&registry.gather(), &[&exemplars]).unwrap();
            String::from_utf8(text).unwrap()
        };
        let text = encode(Exposition::OpenMetrics);
        let with_exemplar: Vec<&str> = text.lines().filter(|line| line.contains(" # {")).collect();
        let [line] = *with_exemplar else { panic!("{text}") };
        let expected = "signalr_gateway_calls_seconds_bucket{operation=\"hub_send\",le=\"0.0025\"} 1 \
                        # {trace_id=\"00000000000000000000000000000abc\"} 0.002 ";
        assert!(line.starts_with(expected), "{line}");
        assert!(!encode(Exposition::Prometheus).contains("trace_id"));
    }

    #[test]
    fn prometheus_text_is_the_default_format() {
        for (accept, expected) in [
            (None, Exposition::Prometheus),
            (Some("*/*"), Exposition::Prometheus),
            (Some("application/openmetrics-text;version=1.0.0;q=0.75,text/plain;q=0.5"), Exposition::OpenMetrics),
        ] {
            assert_eq!(Exposition::preferred(accept), expected);
        }
    }
}

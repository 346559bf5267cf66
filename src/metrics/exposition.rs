//! The text formats of a scrape.

use prometheus::proto::{MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

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

    /// Encodes metric families.
    pub(super) fn encode(self, families: &[MetricFamily]) -> prometheus::Result<Vec<u8>> {
        let mut text = Vec::with_capacity(16 * 1024);
        TextEncoder::new().encode(families, &mut text)?;
        match self {
            Self::Prometheus => Ok(text),
            Self::OpenMetrics => Ok(to_open_metrics(&String::from_utf8_lossy(&text), families).into_bytes()),
        }
    }
}

/// Converts Prometheus text to OpenMetrics. For the metrics used here the two differ in two ways: the metadata of a counter
/// names it without `_total`, and the text ends with `# EOF`.
///
/// Source: OpenMetrics 1.0.0, sections "Counter" and "Overall structure".
fn to_open_metrics(text: &str, families: &[MetricFamily]) -> String {
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
            _ => out.push_str(line),
        }
        out.push('\n');
    }
    out.push_str("# EOF\n");
    out
}

#[cfg(test)]
mod tests {
    use prometheus::{IntCounter, IntGauge, Registry};

    use super::*;

    #[test]
    fn open_metrics_text_names_counters_without_total_and_has_an_end() {
        let registry = Registry::new();
        let counter = IntCounter::new("calls_total", "Calls.").unwrap();
        counter.inc();
        registry.register(Box::new(counter)).unwrap();
        registry.register(Box::new(IntGauge::new("open", "Open ones.").unwrap())).unwrap();
        let text = String::from_utf8(Exposition::OpenMetrics.encode(&registry.gather()).unwrap()).unwrap();
        assert_eq!(
            text,
            "# HELP calls Calls.\n# TYPE calls counter\ncalls_total 1\n# HELP open Open ones.\n# TYPE open gauge\nopen 0\n# EOF\n"
        );
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

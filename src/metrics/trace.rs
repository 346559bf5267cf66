//! Metrics of the export of traces.

use prometheus::IntCounter;

use super::registry::MetricRegistry;

/// Metrics of the export of traces. Cloning shares them.
#[derive(Clone, Debug)]
pub struct TraceMetrics {
    exported: IntCounter,
    dropped: IntCounter,
}

impl TraceMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// If one of them is registered already.
    pub fn register(registry: &mut MetricRegistry) -> prometheus::Result<Self> {
        Ok(Self {
            exported: registry.counter("trace_spans_exported_total", "Spans that the trace collector accepted.")?,
            dropped: registry.counter(
                "trace_spans_dropped_total",
                "Spans that were not exported: the queue was full, or the trace collector did not accept them.",
            )?,
        })
    }

    /// Counts spans that the collector accepted.
    pub fn exported(&self, spans: usize) {
        self.exported.inc_by(spans as u64);
    }

    /// Counts spans that were dropped.
    pub fn dropped(&self, spans: usize) {
        self.dropped.inc_by(spans as u64);
    }

    /// Returns the numbers of spans that were exported and dropped.
    pub fn counts(&self) -> (u64, u64) {
        (self.exported.get(), self.dropped.get())
    }
}

//! Metrics of the export of traces.

use prometheus::IntCounter;

use super::registry::MetricRegistry;

/// Metrics of the export of traces. Cloning shares them.
#[derive(Clone, Debug)]
pub struct TraceMetrics {
    exported: IntCounter,
    dropped: IntCounter,
    failures: IntCounter,
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
            failures: registry.counter(
                "trace_export_failures_total",
                "Exports of spans that failed. Each is repeated, up to six times for the same spans.",
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

    /// Counts an export that failed.
    pub fn export_failed(&self) {
        self.failures.inc();
    }

    /// Returns the number of exports that failed.
    pub fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// Returns the numbers of spans that were exported and dropped.
    pub fn counts(&self) -> (u64, u64) {
        (self.exported.get(), self.dropped.get())
    }
}

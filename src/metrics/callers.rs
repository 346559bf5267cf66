//! Metrics of callers' connections.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec};

use super::labels::{CallerCloseReason, TlsRefusal};
use super::registry::MetricRegistry;
use super::zeros;

/// The metrics of callers' connections, which all workers share. Cloning shares them.
#[derive(Clone, Debug)]
pub struct CallerMetrics {
    accept_errors: IntCounter,
    open: IntGauge,
    max: IntGaugeVec,
    closed: IntCounterVec,
    tls_refused: IntCounterVec,
}

impl CallerMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// If one of them is registered already.
    pub(super) fn register(registry: &mut MetricRegistry) -> prometheus::Result<Self> {
        Ok(Self {
            accept_errors: registry
                .counter("accept_errors_total", "Connections of callers that could not be accepted.")?,
            open: registry.gauge("connections", "Open connections of callers.")?,
            max: registry.gauges(
                "connections_max",
                "How many connections of callers may be open: as configured, and as the limit of open files allows.",
                &["limit"],
            )?,
            closed: {
                let closed = registry.counters(
                    "connections_closed_total",
                    "Connections of callers that the gateway has closed, or asked the caller to close.",
                    &["reason"],
                )?;
                zeros::create_closed(&closed);
                closed
            },
            tls_refused: registry.counters(
                "tls_refused_total",
                "TLS handshakes that ended because of the caller's certificate, or because it had none.",
                &["listener", "reason"],
            )?,
        })
    }

    /// Makes metrics that no scrape shows.
    ///
    /// # Panics
    /// If two of them have the same name.
    #[cfg(any(test, fuzzing))]
    pub fn unregistered() -> Self {
        Self::register(&mut MetricRegistry::default()).unwrap_or_else(|err| panic!("{err}"))
    }

    /// Returns the gauge of open connections.
    pub fn open_connections(&self) -> IntGauge {
        self.open.clone()
    }

    /// Sets how many connections may be open: as configured, and what of it is in force.
    pub fn connection_limits(&self, configured: usize, in_force: usize) {
        for (limit, count) in [("configured", configured), ("in_force", in_force)] {
            self.max.with_label_values(&[limit]).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Counts a connection that could not be accepted.
    pub fn accept_failed(&self) {
        self.accept_errors.inc();
    }

    /// Counts a TLS handshake that the caller's certificate ended. The admin listener is `_admin`.
    pub fn tls_refused(&self, listener: &str, reason: TlsRefusal) {
        self.tls_refused.with_label_values(&[listener, reason.label()]).inc();
    }

    /// Counts a connection that the gateway closes.
    pub fn closed(&self, reason: CallerCloseReason) {
        self.closed.with_label_values(&[reason.label()]).inc();
    }
}

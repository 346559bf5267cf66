//! Metrics of the idempotency store that replicas share.

use prometheus::{IntCounterVec, IntGauge};

use super::labels::StoreOperation;
use super::registry::MetricRegistry;
use super::zeros;

/// Metrics of the shared idempotency store. Cloning shares them.
#[derive(Clone, Debug)]
pub struct IdempotencyMetrics {
    errors: IntCounterVec,
    up: IntGauge,
}

impl IdempotencyMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// If one of them is registered already.
    pub(super) fn register(registry: &mut MetricRegistry) -> prometheus::Result<Self> {
        let errors = registry.counters(
            "idempotency_store_errors_total",
            "Operations of the shared idempotency store that failed.",
            &["operation"],
        )?;
        zeros::create_store(&errors);
        Ok(Self {
            errors,
            up: registry.gauge(
                "idempotency_store_up",
                "Whether the shared idempotency store responds; 0 also if there is none.",
            )?,
        })
    }

    /// Counts an operation that failed.
    pub fn store_failed(&self, operation: StoreOperation) {
        self.errors.with_label_values(&[operation.label()]).inc();
    }

    /// Sets whether the store responds.
    pub fn store_up(&self, is_up: bool) {
        self.up.set(i64::from(is_up));
    }
}

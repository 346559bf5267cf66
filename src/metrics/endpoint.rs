//! Metrics of the endpoints' health. They change rarely, so all threads set them directly.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, IntGaugeVec};

use super::labels::BreakerState;
use super::registry::MetricRegistry;

/// Metrics of the endpoints' health. Cloning shares them.
#[derive(Clone, Debug)]
pub struct EndpointMetrics {
    breaker: IntGaugeVec,
    up: IntGaugeVec,
    cool_down: GaugeVec,
}

impl EndpointMetrics {
    /// Registers the metrics.
    ///
    /// # Errors
    /// If one of them is registered already.
    pub(super) fn register(registry: &mut MetricRegistry) -> prometheus::Result<Self> {
        Ok(Self {
            breaker: registry.gauges(
                "breaker_state",
                "The state of an endpoint's circuit breaker: 1 for the one it is in.",
                &["endpoint", "state"],
            )?,
            up: registry.gauges(
                "endpoint_up",
                "1 if the endpoint responded to the last probe of /api/health.",
                &["endpoint"],
            )?,
            cool_down: registry.float_gauges(
                "endpoint_cooldown_until_timestamp_seconds",
                "Until when an endpoint asked not to be called (Retry-After); 0 if it did not.",
                &["endpoint"],
            )?,
        })
    }

    /// Sets the state of an endpoint's circuit breaker.
    pub fn breaker(&self, endpoint: &str, state: BreakerState) {
        for one in BreakerState::ALL {
            self.breaker.with_label_values(&[endpoint, one.label()]).set(i64::from(*one == state));
        }
    }

    /// Sets whether the endpoint responded to the last probe.
    pub fn up(&self, endpoint: &str, up: bool) {
        self.up.with_label_values(&[endpoint]).set(i64::from(up));
    }

    /// Sets until when an endpoint asked not to be called.
    pub fn cool_down(&self, endpoint: &str, until: Option<SystemTime>) {
        let until = until.and_then(|until| until.duration_since(UNIX_EPOCH).ok());
        self.cool_down.with_label_values(&[endpoint]).set(until.map_or(0.0, |until| until.as_secs_f64()));
    }
}

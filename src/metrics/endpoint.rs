//! What is known of the endpoints' health. Changes are rare, so these are shared gauges.

use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, IntGaugeVec, Registry};

use super::labels::BreakerState;
use super::stale::Vector;
use super::{opts, register};

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
    pub(super) fn register(registry: &Registry) -> prometheus::Result<Self> {
        let state = opts("breaker_state", "The state of an endpoint's circuit breaker: 1 for the one it is in.");
        let up = opts("endpoint_up", "Whether the last probe of /api/health was answered.");
        let cool_down = opts(
            "endpoint_cooldown_until_timestamp_seconds",
            "Until when an endpoint asked not to be called (Retry-After); 0 if it did not.",
        );
        Ok(Self {
            breaker: register(registry, IntGaugeVec::new(state, &["endpoint", "state"])?)?,
            up: register(registry, IntGaugeVec::new(up, &["endpoint"])?)?,
            cool_down: register(registry, GaugeVec::new(cool_down, &["endpoint"])?)?,
        })
    }

    /// Returns the metrics that have series for configured names.
    pub(super) fn vectors(&self) -> [Box<dyn Vector>; 3] {
        [Box::new(self.breaker.clone()), Box::new(self.up.clone()), Box::new(self.cool_down.clone())]
    }

    /// Says in which state an endpoint's breaker is.
    pub fn breaker(&self, endpoint: &str, state: BreakerState) {
        for one in BreakerState::ALL {
            self.breaker.with_label_values(&[endpoint, one.label()]).set(i64::from(*one == state));
        }
    }

    /// Says whether the last probe was answered.
    pub fn up(&self, endpoint: &str, up: bool) {
        self.up.with_label_values(&[endpoint]).set(i64::from(up));
    }

    /// Says until when an endpoint asked not to be called.
    pub fn cool_down(&self, endpoint: &str, until: Option<SystemTime>) {
        let until = until.and_then(|until| until.duration_since(UNIX_EPOCH).ok());
        self.cool_down.with_label_values(&[endpoint]).set(until.map_or(0.0, |until| until.as_secs_f64()));
    }
}

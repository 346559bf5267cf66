//! Gauges of states: the health of endpoints and their retry budgets. A scrape reads the states of the configuration in
//! force and shows the worst of those that share a label, so that nothing is kept for each endpoint.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::{GaugeVec, IntGaugeVec};

use super::label_table::Label;
use super::labels::BreakerState;
use super::registry::MetricRegistry;
use super::retry_budgets::RetryBudgets;

/// The parts in force, whose states the metrics show.
pub trait StateSource: fmt::Debug + Send + Sync {
    /// Calls `visit` with the label and the state of each endpoint.
    fn endpoints(&self, visit: &mut dyn FnMut(&Label, EndpointState));

    /// Calls `visit` with the name of each listener with TLS, when its certificate expires, and whether its files as they are now
    /// cannot be used.
    fn certificates(&self, visit: &mut dyn FnMut(&str, SystemTime, bool));

    /// Calls `visit` with the name of each credential whose token is in use, once for each of its tenants, and with the times
    /// when the token was obtained and when it expires, if there is one.
    fn tokens(&self, visit: &mut dyn FnMut(&str, Option<TokenTimes>));

    /// Calls `visit` with the name of each credential whose certificate or assertion file was read, and with when they expire. The
    /// name may be repeated.
    fn proofs(&self, visit: &mut dyn FnMut(&str, ProofExpiries));

    /// Calls `visit` with the name of each route that delivers calls to several endpoints.
    fn fan_outs(&self, visit: &mut dyn FnMut(&str));

    /// Calls `visit` with the label of the endpoint of each canary that has sent a message, and with how long the last one took to
    /// arrive, if it arrived.
    fn canaries(&self, _visit: &mut dyn FnMut(&Label, Option<Duration>)) {}
}

/// When a token was obtained and when it expires, if ever.
pub type TokenTimes = (SystemTime, Option<SystemTime>);

/// When the files with which an app authenticates expire, as they were last read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProofExpiries {
    /// The client certificate.
    pub certificate: Option<SystemTime>,
    /// The assertion in a file.
    pub assertion_file: Option<SystemTime>,
}

/// The state of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndpointState {
    /// The state of its circuit breaker.
    pub breaker: BreakerState,
    /// Whether it responded to the last probe; `None` before the first one.
    pub up: Option<bool>,
    /// Until when it asked not to be called.
    pub cool_down: Option<SystemTime>,
}

impl EndpointState {
    /// Returns the worst of two states.
    fn worst(self, other: Self) -> Self {
        let severity = |state: BreakerState| match state {
            BreakerState::Closed => 0,
            BreakerState::HalfOpen => 1,
            BreakerState::Open => 2,
        };
        let is_worse = severity(other.breaker) > severity(self.breaker);
        Self {
            breaker: if is_worse { other.breaker } else { self.breaker },
            up: self.up.map_or(other.up, |up| Some(up && other.up.unwrap_or(true))),
            cool_down: self.cool_down.max(other.cool_down),
        }
    }
}

/// The gauges.
#[derive(Clone, Debug)]
pub(super) struct StateGauges {
    breaker: IntGaugeVec,
    up: IntGaugeVec,
    cool_down: GaugeVec,
    retry_budget: GaugeVec,
    not_after: GaugeVec,
    tls_refused: IntGaugeVec,
}

impl StateGauges {
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
            retry_budget: registry.float_gauges(
                "retry_budget_ratio",
                "What is left of an endpoint's retry budget, 0 to 1: the least of the workers.",
                &["endpoint"],
            )?,
            not_after: registry.float_gauges(
                "listener_not_after_timestamp_seconds",
                "When the certificate in force at a listener expires.",
                &["listener"],
            )?,
            tls_refused: registry.gauges(
                "listener_tls_files_refused",
                "1 while the TLS files of a listener cannot be used, so that those that were read before stay in force.",
                &["listener"],
            )?,
        })
    }

    /// Sets the gauges to the states of the parts in force.
    pub(super) fn refresh(&self, parts: &dyn StateSource, budgets: &RetryBudgets) {
        self.not_after.reset();
        self.tls_refused.reset();
        parts.certificates(&mut |listener, not_after, is_refused| {
            self.not_after.with_label_values(&[listener]).set(unix(not_after));
            self.tls_refused.with_label_values(&[listener]).set(i64::from(is_refused));
        });
        let mut states: HashMap<String, EndpointState> = HashMap::new();
        parts.endpoints(&mut |label, state| {
            if let Some(worst) = states.get_mut(label.name()) {
                *worst = worst.worst(state);
            } else {
                states.insert(label.name().to_owned(), state);
            }
        });
        self.breaker.reset();
        self.up.reset();
        self.cool_down.reset();
        self.retry_budget.reset();
        let budgets = budgets.lock();
        for (label, state) in &states {
            for one in BreakerState::ALL {
                let is_in = i64::from(*one == state.breaker);
                self.breaker.with_label_values(&[label, one.label()]).set(is_in);
            }
            if let Some(up) = state.up {
                self.up.with_label_values(&[label]).set(i64::from(up));
            }
            self.cool_down.with_label_values(&[label]).set(state.cool_down.map_or(0.0, unix));
            self.retry_budget.with_label_values(&[label]).set(budgets.least(label));
        }
    }
}

fn unix(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_that_share_a_label_show_the_worst_state() {
        let at = |seconds| Some(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds));
        let state = |breaker, up, cool_down| EndpointState { breaker, up, cool_down };
        let states = [
            state(BreakerState::Closed, Some(true), None),
            state(BreakerState::HalfOpen, None, at(7)),
            state(BreakerState::Closed, Some(false), at(3)),
        ];
        let worst = state(BreakerState::HalfOpen, Some(false), at(7));
        assert_eq!(states.into_iter().reduce(EndpointState::worst), Some(worst));
        assert_eq!(states.into_iter().rev().reduce(EndpointState::worst), Some(worst));
    }
}

//! The gauge of open connections to endpoints, as one worker counts it.

use std::fmt;
use std::rc::Rc;

use prometheus::IntGauge;

use super::labels::ConnectionState;
use super::local::GaugeShare;

/// The number of one worker's connections to one endpoint, by state. Cloning shares it.
#[derive(Clone)]
pub struct ConnectionGauge(Rc<Connections>);

struct Connections {
    active: GaugeShare,
    idle: GaugeShare,
    shared_active: IntGauge,
    shared_idle: IntGauge,
}

impl ConnectionGauge {
    /// Makes a worker's share of these two gauges.
    pub(super) fn new(shared_active: IntGauge, shared_idle: IntGauge) -> Self {
        let (active, idle) = Default::default();
        Self(Rc::new(Connections { active, idle, shared_active, shared_idle }))
    }

    /// Counts a connection in `state` until the guard is dropped.
    pub fn count(&self, state: ConnectionState) -> ConnectionCount {
        self.share(state).add(1);
        ConnectionCount { gauge: self.clone(), state }
    }

    /// Flushes the counts to the shared gauges.
    pub fn flush(&self) {
        self.0.flush();
    }

    fn share(&self, state: ConnectionState) -> &GaugeShare {
        match state {
            ConnectionState::Active => &self.0.active,
            ConnectionState::Idle => &self.0.idle,
        }
    }
}

impl Connections {
    fn flush(&self) {
        self.active.flush(&self.shared_active);
        self.idle.flush(&self.shared_idle);
    }
}

impl Drop for Connections {
    fn drop(&mut self) {
        self.flush();
    }
}

impl fmt::Debug for ConnectionGauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionGauge(active {}, idle {})", self.0.active.get(), self.0.idle.get())
    }
}

/// A connection that is counted in its state until this is dropped.
#[derive(Debug)]
pub struct ConnectionCount {
    gauge: ConnectionGauge,
    state: ConnectionState,
}

impl ConnectionCount {
    /// Moves the connection to another state.
    pub fn set(&mut self, state: ConnectionState) {
        self.gauge.share(self.state).add(-1);
        self.gauge.share(state).add(1);
        self.state = state;
    }
}

impl Drop for ConnectionCount {
    fn drop(&mut self) {
        self.gauge.share(self.state).add(-1);
    }
}

//! Whether a gateway has obtained the tokens that it needs to be ready.

use std::sync::Arc;

use super::app_state::{AppState, Demand};

/// The tokens that make a gateway ready. It reads the current state.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    demand: Arc<Demand>,
    apps: Vec<Arc<AppState>>,
}

impl Readiness {
    pub(super) fn new(demand: Arc<Demand>, apps: Vec<Arc<AppState>>) -> Self {
        Self { demand, apps }
    }

    /// Returns whether the tokens were obtained: with tokens on demand one of each app, else any. With tokens on demand, an app that
    /// each of its tenants refuses for a reason of the tenant delays no other app: it has nothing to serve.
    pub fn is_ready(&self) -> bool {
        let on_demand = self.demand.release_after().is_some();
        self.apps.iter().any(|app| app.obtained())
            && (!on_demand || self.apps.iter().all(|app| app.obtained() || app.is_refused_by_all_tenants()))
    }
}

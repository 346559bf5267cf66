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

    /// Returns whether the tokens were obtained: with tokens on demand one of each app, else any.
    pub fn is_ready(&self) -> bool {
        if self.demand.release_after().is_some() {
            self.apps.iter().all(|app| app.obtained())
        } else {
            self.apps.iter().any(|app| app.obtained())
        }
    }
}

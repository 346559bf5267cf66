//! The apps behind token lives, and the tenants of an app that are tried at start.
//!
//! With tokens on demand, a gateway is ready once each app has a token. The tenants of an app are tried one after the other, the
//! first three at once and the others slowly, since any of them may refuse the app for a reason of its own: its administrator
//! has not consented, or its id is wrong. Such a refusal does not show that the app's own credential works, because Entra may
//! look up the tenant before it checks the credential.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::acquire::Acquire;
use super::app_state::AppState;
use super::cell::TokenCell;
use super::error::RefusedParty;
use super::settings::{AppSettings, CredentialKind, CredentialName};

/// How many tenants of an app are tried at once, with tokens on demand. They repeat what failed.
const TRIED_AT_ONCE: usize = 3;
/// How long one of them may take before the next one is tried as well.
const TRY_NEXT_AFTER: Duration = Duration::from_secs(2);
/// The time between tries of the others. Chosen: a start with some unprovisioned tenants is delayed by seconds, and an authority
/// gets one request more in that time.
const BETWEEN_TRIES: Duration = Duration::from_secs(2);
/// The time between tries once all were tried, or while Entra refuses the app's own credential.
const BETWEEN_LATER_TRIES: Duration = Duration::from_secs(30);

/// An app registration, or a credential without one.
#[derive(Debug)]
pub(super) struct App {
    pub(super) state: Arc<AppState>,
    /// Its token lives, one for each tenant.
    pub(super) cells: Vec<Arc<TokenCell>>,
    /// The acquirer of one of them.
    pub(super) acquirer: Option<Arc<dyn Acquire>>,
    /// The names of its credentials.
    pub(super) names: BTreeSet<CredentialName>,
}

/// What token lives with the same [`AppState`] have in common.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum AppKey<'a> {
    App(&'a AppSettings),
    Other(&'a CredentialKind),
}

impl<'a> AppKey<'a> {
    pub(super) fn of(kind: &'a CredentialKind) -> Self {
        match kind {
            CredentialKind::App { app, .. } => Self::App(app),
            CredentialKind::ManagedIdentity { .. }
            | CredentialKind::AzureCli { .. }
            | CredentialKind::AccessKey { .. }
            | CredentialKind::TokenFile { .. } => Self::Other(kind),
        }
    }
}

impl App {
    pub(super) fn new(state: Arc<AppState>) -> Self {
        Self { state, cells: Vec::new(), acquirer: None, names: BTreeSet::new() }
    }

    pub(super) fn add(&mut self, cell: &Arc<TokenCell>, acquirer: &Arc<dyn Acquire>) {
        self.cells.push(Arc::clone(cell));
        self.acquirer.get_or_insert_with(|| Arc::clone(acquirer));
    }
}

/// Acquires a token by one cell after the other, until the app has one. Records whether all tenants refuse the app.
pub(super) async fn try_in_turn(app: Arc<AppState>, cells: Vec<Arc<TokenCell>>) {
    let mut refused_by_tenant = vec![false; cells.len()];
    let mut tries = 0_usize;
    loop {
        for (cell, refused_by_tenant) in cells.iter().zip(&mut refused_by_tenant) {
            let is_later = tries >= cells.len() || app.is_refused();
            if tries >= TRIED_AT_ONCE || is_later {
                sleep(if is_later { BETWEEN_LATER_TRIES } else { BETWEEN_TRIES }).await;
            }
            if app.obtained() {
                return;
            }
            let outcome = timeout(TRY_NEXT_AFTER, cell.try_once()).await;
            if matches!(outcome, Ok(Ok(()))) {
                return;
            }
            *refused_by_tenant = cell.refused_party() == Some(RefusedParty::Tenant);
            if tries >= TRIED_AT_ONCE {
                cell.release_unless_used();
            }
            tries = tries.saturating_add(1);
        }
        app.set_refused_by_all_tenants(refused_by_tenant.iter().all(|refused| *refused));
    }
}

#[cfg(test)]
pub(super) mod tests;

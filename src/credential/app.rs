//! The apps behind token lives, and the tenants of an app that are tried at start.

use std::sync::Arc;
use std::time::Duration;

use super::app_state::AppState;
use super::bearer::BearerSource;
use super::cell::TokenCell;
use super::settings::{AppSettings, CredentialKind};

/// The most tenants of an app that are tried at start, with tokens on demand.
const TRIED_AT_START: usize = 3;
/// How long the first of them may take before the next one is tried as well.
const TRY_NEXT_AFTER: Duration = Duration::from_secs(2);

/// An app registration, or a credential without one.
#[derive(Debug)]
pub(super) struct App {
    pub(super) state: Arc<AppState>,
    /// The token lives that are tried at start.
    pub(super) first: Vec<Arc<TokenCell>>,
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
    /// Adds a token life of the app.
    pub(super) fn add(&mut self, cell: &Arc<TokenCell>) {
        if self.first.len() < TRIED_AT_START {
            self.first.push(Arc::clone(cell));
        }
    }
}

/// Acquires a token by one cell after the other, until one has it. The cells repeat what failed.
pub(super) async fn try_in_turn(cells: Vec<Arc<TokenCell>>) {
    for cell in cells {
        if let Ok(Ok(())) = tokio::time::timeout(TRY_NEXT_AFTER, cell.acquire()).await {
            return;
        }
    }
}

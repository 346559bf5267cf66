//! All credentials of a gateway: they are built together, share cells where they are the same, and keep their tokens across reloads.

use std::cell::LazyCell;
use std::collections::{BTreeSet, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::acquire::{Acquire, TokenOrKey};
use super::acquirers::{Clients, CredentialProblem, Shared, acquirer};
use super::app::{App, AppKey, try_in_turn};
use super::app_state::{AppState, Demand};
use super::cell::TokenCell;
use super::error::CredentialError;
use super::proof_files;
use super::readiness::Readiness;
use super::record::AcquisitionRecord;
use super::refresh::Refresher;
use super::report::{AcquisitionReport, Authorization, Inspection, SigningKey};
use super::settings::{CredentialId, CredentialKind, CredentialSettings, Identity, TokenSettings};
use super::source::{BearerSource, CredentialState};
use super::state::{Progress, TokenState};
use crate::metrics::{ProofExpiries, TokenMetrics, TokenTimes};
use crate::redact::in_one_line;

/// All credentials of a gateway. Dropping it stops their refresh tasks; the tokens in service can be used until they expire.
#[derive(Debug)]
pub struct Credentials {
    shared: Arc<Shared>,
    pub(super) sources: HashMap<CredentialId, Arc<Source>>,
    apps: Arc<[App]>,
    /// The credentials of each source.
    ids: Vec<(Arc<Source>, Vec<CredentialId>)>,
    /// Why CA files that were read before cannot be used now.
    refused_cas: BTreeSet<String>,
    /// The CA files of the credentials that these are about: they are read again each time, like changed ones.
    refused_ca_files: HashSet<PathBuf>,
    /// Shared with the configurations before and after this one.
    demand: Arc<Demand>,
    control: tokio::runtime::Handle,
    /// The tasks that try the tenants of apps without a token, and the changed files of apps. Dropping it stops them.
    tries: Mutex<JoinSet<()>>,
}

/// A cell, its acquirer and the credentials that share it. Dropping it stops the refresh task.
#[derive(Debug)]
pub(super) struct Source {
    kind: CredentialKind,
    app: Arc<AppState>,
    /// Whether the token life that this one replaces was in use.
    was_in_use: bool,
    pub(super) cell: Arc<TokenCell>,
    acquirer: Arc<dyn Acquire>,
}

impl Drop for Source {
    fn drop(&mut self) {
        self.cell.stop();
    }
}

impl Credentials {
    /// Builds the credentials. Reads CA files, but no secrets, and does no network I/O. Credentials that differ only in their name
    /// share one cell.
    ///
    /// `control` is the runtime of the refresh tasks, with time and I/O enabled.
    ///
    /// # Errors
    /// [`CredentialBuildError`] names every credential that cannot be built.
    pub fn build(
        settings: &[CredentialSettings],
        metrics: &TokenMetrics,
        control: &tokio::runtime::Handle,
    ) -> Result<Self, CredentialBuildError> {
        let empty = Self {
            shared: Arc::new(Shared::new(metrics)),
            sources: HashMap::new(),
            apps: Arc::default(),
            ids: Vec::new(),
            refused_cas: BTreeSet::new(),
            refused_ca_files: HashSet::new(),
            demand: Arc::default(),
            control: control.clone(),
            tries: Mutex::default(),
        };
        empty.rebuild(settings, &HashSet::new(), metrics, control)
    }

    /// Builds credentials like [`Credentials::build`], and reuses the cells of unchanged ones. Changes no metric. If only the
    /// proof of a credential changed (another secret, or a certificate in its place), the new cell starts with the current
    /// token until it has acquired its own.
    ///
    /// A credential is also built anew if it trusts one of the CA files `changed_cas`. If that cannot be used now, an unchanged
    /// credential keeps the CAs that were read before.
    ///
    /// # Errors
    /// Like [`Credentials::build`]. `self` is unchanged.
    pub fn rebuild(
        &self,
        settings: &[CredentialSettings],
        changed_cas: &HashSet<PathBuf>,
        metrics: &TokenMetrics,
        control: &tokio::runtime::Handle,
    ) -> Result<Self, CredentialBuildError> {
        let mut distinct: Vec<(&CredentialKind, Vec<CredentialId>)> = Vec::with_capacity(settings.len());
        let mut positions = HashMap::with_capacity(settings.len());
        for credential in settings {
            let position = *positions.entry(&credential.kind).or_insert(distinct.len());
            match distinct.get_mut(position) {
                Some((_, ids)) => ids.push(credential.id.clone()),
                None => distinct.push((&credential.kind, vec![credential.id.clone()])),
            }
        }
        let predecessors = LazyCell::new(|| self.by_identity());
        let known_sources: HashMap<&CredentialKind, &Arc<Source>> =
            self.ids.iter().map(|(source, _)| (&source.kind, source)).collect();
        let mut clients = Clients::default();
        let known: HashMap<AppKey<'_>, &Arc<AppState>> =
            self.ids.iter().map(|(source, _)| (AppKey::of(&source.kind), &source.app)).collect();
        let (mut apps, mut positions) = (Vec::<App>::new(), HashMap::new());
        let (mut sources, mut ids_of, mut problems) = (HashMap::with_capacity(settings.len()), Vec::new(), Vec::new());
        let (mut refused_keys, mut refused_cas, mut refused_ca_files) =
            (HashSet::new(), BTreeSet::new(), HashSet::new());
        let is_read_again = |path: &Path| changed_cas.contains(path) || self.refused_ca_files.contains(path);
        for (kind, ids) in distinct {
            let key = AppKey::of(kind);
            let position = *positions.entry(key).or_insert_with(|| {
                let state = known
                    .get(&key)
                    .map_or_else(|| Arc::new(AppState::new(Arc::clone(&self.demand))), |state| Arc::clone(state));
                apps.push(App::new(state));
                apps.len() - 1
            });
            let Some(app) = apps.get_mut(position) else { continue };
            for CredentialId { name, .. } in &ids {
                if !app.names.contains(name) {
                    app.names.insert(name.clone());
                }
            }
            let (same, app_state) = (known_sources.get(kind).copied(), Arc::clone(&app.state));
            let mut add = |source: &Arc<Source>, ids: Vec<CredentialId>| {
                app.add(&source.cell, &source.acquirer);
                sources.extend(ids.iter().map(|id| (id.clone(), Arc::clone(source))));
                ids_of.push((Arc::clone(source), ids));
            };
            let keeps_cas = refused_keys.contains(&key) || !kind.ca_files().any(is_read_again);
            if let Some(same) = same.filter(|_| keeps_cas) {
                add(same, ids);
                continue;
            }
            let predecessor = kind.facts().identity.and_then(|identity| predecessors.get(&identity));
            let predecessor = predecessor.filter(|predecessor| predecessor.cell.is_running());
            let state = predecessor.map(|predecessor| TokenState::with_token_of(predecessor.cell.state()));
            let (state, (publish, progress)) =
                (Arc::new(state.unwrap_or_default()), watch::channel(Progress::default()));
            let acquirer = match acquirer(kind, &mut clients, &self.shared, &state) {
                Ok(acquirer) => acquirer,
                Err(problem) => {
                    if let Some(same) = same {
                        // The tenants of an app have the same CA files.
                        refused_keys.insert(key);
                        refused_cas.insert(in_one_line(&problem));
                        refused_ca_files.extend(kind.ca_files().map(Path::to_owned));
                        add(same, ids);
                    } else {
                        problems.push((ids, problem));
                    }
                    continue;
                }
            };
            state.set_ids(ids.clone());
            let (acquire, task_app) = (Arc::clone(&acquirer), Arc::clone(&app_state));
            let checks = &self.shared.file_checks;
            let refresher = Refresher::new(Arc::clone(&state), publish, acquire, task_app, metrics.clone(), checks);
            let cell = TokenCell::new(state, progress, refresher, Arc::clone(&app_state), control.clone());
            let source = Arc::new(Source {
                kind: kind.clone(),
                app: app_state,
                was_in_use: predecessor.is_some(),
                cell: Arc::new(cell),
                acquirer,
            });
            add(&source, ids);
        }
        if !problems.is_empty() {
            return Err(CredentialBuildError { problems });
        }
        Ok(Self {
            shared: Arc::clone(&self.shared),
            sources,
            apps: apps.into(),
            ids: ids_of,
            refused_cas,
            refused_ca_files,
            demand: Arc::clone(&self.demand),
            control: control.clone(),
            tries: Mutex::default(),
        })
    }

    /// Returns why CA files that were read before cannot be used now. Credentials keep the CAs that were read before.
    pub fn refused_cas(&self) -> &BTreeSet<String> {
        &self.refused_cas
    }

    /// Returns the sources by the identity in their tokens.
    fn by_identity(&self) -> HashMap<Identity<'_>, &Source> {
        let sources = self.ids.iter().map(|(source, _)| &**source);
        sources.filter_map(|source| Some((source.kind.facts().identity?, source))).collect()
    }

    /// Checks the secrets, keys, certificates and token files of a credential. Sends nothing and runs no program. Returns
    /// `None` if there is no such credential.
    pub async fn inspect(&self, id: &CredentialId) -> Option<Inspection> {
        let source = self.sources.get(id)?;
        let record = AcquisitionRecord::default();
        let problem = source.acquirer.inspect(&record).await.err();
        Some(Inspection { problem, warnings: record.take_warnings() })
    }

    /// Puts the settings in force and starts acquisitions: of every credential, or with tokens on demand of those that were in use
    /// and of one tenant of each app, which shows whether the app's own credential works.
    pub fn start(&self, settings: &TokenSettings) {
        self.shared.authorities.set_max_requests(settings.max_requests);
        let changed = self.demand.set(settings.release_after);
        for (source, ids) in &self.ids {
            source.cell.state().set_ids(ids.clone());
            if settings.release_after.is_none() || source.was_in_use {
                source.cell.start();
            }
            if changed {
                // Running tasks then wait for what the new settings say.
                source.cell.state().wake.notify_one();
            }
        }
        let mut tries = JoinSet::new();
        proof_files::follow(&self.apps, &mut tries, &self.control);
        if settings.release_after.is_some() {
            for app in self.apps.iter().filter(|app| !app.state.obtained()) {
                tries.spawn_on(try_in_turn(Arc::clone(&app.state), app.cells.clone()), &self.control);
            }
        }
        *self.tries.lock().unwrap_or_else(PoisonError::into_inner) = tries;
    }

    /// Returns the sources whose first acquisition has started and not ended.
    pub fn starting(&self) -> Vec<Arc<dyn BearerSource>> {
        let cells = self.sources.values().map(|source| &source.cell);
        let starting = cells.filter(|cell| cell.current_state() == CredentialState::Starting);
        starting.map(|cell| Arc::<TokenCell>::clone(cell) as Arc<dyn BearerSource>).collect()
    }

    /// Returns the tokens that make the gateway ready.
    pub fn readiness(&self) -> Readiness {
        Readiness::new(Arc::clone(&self.demand), self.apps.iter().map(|app| Arc::clone(&app.state)).collect())
    }

    /// Calls `visit` with the name of each credential whose token is in use, once for each of its tenants, and with the times when
    /// the token was obtained and when it expires, if there is one.
    pub fn tokens_in_use(&self, visit: &mut dyn FnMut(&str, Option<TokenTimes>)) {
        for (id, source) in self.sources.iter().filter(|(_, source)| source.cell.is_running()) {
            visit(id.name.as_str(), source.cell.state().dates());
        }
    }

    /// Calls `visit` with the name of each credential whose certificate or assertion file was read, and with when they expire.
    pub fn proof_expiries(&self, visit: &mut dyn FnMut(&str, ProofExpiries)) {
        for app in &*self.apps {
            let expiries = app.state.expiries();
            if expiries != ProofExpiries::default() {
                app.names.iter().for_each(|name| visit(name.as_str(), expiries));
            }
        }
    }

    /// Returns the bearer source of a credential.
    pub fn get(&self, id: &CredentialId) -> Option<Arc<dyn BearerSource>> {
        let source = self.sources.get(id)?;
        Some(Arc::<TokenCell>::clone(&source.cell))
    }

    /// Makes one acquisition and reports its steps. Does not put the token in service. Returns `None` if there is no such
    /// credential. The runtime must have time and I/O enabled.
    ///
    /// After `timeout`, it is cancelled and the steps so far are returned.
    ///
    /// # Cancel safety
    /// Safe: cancels a running request.
    pub async fn acquire_once(&self, id: &CredentialId, timeout: Duration) -> Option<AcquisitionReport> {
        let source = self.sources.get(id)?;
        let _waiting = source.cell.state().waiting_callers.enter();
        let record = AcquisitionRecord::default();
        let outcome = tokio::time::timeout(timeout, source.acquirer.acquire(&record)).await;
        let outcome = outcome.unwrap_or(Err(CredentialError::Deadline(timeout)));
        let outcome = outcome.map(|acquired| match acquired.token_or_key {
            TokenOrKey::Bearer(bearer) => Authorization::Bearer(bearer),
            TokenOrKey::AccessKey(key) => Authorization::Key(SigningKey(key)),
        });
        Some(AcquisitionReport { warnings: record.take_warnings(), steps: record.take_steps(), outcome })
    }
}

/// The error when credentials cannot be built.
#[derive(Debug)]
pub struct CredentialBuildError {
    /// Each problem with the credentials that have it. Never empty.
    pub problems: Vec<(Vec<CredentialId>, CredentialProblem)>,
}

impl std::fmt::Display for CredentialBuildError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (index, (ids, problem)) in self.problems.iter().enumerate() {
            let names: Vec<String> = ids.iter().map(CredentialId::to_string).collect();
            let separator = if index == 0 { "" } else { "; " };
            write!(f, "{separator}credentials.{}: {}", names.join(", credentials."), in_one_line(problem))?;
        }
        Ok(())
    }
}

impl std::error::Error for CredentialBuildError {}

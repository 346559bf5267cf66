//! The configuration in force, and its replacement in two phases.
//!
//! [`Live::prepare`] builds the parts of a new configuration and has no side effect: it sets no metric, starts no task and
//! watches no file. [`Prepared::warm_up`] then obtains the tokens of new credentials, and [`Live::commit`] registers the parts
//! and swaps them in; neither can fail.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use super::changes::changes;
use super::detached::run_detached;
use super::error::GatewayError;
use super::parts::{Parts, Prepared};
use super::settings::Settings;
use super::tls_follower::TlsFollower;
use crate::admin::{Admin, ConnectionLimit, LISTENER_NAME, View};
use crate::canary::{Canaries, CanaryStatuses, WantedCanary};
use crate::credential::{CredentialId, CredentialKind, CredentialSettings, Credentials};
use crate::descriptors;
use crate::endpoint::{Endpoint, EndpointSettings, Probes};
use crate::metrics::{EndpointState, Label, Metrics, ProofExpiries, StateSource, TokenTimes};
use crate::otlp::Exporter;
use crate::proxy::Snapshot;
use crate::redact::in_one_line;
use crate::route::{NamedBy, Pick, Route, Target};
use crate::runbook::{Condition, Section};
use crate::serve::{BoundAddress, BoundListeners, ListenerId, ListenerPlan, LiveTls};
use crate::tail::Tail;

/// The addresses that a gateway listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The listeners by name, in configured order.
    pub listeners: Vec<(String, BoundAddress)>,
    /// The admin listener, unless it is off.
    pub admin: Option<SocketAddr>,
}

/// Why parts are built anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// There is a new configuration.
    Configuration,
    /// CA files changed, and the configuration is the same.
    CaFiles,
}

/// The configuration in force.
#[derive(Debug)]
pub(super) struct Live {
    parts: Parts,
    control: Handle,
    metrics: Arc<Metrics>,
    tail: Arc<Tail>,
    latest: Arc<ArcSwap<Snapshot>>,
    probes: Probes,
    canaries: Canaries,
    addresses: Addresses,
    after_restart: Vec<&'static str>,
    /// When the configuration with these keys was accepted.
    restart_since: Option<SystemTime>,
    connections: ConnectionLimit,
    started: SystemTime,
    /// The TLS of the admin listener, if it has it.
    admin_tls: Option<Arc<LiveTls>>,
    /// The TLS of all listeners that have it.
    tls: Vec<Arc<LiveTls>>,
    tls_follower: TlsFollower,
    exporter: Exporter,
}

impl Live {
    /// Builds the parts that the gateway starts with. `listeners` are the ids of the settings' listeners, in order.
    pub(super) fn build(settings: Settings, listeners: &[ListenerId], control: &Handle) -> Result<Self, GatewayError> {
        let metrics = Arc::new(Metrics::new()?);
        let admin_tls = settings.admin.as_ref().and_then(|admin| admin.tls.as_ref());
        let admin_tls =
            admin_tls.map(|tls| LiveTls::load(LISTENER_NAME, tls).map_err(GatewayError::AdminTls)).transpose()?;
        let parts = Parts::first(settings, listeners, &metrics, control)?;
        metrics.config_in_force(
            &parts.settings.hash,
            Arc::clone(&parts.labels),
            states(&parts, &[], &CanaryStatuses::new()),
        );
        parts.snapshot.put_in_force();
        let exporter = Exporter::new(&parts.spans, control);
        descriptors::raise_limit();
        let configured = parts.settings.serve.max_connections;
        let connections =
            ConnectionLimit { configured, in_force: configured.min(descriptors::max_caller_connections()) };
        Ok(Self {
            latest: Arc::new(ArcSwap::new(Arc::clone(&parts.snapshot))),
            parts,
            control: control.clone(),
            metrics,
            tail: Arc::default(),
            probes: Probes::default(),
            canaries: Canaries::default(),
            addresses: Addresses { listeners: Vec::new(), admin: None },
            after_restart: Vec::new(),
            restart_since: None,
            connections,
            started: SystemTime::now(),
            admin_tls,
            tls: Vec::new(),
            tls_follower: TlsFollower::default(),
            exporter,
        })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.parts.settings
    }

    /// Returns the addresses of the configuration in force.
    pub(super) fn addresses(&self) -> &Addresses {
        &self.addresses
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns the readers of live summaries.
    pub(super) fn tail(&self) -> &Arc<Tail> {
        &self.tail
    }

    /// Returns the TLS of the admin listener, if it has it.
    pub(super) fn admin_tls(&self) -> Option<Arc<LiveTls>> {
        self.admin_tls.clone()
    }

    /// Returns the shared snapshot, which workers load at each request.
    pub(super) fn latest(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(&self.latest)
    }

    /// Starts token acquisition and endpoint probes, and follows the files of the listeners' TLS. Returns the state of the admin
    /// listener.
    pub(super) fn start(&mut self, addresses: &Addresses, tls: Vec<Arc<LiveTls>>) -> Arc<Admin> {
        self.addresses = addresses.clone();
        self.set_tls(tls);
        self.follow_tls();
        self.set_canaries();
        let (hash, labels) = (&self.parts.settings.hash, Arc::clone(&self.parts.labels));
        self.metrics.config_in_force(hash, labels, states(&self.parts, &self.tls, &self.canaries.statuses()));
        self.exporter.set(self.parts.settings.tracing.as_ref());
        self.parts.credentials.start(&self.parts.settings.tokens);
        self.probes.set_endpoints(self.parts.snapshot.endpoints(), alternatives(&self.parts.snapshot));
        self.watch_store();
        let admin = self.parts.settings.admin.as_ref();
        let allowed_hosts = admin.map(|admin| admin.allowed_hosts.clone()).unwrap_or_default();
        Admin::new(Arc::clone(&self.metrics), Arc::clone(&self.tail), allowed_hosts, self.view())
    }

    /// Builds the parts of a new configuration on a dedicated thread. Does not affect the one in force.
    ///
    /// # Errors
    /// The reason why they cannot be built, in one line.
    ///
    /// # Cancel safety
    /// Safe: what was built is dropped.
    pub(super) async fn prepare(
        &self,
        settings: Settings,
        listeners: ListenerPlan,
        on_slow: impl FnOnce(),
    ) -> Result<Prepared, String> {
        let (before, metrics, control) = (self.parts.clone(), Arc::clone(&self.metrics), self.control.clone());
        let build = move || before.next(settings, listeners, &metrics, &control);
        let prepared = run_detached("reading the files that the configuration names", build, on_slow).await;
        prepared.map_err(|failed| failed.to_string())?.map_err(|err| in_one_line(&err))
    }

    /// Puts a prepared configuration in force. Returns its listeners, which the server must switch to before
    /// [`Live::follow_tls`].
    pub(super) fn commit(&mut self, prepared: Prepared, cause: Cause, admin: &Admin) -> BoundListeners {
        let Prepared { parts, listeners, after_restart } = prepared;
        parts.ca_files.report(&self.parts.ca_files);
        for change in changes(&self.parts.settings, &parts.settings) {
            tracing::info!(change, "the configuration changed");
        }
        let kept: HashSet<_> = parts.snapshot.endpoints().iter().map(Arc::as_ptr).collect();
        let is_gone = |endpoint: &&Arc<Endpoint>| !kept.contains(&Arc::as_ptr(endpoint));
        self.parts.snapshot.endpoints().iter().filter(is_gone).for_each(|endpoint| endpoint.retire());
        parts.snapshot.put_in_force();
        // First: workers must know a new listener before its first connection.
        self.latest.store(Arc::clone(&parts.snapshot));
        self.probes.set_endpoints(parts.snapshot.endpoints(), alternatives(&parts.snapshot));
        let former = std::mem::replace(&mut self.parts, parts);
        self.watch_store();
        self.exporter.set(self.parts.settings.tracing.as_ref());
        self.control.spawn(free_once_unused(former.snapshot));
        let names_of = self.parts.settings.listeners.iter().map(|(listener, _)| listener.name.clone());
        self.addresses.listeners = names_of.zip(listeners.addresses()).collect();
        self.set_tls(listeners.tls());
        self.set_canaries();
        let hash = &self.parts.settings.hash;
        let states = states(&self.parts, &self.tls, &self.canaries.statuses());
        self.metrics.config_in_force(hash, Arc::clone(&self.parts.labels), states);
        self.metrics.ca_files_refused(self.parts.ca_files.refused.len());
        if cause == Cause::CaFiles {
            admin.refresh(self.view());
            return listeners;
        }
        self.metrics.restart_pending(after_restart.len());
        self.restart_since = (!after_restart.is_empty()).then(|| {
            let known = self.restart_since.filter(|_| self.after_restart == after_restart);
            known.unwrap_or_else(SystemTime::now)
        });
        self.after_restart = after_restart;
        self.metrics.reloaded(true);
        tracing::info!(hash, "the configuration was reloaded");
        if !self.after_restart.is_empty() {
            let keys = self.after_restart.join(", ");
            let section = Section::Condition(Condition::RestartNeeded);
            tracing::warn!(keys, remedy = section.remedy(), runbook = %section, "part of the new configuration takes effect only after a restart; calls are served as before, and the other settings are in force");
        }
        admin.show(self.view());
        listeners
    }

    /// Waits until a CA file has changed. The configuration in force must then be prepared again.
    ///
    /// # Cancel safety
    /// Safe.
    pub(super) async fn ca_files_changed(&self) {
        self.parts.ca_files.changed().await;
    }

    /// Starts the canaries of the configuration in force, and stops those that it no longer has.
    fn set_canaries(&mut self) {
        let Parts { settings, snapshot, .. } = &self.parts;
        let is_access_key = |kind: &CredentialKind| matches!(kind, CredentialKind::AccessKey { .. });
        let access_keys = settings.credentials.iter().filter(|credential| is_access_key(&credential.kind));
        let access_keys: HashSet<&CredentialId> = access_keys.map(|credential| &credential.id).collect();
        let wanted = |(settings, endpoint): (&Arc<EndpointSettings>, &Arc<Endpoint>)| {
            Some(WantedCanary {
                endpoint: Arc::clone(endpoint),
                settings: settings.canary.clone()?,
                is_access_key: access_keys.contains(&settings.credential),
            })
        };
        // The running endpoints have the order of their settings.
        self.canaries.set(settings.endpoints.iter().zip(snapshot.endpoints().iter()).filter_map(wanted));
    }

    fn set_tls(&mut self, mut tls: Vec<Arc<LiveTls>>) {
        tls.extend(self.admin_tls.clone());
        self.tls = tls;
    }

    /// Reads and follows the TLS files in force, and stops following the previous ones.
    pub(super) fn follow_tls(&mut self) {
        self.tls_follower = TlsFollower::start(&self.tls);
    }

    /// Records that a configuration was rejected. The one in force stays.
    pub(super) fn reject(&self, problem: String, admin: &Admin) {
        self.metrics.reloaded(false);
        let section = Section::Condition(Condition::ConfigurationRejected);
        tracing::error!(problem, side = "configuration", remedy = section.remedy_here(), runbook = %section, "the new configuration was rejected; the previous one stays in force");
        admin.show_rejection(problem);
    }

    /// Ends the answers of `/tail`, and waits until they are sent, for at most a second.
    pub(super) async fn end_tail(&self) {
        self.tail.end();
        let sent = async {
            while self.tail.is_read() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let _late = tokio::time::timeout(Duration::from_secs(1), sent).await;
    }

    /// Exports the spans that wait, for at most a second.
    pub(super) async fn stop_tracing(&mut self) {
        self.exporter.stop().await;
    }

    /// Starts the task that watches the shared idempotency store, if there is one.
    fn watch_store(&self) {
        if let Some(store) = self.parts.snapshot.shared_store() {
            store.watch();
        }
    }

    fn view(&self) -> View {
        let source =
            |credential: &CredentialSettings| Some((credential.clone(), self.parts.credentials.get(&credential.id)?));
        let listeners = self.addresses.listeners.iter();
        View {
            config_hash: self.parts.settings.hash.clone(),
            config_file: self.parts.settings.file.clone(),
            after_restart: self.after_restart.clone(),
            restart_since: self.restart_since,
            connections: self.connections,
            started: self.started,
            readiness: self.parts.credentials.readiness(),
            listeners: listeners.map(|(name, address)| (name.clone(), address.to_string())).collect(),
            tls: self.tls.clone(),
            refused_ca_files: self.parts.ca_files.refused.clone(),
            credentials: self.parts.settings.credentials.iter().filter_map(source).collect(),
            endpoints: Arc::clone(self.parts.snapshot.endpoints()),
            disabled: self.parts.settings.disabled.clone(),
            routes: self.parts.settings.routes.clone(),
            labels: Arc::clone(&self.parts.labels),
            idempotency_store: self.parts.snapshot.shared_store().cloned(),
            canaries: self.canaries.statuses(),
            tracing: self.exporter.monitor().cloned(),
        }
    }
}

/// How often a replaced configuration is checked for its last request.
const UNUSED_CHECK: Duration = Duration::from_secs(1);

/// Frees a replaced configuration once no worker uses it. Ten thousand routes and endpoints take milliseconds to free, for which
/// a worker would pause if it freed them.
async fn free_once_unused(former: Arc<Snapshot>) {
    while Arc::strong_count(&former) > 1 {
        tokio::time::sleep(UNUSED_CHECK).await;
    }
}

/// Returns the endpoints of each route among which its calls may fail over.
fn alternatives(snapshot: &Snapshot) -> impl Iterator<Item = Vec<usize>> {
    let may_pick = |route: &&Route| matches!(route.named_by(), None | Some(NamedBy::Header(_)));
    let routes = snapshot.routes().routes().iter().filter(may_pick).filter(|route| route.targets().len() > 1);
    routes.map(|route| {
        let mut indexes: Vec<usize> = route.targets().iter().map(Target::endpoint_index).collect();
        indexes.sort_unstable();
        indexes
    })
}

/// The parts in force, whose states the metrics show.
#[derive(Debug)]
struct States {
    snapshot: Arc<Snapshot>,
    credentials: Arc<Credentials>,
    tls: Vec<Arc<LiveTls>>,
    canaries: CanaryStatuses,
}

fn states(parts: &Parts, tls: &[Arc<LiveTls>], canaries: &CanaryStatuses) -> Arc<dyn StateSource> {
    let (snapshot, credentials) = (Arc::clone(&parts.snapshot), Arc::clone(&parts.credentials));
    Arc::new(States { snapshot, credentials, tls: tls.to_vec(), canaries: canaries.clone() })
}

impl StateSource for States {
    fn endpoints(&self, visit: &mut dyn FnMut(&Label, EndpointState)) {
        self.snapshot.endpoints().iter().for_each(|endpoint| visit(endpoint.label(), endpoint.health().state()));
    }

    fn certificates(&self, visit: &mut dyn FnMut(&str, SystemTime, bool)) {
        self.tls.iter().for_each(|tls| visit(tls.listener(), tls.not_after(), tls.problem().is_some()));
    }

    fn tokens(&self, visit: &mut dyn FnMut(&str, Option<TokenTimes>)) {
        self.credentials.tokens_in_use(visit);
    }

    fn proofs(&self, visit: &mut dyn FnMut(&str, ProofExpiries)) {
        self.credentials.proof_expiries(visit);
    }

    fn fan_outs(&self, visit: &mut dyn FnMut(&str)) {
        let routes = self.snapshot.routes().routes().iter();
        routes.filter(|route| matches!(route.pick(), Pick::All(_))).for_each(|route| visit(route.name().as_str()));
    }

    fn canaries(&self, visit: &mut dyn FnMut(&Label, Option<Duration>)) {
        if self.canaries.is_empty() {
            return;
        }
        for endpoint in self.snapshot.endpoints().iter() {
            if let Some(last) = self.canaries.get(endpoint.name()).and_then(|canary| canary.get().last) {
                visit(endpoint.label(), last.outcome.ok());
            }
        }
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;

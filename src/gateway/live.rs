//! The part of a gateway that follows the configuration while it serves, in two phases: [`Live::prepare`] makes the parts of
//! another configuration and has no effect if it fails, [`Live::commit`] puts them in force and cannot fail.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::aside::aside;
use super::changes::changes;
use super::parts::{Parts, Prepared};
use super::{Addresses, GatewayError, Settings};
use crate::admin::{Admin, EndpointView, RouteView, View};
use crate::credential::{CredentialSettings, CredentialState, Credentials, in_one_line};
use crate::endpoint::{Endpoint, EndpointRole, Probes};
use crate::metrics::{KnownNames, Metrics};
use crate::proxy::Snapshot;
use crate::route::RouteSettings;
use crate::serve::{BoundListeners, ListenerId, ListenerPlan};

/// How long a new configuration waits for the first tokens of new credentials before it is in force: so long, calls go on
/// under the one before instead of waiting. Chosen: most token requests take less than a second, a stuck one delays a reload
/// no longer than this.
const WARM_UP: Duration = Duration::from_secs(5);
/// How often it is looked whether they are there.
const WARM_UP_LOOK: Duration = Duration::from_millis(20);

/// What follows the configuration.
#[derive(Debug)]
pub(super) struct Live {
    parts: Parts,
    control: Handle,
    metrics: Arc<Metrics>,
    latest: Arc<ArcSwap<Snapshot>>,
    probes: Probes,
    addresses: Addresses,
    after_restart: Vec<&'static str>,
    started: SystemTime,
}

impl Live {
    /// Builds everything. Sends nothing. `listeners` are the ids of the settings' listeners, in order.
    pub(super) fn build(settings: Settings, listeners: &[ListenerId], control: &Handle) -> Result<Self, GatewayError> {
        let metrics = Arc::new(Metrics::new()?);
        let parts = Parts::first(settings, listeners, &metrics, control)?;
        metrics.config_in_force(&parts.settings.hash, names(&parts.settings));
        Ok(Self {
            latest: Arc::new(ArcSwap::new(Arc::clone(&parts.snapshot))),
            parts,
            control: control.clone(),
            metrics,
            probes: Probes::default(),
            addresses: Addresses { listeners: Vec::new(), admin: None },
            after_restart: Vec::new(),
            started: SystemTime::now(),
        })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.parts.settings
    }

    pub(super) fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// Returns what workers follow.
    pub(super) fn latest(&self) -> Arc<ArcSwap<Snapshot>> {
        Arc::clone(&self.latest)
    }

    /// Begins to obtain tokens and to probe, and returns what the admin listener shows.
    pub(super) fn open(&mut self, addresses: &Addresses) -> Arc<Admin> {
        self.addresses = addresses.clone();
        self.parts.credentials.start();
        self.probes.follow(self.parts.snapshot.endpoints());
        let admin = self.parts.settings.admin.as_ref();
        let allowed_hosts = admin.map(|admin| admin.allowed_hosts.clone()).unwrap_or_default();
        Admin::new(Arc::clone(&self.metrics), allowed_hosts, self.view())
    }

    /// Makes the parts of another configuration, and waits a while for the tokens that it needs. What is in force stays as it
    /// is until [`Live::commit`].
    ///
    /// # Errors
    /// What is wrong with it, in one line.
    ///
    /// # Cancel safety
    /// Safe: nothing is in force.
    pub(super) async fn prepare(
        &self,
        settings: Settings,
        listeners: ListenerPlan,
        say_slow: impl FnOnce(),
    ) -> Result<Prepared, String> {
        let (before, metrics, control) = (self.parts.clone(), Arc::clone(&self.metrics), self.control.clone());
        let build = move || before.next(settings, listeners, &metrics, &control);
        let prepared = aside("reading what the configuration names", build, say_slow).await;
        let prepared = prepared.map_err(|lost| lost.to_string())?.map_err(|err| in_one_line(&err))?;
        // From here on nothing fails. The tasks of credentials that are new begin; the others run already.
        prepared.parts.credentials.start();
        warm_up(&prepared.parts.settings, &prepared.parts.credentials).await;
        Ok(prepared)
    }

    /// Puts a configuration in force, and returns the listeners that the server is to go over to.
    pub(super) fn commit(&mut self, prepared: Prepared, admin: &Admin) -> BoundListeners {
        let Prepared { parts, listeners, after_restart } = prepared;
        for change in changes(&self.parts.settings, &parts.settings) {
            tracing::info!(change, "the configuration changed");
        }
        // Before any connection of a new listener is accepted.
        self.latest.store(Arc::clone(&parts.snapshot));
        self.probes.follow(parts.snapshot.endpoints());
        self.parts = parts;
        let names_of = self.parts.settings.listeners.iter().map(|(listener, _)| listener.name.clone());
        self.addresses.listeners = names_of.zip(listeners.addresses()).collect();
        self.after_restart = after_restart;
        let hash = &self.parts.settings.hash;
        self.metrics.config_in_force(hash, names(&self.parts.settings));
        self.metrics.reloaded(true);
        tracing::info!(hash, "the configuration was reloaded");
        if !self.after_restart.is_empty() {
            let keys = self.after_restart.join(", ");
            tracing::warn!(keys, "part of the new configuration is in force only after a restart");
        }
        admin.show(self.view());
        listeners
    }

    /// Notes that a configuration was refused. The one in force stays.
    pub(super) fn refuse(&self, problem: String, admin: &Admin) {
        self.metrics.reloaded(false);
        tracing::error!(problem, "the new configuration was refused; the one before stays in force");
        admin.refused(problem);
    }

    fn view(&self) -> View {
        let source = |credential: &CredentialSettings| {
            Some((credential.name.to_string(), self.parts.credentials.get(&credential.name)?))
        };
        let endpoint = |endpoint: &Arc<Endpoint>| {
            let settings = endpoint.settings();
            EndpointView {
                name: settings.name.to_string(),
                url: settings.origin.to_string(),
                credential: settings.credential.to_string(),
                role: match settings.role {
                    EndpointRole::Primary => "primary",
                    EndpointRole::Secondary => "secondary",
                },
                health: Arc::clone(endpoint.health()),
            }
        };
        let route = |route: &RouteSettings| RouteView {
            name: route.name.to_string(),
            pick: route.pick.as_str(),
            endpoints: route.endpoints.iter().map(|endpoint| endpoint.endpoint.to_string()).collect(),
        };
        let listeners = self.addresses.listeners.iter();
        View {
            config_hash: self.parts.settings.hash.clone(),
            after_restart: self.after_restart.clone(),
            started: self.started,
            listeners: listeners.map(|(name, address)| (name.clone(), address.to_string())).collect(),
            credentials: self.parts.settings.credentials.iter().filter_map(source).collect(),
            endpoints: self.parts.snapshot.endpoints().iter().map(endpoint).collect(),
            routes: self.parts.settings.routes.iter().map(route).collect(),
        }
    }
}

/// Returns the names that may label series.
fn names(settings: &Settings) -> KnownNames {
    KnownNames {
        routes: settings.routes.iter().map(|route| route.name.to_string()).collect(),
        endpoints: settings.endpoints.iter().map(|endpoint| endpoint.name.to_string()).collect(),
        credentials: settings.credentials.iter().map(|credential| credential.name.to_string()).collect(),
        listeners: settings.listeners.iter().map(|(listener, _)| listener.name.clone()).collect(),
    }
}

/// Waits until no credential is without an outcome of its first acquisition, or for [`WARM_UP`].
async fn warm_up(settings: &Settings, credentials: &Credentials) {
    let end = Instant::now() + WARM_UP;
    let is_starting = |credential: &CredentialSettings| {
        let source = credentials.get(&credential.name);
        source.is_some_and(|source| source.status().state == CredentialState::Starting)
    };
    while settings.credentials.iter().any(is_starting) && Instant::now() < end {
        sleep(WARM_UP_LOOK).await;
    }
}

#[cfg(test)]
#[path = "live_tests.rs"]
mod tests;

//! The part of a gateway that follows the configuration while it serves: credentials, endpoints, routes, rules. Sockets and
//! workers stay as they were begun.

use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::runtime::Handle;

use super::{Addresses, GatewayError, Reload, Settings};
use crate::admin::{Admin, EndpointView, RouteView, View};
use crate::credential::{CredentialSettings, Credentials, in_one_line};
use crate::endpoint::{Endpoint, EndpointRole, EndpointSettings, Probes};
use crate::metrics::{KnownNames, Metrics};
use crate::proxy::Snapshot;
use crate::route::{RouteSettings, Table};

/// What follows the configuration.
#[derive(Debug)]
pub(super) struct Live {
    settings: Settings,
    control: Handle,
    metrics: Arc<Metrics>,
    credentials: Credentials,
    latest: Arc<ArcSwap<Snapshot>>,
    probes: Probes,
    addresses: Addresses,
    started: SystemTime,
}

impl Live {
    /// Builds everything. Sends nothing.
    pub(super) fn build(settings: Settings, control: &Handle) -> Result<Self, GatewayError> {
        let metrics = Arc::new(Metrics::new()?);
        let credentials = Credentials::build(&settings.credentials, metrics.token(), control)?;
        let snapshot = snapshot(&settings, &credentials, None, &metrics)?;
        metrics.config_in_force(&settings.hash, names(&settings));
        Ok(Self {
            settings,
            control: control.clone(),
            metrics,
            credentials,
            latest: Arc::new(ArcSwap::from_pointee(snapshot)),
            probes: Probes::default(),
            addresses: Addresses { listeners: Vec::new(), admin: None },
            started: SystemTime::now(),
        })
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.settings
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
        self.credentials.start();
        self.probes.follow(self.latest.load().endpoints());
        let allowed_hosts = self.settings.admin.as_ref().map(|admin| admin.allowed_hosts.clone()).unwrap_or_default();
        Admin::new(Arc::clone(&self.metrics), allowed_hosts, self.view())
    }

    /// Goes on with another configuration, or says why not and goes on with the one in force.
    pub(super) fn reload(&mut self, reload: Reload, admin: &Admin) {
        let applied = reload.and_then(|settings| self.apply(settings).map_err(|err| in_one_line(&err)));
        self.metrics.reloaded(applied.is_ok());
        match applied {
            Ok(changes) => {
                for change in &changes {
                    tracing::info!(change, "the configuration changed");
                }
                tracing::info!(hash = self.settings.hash, changes = changes.len(), "the configuration was reloaded");
                admin.show(self.view());
            }
            Err(problem) => {
                tracing::error!(problem, "the new configuration was refused; the one before stays in force");
                admin.refused(problem);
            }
        }
    }

    /// Builds what is new, takes over what is the same, and only then changes what is in force.
    fn apply(&mut self, mut settings: Settings) -> Result<Vec<String>, GatewayError> {
        let mut changes = Vec::new();
        // Sockets and workers are as they were begun; their rules can change.
        let keeps = |new: &Settings, old: &Settings| {
            let listeners = |settings: &Settings| -> Vec<_> {
                settings.listeners.iter().map(|(listener, _)| listener.clone()).collect()
            };
            listeners(new) == listeners(old)
                && new.admin == old.admin
                && new.serve == old.serve
                && new.logging == old.logging
        };
        if !keeps(&settings, &self.settings) {
            changes.push("listeners, admin, shutdown, process or logging: in force after a restart".to_owned());
            let admission_of = |name: &str| {
                let mut new = settings.listeners.iter();
                new.find(|(listener, _)| listener.name == name).map(|(_, admission)| admission.clone())
            };
            let kept = self.settings.listeners.iter().map(|(listener, admission)| {
                (listener.clone(), admission_of(&listener.name).unwrap_or_else(|| admission.clone()))
            });
            settings.listeners = kept.collect();
            settings.admin.clone_from(&self.settings.admin);
            settings.serve = self.settings.serve.clone();
            settings.logging = self.settings.logging.clone();
        }
        let credentials = self.credentials.rebuild(&settings.credentials, self.metrics.token(), &self.control)?;
        let before = self.latest.load_full();
        let snapshot = snapshot(&settings, &credentials, Some(&before), &self.metrics)?;
        changes.extend(differences(&self.settings, &settings));

        credentials.start();
        self.probes.follow(snapshot.endpoints());
        self.latest.store(Arc::new(snapshot));
        self.credentials = credentials;
        self.settings = settings;
        self.metrics.config_in_force(&self.settings.hash, names(&self.settings));
        Ok(changes)
    }

    fn view(&self) -> View {
        let source = |credential: &CredentialSettings| {
            Some((credential.name.to_string(), self.credentials.get(&credential.name)?))
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
            pick: route.pick.word(),
            endpoints: route.endpoints.iter().map(|endpoint| endpoint.endpoint.to_string()).collect(),
        };
        let listeners = self.addresses.listeners.iter();
        View {
            config_hash: self.settings.hash.clone(),
            started: self.started,
            listeners: listeners.map(|(name, address)| (name.clone(), address.to_string())).collect(),
            credentials: self.settings.credentials.iter().filter_map(source).collect(),
            endpoints: self.latest.load().endpoints().iter().map(endpoint).collect(),
            routes: self.settings.routes.iter().map(route).collect(),
        }
    }
}

/// Makes what workers follow. Endpoints that are the same as before are taken over, with their connections and health.
fn snapshot(
    settings: &Settings,
    credentials: &Credentials,
    before: Option<&Snapshot>,
    metrics: &Metrics,
) -> Result<Snapshot, GatewayError> {
    let build = |endpoint: &EndpointSettings| {
        let bearer = credentials.get(&endpoint.credential).ok_or_else(|| GatewayError::NoCredential {
            endpoint: endpoint.name.to_string(),
            credential: endpoint.credential.to_string(),
        })?;
        let mut old = before.map(Snapshot::endpoints).unwrap_or_default().iter();
        let same = old.find(|old| old.settings() == endpoint && Arc::ptr_eq(old.bearer(), &bearer));
        match same {
            Some(same) => Ok::<_, GatewayError>(Arc::clone(same)),
            None => Ok(Arc::new(Endpoint::build(endpoint, bearer, metrics.endpoints())?)),
        }
    };
    let endpoints = settings.endpoints.iter().map(build).collect::<Result<Vec<_>, _>>()?;
    let endpoint_names: Vec<_> = settings.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
    let listener_names: Vec<_> = settings.listeners.iter().map(|(listener, _)| listener.name.as_str()).collect();
    let routes = Table::build(&settings.routes, &endpoint_names, &listener_names)?;
    let admissions = settings.listeners.iter().map(|(_, admission)| admission.clone()).collect();
    Ok(Snapshot::new(settings.proxy.clone(), admissions, routes, endpoints, before))
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

/// Says what changed, one line each.
fn differences(old: &Settings, new: &Settings) -> Vec<String> {
    let mut changes = Vec::new();
    named("credential", &old.credentials, &new.credentials, |one| one.name.as_str(), &mut changes);
    named("endpoint", &old.endpoints, &new.endpoints, |one| one.name.as_str(), &mut changes);
    named("route", &old.routes, &new.routes, |one| one.name.as_str(), &mut changes);
    named("listener", &old.listeners, &new.listeners, |(listener, _)| &listener.name, &mut changes);
    let order = |settings: &Settings| -> Vec<_> { settings.routes.iter().map(|route| route.name.clone()).collect() };
    if changes.iter().all(|change| !change.starts_with("route")) && order(old) != order(new) {
        changes.push("the order of the routes changed".to_owned());
    }
    if old.proxy != new.proxy {
        changes.push("limits, timeouts, retry, forwarding or logging.access changed".to_owned());
    }
    changes
}

fn named<'a, T: PartialEq>(
    what: &str,
    old: &'a [T],
    new: &'a [T],
    name: impl Fn(&'a T) -> &'a str,
    changes: &mut Vec<String>,
) {
    for one in new {
        match old.iter().find(|before| name(before) == name(one)) {
            None => changes.push(format!("{what} {} added", name(one))),
            Some(before) if before != one => changes.push(format!("{what} {} changed", name(one))),
            Some(_same) => {}
        }
    }
    for before in old {
        if !new.iter().any(|one| name(one) == name(before)) {
            changes.push(format!("{what} {} removed", name(before)));
        }
    }
}

//! The running parts of one configuration, made without any effect on what is in force: nothing is counted, no task is
//! started, nothing is accepted. A configuration that is refused leaves no trace.

use std::sync::Arc;

use tokio::runtime::Handle;

use super::{GatewayError, Settings};
use crate::credential::Credentials;
use crate::endpoint::{Endpoint, EndpointSettings};
use crate::metrics::Metrics;
use crate::proxy::Snapshot;
use crate::route::Table;
use crate::serve::{BoundListeners, ListenerId, ListenerPlan, ServeSettings};

/// The parts of one configuration, but for its sockets.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) settings: Settings,
    pub(super) credentials: Arc<Credentials>,
    pub(super) snapshot: Arc<Snapshot>,
}

/// The parts of another configuration, with its sockets, ready to be put in force.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) parts: Parts,
    pub(super) listeners: BoundListeners,
    /// Which keys of the configuration wait for a restart.
    pub(super) after_restart: Vec<&'static str>,
}

impl Parts {
    /// Makes the parts that a gateway starts with. `listeners` are the ids of the settings' listeners, in order.
    pub(super) fn first(
        settings: Settings,
        listeners: &[ListenerId],
        metrics: &Metrics,
        control: &Handle,
    ) -> Result<Self, GatewayError> {
        let credentials = Credentials::build(&settings.credentials, metrics.token(), control)?;
        let snapshot = snapshot(&settings, listeners, &credentials, None, metrics)?;
        Ok(Self { settings, credentials: Arc::new(credentials), snapshot: Arc::new(snapshot) })
    }

    /// Makes the parts of another configuration, and takes over those that are the same. Reads files, so not for the control
    /// runtime's own thread. Binds last, when nothing else can fail.
    pub(super) fn next(
        &self,
        mut settings: Settings,
        listeners: ListenerPlan,
        metrics: &Metrics,
        control: &Handle,
    ) -> Result<Prepared, GatewayError> {
        let after_restart = keep_until_restart(&mut settings, &self.settings);
        let credentials = self.credentials.rebuild(&settings.credentials, metrics.token(), control)?;
        let snapshot = snapshot(&settings, &listeners.ids(), &credentials, Some(&self.snapshot), metrics)?;
        let listeners = listeners.bind(settings.serve.workers)?;
        let parts = Self { settings, credentials: Arc::new(credentials), snapshot: Arc::new(snapshot) };
        Ok(Prepared { parts, listeners, after_restart })
    }
}

/// Takes over what only a restart changes, and returns the keys where that differs from what is configured. The hash names
/// what is in force, so it changes with them.
fn keep_until_restart(new: &mut Settings, old: &Settings) -> Vec<&'static str> {
    let mut keys = Vec::new();
    if new.admin != old.admin {
        keys.push("admin");
        new.admin.clone_from(&old.admin);
    }
    if new.serve != old.serve {
        let (now, wanted) = (&old.serve, &new.serve);
        if now.workers != wanted.workers {
            keys.push("process.workers");
        }
        if now.max_connections != wanted.max_connections {
            keys.push("limits.max_connections");
        }
        if now.drain_delay != wanted.drain_delay || now.drain_timeout != wanted.drain_timeout {
            keys.push("shutdown");
        }
        let rest = ServeSettings {
            workers: now.workers,
            max_connections: now.max_connections,
            drain_delay: now.drain_delay,
            drain_timeout: now.drain_timeout,
            ..wanted.clone()
        };
        if rest != *now {
            keys.push("timeouts");
        }
        new.serve = old.serve.clone();
    }
    if new.logging != old.logging {
        keys.push("logging.filter, logging.format");
        new.logging = old.logging.clone();
    }
    if !keys.is_empty() {
        let Settings { admin, serve, logging, hash, .. } = &new;
        new.hash = super::short_hash(&format!("{hash} {admin:?} {serve:?} {logging:?}"));
    }
    keys
}

/// Makes what workers follow. Endpoints that are the same as before are taken over, with their connections and health.
fn snapshot(
    settings: &Settings,
    listeners: &[ListenerId],
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
    let admissions = settings.listeners.iter().map(|(_, admission)| admission.clone());
    let listeners = listeners.iter().copied().zip(admissions).collect();
    Ok(Snapshot::new(settings.proxy.clone(), listeners, routes, endpoints, before))
}

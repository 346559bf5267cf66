//! The running parts of one configuration.
//!
//! Building them has no side effect: it sets no metric, starts no task and accepts no connection. So a rejected configuration
//! changes nothing.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::{Instant, sleep};

use super::ca_files::CaFiles;
use super::error::GatewayError;
use super::settings::{Settings, short_hash};
use crate::credential::{CredentialState, Credentials};
use crate::endpoint::{Endpoint, EndpointName, EndpointSettings, Proxies, TlsClients};
use crate::idempotency::SharedStore;
use crate::metrics::{Labels, Metrics};
use crate::otlp::Exporter;
use crate::proxy::{Snapshot, SnapshotEndpoints};
use crate::route::{Callers, Table};
use crate::serve::{BoundListeners, ListenerId, ListenerPlan, ServeSettings};
use crate::trace::{SpanQueue, TokenSpans};

/// How long [`Prepared::warm_up`] waits for the first tokens of new credentials. Calls are served under the old
/// configuration meanwhile. Chosen: most token requests take less than a second, and a stuck one must not delay a reload for
/// longer.
const WARM_UP: Duration = Duration::from_secs(5);
/// The interval of its checks.
const WARM_UP_INTERVAL: Duration = Duration::from_millis(20);

/// The parts of one configuration, without its sockets.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    pub(super) settings: Arc<Settings>,
    pub(super) credentials: Arc<Credentials>,
    pub(super) snapshot: Arc<Snapshot>,
    pub(super) labels: Arc<Labels>,
    pub(super) ca_files: Arc<CaFiles>,
    pub(super) spans: Arc<SpanQueue>,
}

/// The parts and sockets of a new configuration, ready to be committed.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) parts: Parts,
    pub(super) listeners: BoundListeners,
    /// The changed keys that take effect only after a restart.
    pub(super) after_restart: Vec<&'static str>,
}

impl Parts {
    /// Builds the parts that a gateway starts with. `listeners` are the ids of the settings' listeners, in order.
    pub(super) fn first(
        settings: Settings,
        listeners: &[ListenerId],
        metrics: &Metrics,
        control: &Handle,
    ) -> Result<Self, GatewayError> {
        let mut ca_files = CaFiles::of(&settings);
        let credentials = Credentials::build(&settings.credentials, metrics.token(), control)?;
        let labels = settings.metric_labels();
        let store = shared_store(&settings, None, metrics, control);
        let snapshot = snapshot(&settings, listeners, &credentials, &labels, store, None, &mut ca_files)?;
        let spans = SpanQueue::new(metrics.trace());
        metrics.token().observe(TokenSpans::new(&spans));
        let snapshot = snapshot.with_tracer(Exporter::tracer(&spans, settings.tracing.as_ref()));
        let (settings, credentials, snapshot) = (Arc::new(settings), Arc::new(credentials), Arc::new(snapshot));
        Ok(Self { settings, credentials, snapshot, labels: Arc::new(labels), ca_files: Arc::new(ca_files), spans })
    }

    /// Builds the parts of a new configuration, and reuses the unchanged ones. Reads files, which may block. Binds
    /// sockets last, when nothing else can fail.
    pub(super) fn next(
        &self,
        mut settings: Settings,
        listeners: ListenerPlan,
        metrics: &Metrics,
        control: &Handle,
    ) -> Result<Prepared, GatewayError> {
        let mut ca_files = CaFiles::of(&settings);
        let after_restart = keep_until_restart(&mut settings, &self.settings);
        let credentials = self.credentials.rebuild(
            &settings.credentials,
            &ca_files.changed_since(&self.ca_files),
            metrics.token(),
            control,
        )?;
        let labels = settings.next_metric_labels(&self.labels);
        let store = shared_store(&settings, self.snapshot.shared_store(), metrics, control);
        let (ids, previous) = (listeners.ids(), Some(&*self.snapshot));
        let snapshot = snapshot(&settings, &ids, &credentials, &labels, store, previous, &mut ca_files)?;
        let spans = Arc::clone(&self.spans);
        let snapshot = snapshot.with_tracer(Exporter::tracer(&spans, settings.tracing.as_ref()));
        let listeners = listeners.bind(settings.serve.workers)?;
        let (settings, credentials, snapshot) = (Arc::new(settings), Arc::new(credentials), Arc::new(snapshot));
        let (labels, ca_files) = (Arc::new(labels), Arc::new(ca_files));
        let parts = Self { settings, credentials, snapshot, labels, ca_files, spans };
        Ok(Prepared { parts, listeners, after_restart })
    }
}

impl Prepared {
    /// Starts the tasks of new credentials that are acquired at start or whose predecessors are in use, and waits until each has
    /// obtained its first token or failed, but at most five seconds.
    pub(super) async fn warm_up(&self) {
        let Parts { settings, credentials, .. } = &self.parts;
        credentials.start(&settings.tokens);
        let end = Instant::now() + WARM_UP;
        let mut starting = credentials.starting();
        while !starting.is_empty() && Instant::now() < end {
            sleep(WARM_UP_INTERVAL).await;
            starting.retain(|source| source.current_state() == CredentialState::Starting);
        }
    }
}

/// Restores the settings that only a restart can change. Returns the keys whose new values are pending, and recomputes the hash,
/// which identifies the settings in force.
fn keep_until_restart(new: &mut Settings, old: &Settings) -> Vec<&'static str> {
    let mut keys = Vec::new();
    if new.admin != old.admin {
        keys.push("admin");
        new.admin.clone_from(&old.admin);
    }
    if new.serve != old.serve {
        let (now, next) = (&old.serve, &new.serve);
        if now.workers != next.workers {
            keys.push("process.workers");
        }
        if now.max_connections != next.max_connections {
            keys.push("limits.max_connections");
        }
        if now.drain_delay != next.drain_delay || now.drain_timeout != next.drain_timeout {
            keys.push("shutdown");
        }
        let rest = ServeSettings {
            workers: now.workers,
            max_connections: now.max_connections,
            drain_delay: now.drain_delay,
            drain_timeout: now.drain_timeout,
            ..next.clone()
        };
        if rest != *now {
            keys.push("timeouts");
        }
        new.serve = old.serve.clone();
    }
    if new.metrics != old.metrics {
        keys.push("metrics");
        new.metrics = old.metrics;
    }
    if new.logging.format != old.logging.format {
        keys.push("logging.format");
        new.logging.format = old.logging.format;
    }
    if !keys.is_empty() {
        let Settings { admin, serve, metrics, logging, hash, .. } = &new;
        new.hash = short_hash(&format!("{hash} {admin:?} {serve:?} {metrics:?} {logging:?}"));
    }
    keys
}

/// Returns the idempotency store that replicas share: the previous one if it has the same settings.
fn shared_store(
    settings: &Settings,
    previous: Option<&Arc<SharedStore>>,
    metrics: &Metrics,
    control: &Handle,
) -> Option<Arc<SharedStore>> {
    let wanted = settings.store.as_ref()?;
    let same = previous.filter(|previous| previous.settings() == wanted);
    Some(same.map_or_else(|| SharedStore::new(wanted, metrics.idempotency(), control).into(), Arc::clone))
}

/// Builds the snapshot that workers read. Reuses unchanged endpoints, with their connections and health.
fn snapshot(
    settings: &Settings,
    listeners: &[ListenerId],
    credentials: &Credentials,
    labels: &Labels,
    store: Option<Arc<SharedStore>>,
    previous: Option<&Snapshot>,
    ca_files: &mut CaFiles,
) -> Result<Snapshot, GatewayError> {
    let old: &[Arc<Endpoint>] = previous.map(|previous| &**previous.endpoints()).unwrap_or_default();
    let (mut tls_clients, mut proxies) = (TlsClients::default(), Proxies::default());
    for old in old {
        old.share_tls_clients(&mut tls_clients);
    }
    let old: HashMap<&EndpointName, &Arc<Endpoint>> = old.iter().map(|old| (old.name(), old)).collect();
    let mut build = |endpoint: &Arc<EndpointSettings>| {
        let bearer = credentials.get(&endpoint.credential).ok_or_else(|| GatewayError::NoCredential {
            endpoint: endpoint.name.to_string(),
            credential: endpoint.credential.to_string(),
        })?;
        let old = old.get(&endpoint.name).copied();
        let same =
            old.filter(|old| old.settings().differs_only_in_limits(endpoint) && Arc::ptr_eq(old.bearer(), &bearer));
        if let Some(same) = same.filter(|same| same.has_current_cas(&mut tls_clients)) {
            return Ok::<_, GatewayError>(Arc::clone(same));
        }
        let label = labels.endpoints.get(&endpoint.metrics_label).clone();
        Ok(Arc::new(Endpoint::build(endpoint, bearer, label, &mut tls_clients, &mut proxies)?))
    };
    let endpoints = settings.endpoints.iter().map(&mut build).collect::<Result<Vec<_>, _>>()?;
    ca_files.refused = tls_clients.into_refused();
    ca_files.refused.extend(credentials.refused_cas().iter().cloned());
    // Endpoints and credentials may share a file.
    ca_files.refused.sort_unstable();
    ca_files.refused.dedup();
    let endpoint_names: Vec<_> = settings.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
    let listener_names: Vec<_> = settings.listeners.iter().map(|(listener, _)| listener.name.as_str()).collect();
    let disabled: Vec<_> = settings.disabled.iter().map(|endpoint| endpoint.name.clone()).collect();
    let routes = Table::build_with_disabled(&settings.routes, &endpoint_names, &disabled, &listener_names)?;
    let admissions = settings.listeners.iter().map(|(_, admission)| admission.clone());
    let listeners = listeners.iter().copied().zip(admissions).collect();
    let callers = Callers::build(&settings.callers, &endpoint_names);
    let endpoints = SnapshotEndpoints { running: endpoints, settings: &settings.endpoints };
    let snapshot = Snapshot::new(settings.proxy.clone(), listeners, routes, callers, endpoints, labels, previous);
    Ok(snapshot.with_shared_store(store))
}

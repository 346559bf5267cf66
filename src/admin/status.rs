//! The content of `/status`: the configuration in force and the state of credentials and endpoints. Tokens appear only as
//! fingerprints.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::callers::Answer;
use super::calls::TrafficView;
use super::concerns::{ConnectionLimit, Rejection};
use super::entries::{
    CredentialView, DisabledView, EndpointStatus, ListenerView, RouteView, StoreView, credential_state, endpoint_since,
    endpoint_state,
};
use super::figures::Recent;
use super::query::{BROKEN, CREDENTIAL_STATES, ENDPOINT_STATES, Query};
use super::time::seconds;
use super::traces::TracesView;
use super::verdict::{Situation, VerdictView};
use crate::canary::CanaryStatuses;
use crate::credential::{BearerSource, CredentialId, CredentialSettings, CredentialState, Readiness};
use crate::endpoint::{DisabledEndpoint, Endpoint};
use crate::idempotency::SharedStore;
use crate::metrics::{LabelTable, Labels, LostLine};
use crate::otlp::ExportMonitor;
use crate::route::RouteSettings;
use crate::serve::LiveTls;

/// The running configuration that `/status` shows.
#[derive(Debug)]
pub struct View {
    /// The hash of the configuration in force.
    pub config_hash: String,
    /// The configuration file, if there is one.
    pub config_file: Option<PathBuf>,
    /// Keys of the last accepted configuration that take effect only after a restart.
    pub after_restart: Vec<&'static str>,
    /// When that configuration was accepted.
    pub restart_since: Option<SystemTime>,
    /// How many connections of callers may be open.
    pub connections: ConnectionLimit,
    /// When the gateway started.
    pub started: SystemTime,
    /// The listeners, by name, with their addresses.
    pub listeners: Vec<(String, String)>,
    /// The TLS of the listeners that have it.
    pub tls: Vec<Arc<LiveTls>>,
    /// Why CA files of endpoints or credentials cannot be used.
    pub refused_ca_files: Vec<String>,
    /// The tokens that make the gateway ready.
    pub readiness: Readiness,
    /// The credentials.
    pub credentials: Vec<(CredentialSettings, Arc<dyn BearerSource>)>,
    /// The endpoints.
    pub endpoints: Arc<[Arc<Endpoint>]>,
    /// The endpoints that are not in use.
    pub disabled: Vec<DisabledEndpoint>,
    /// The routes, in the order in which they are matched.
    pub routes: Vec<Arc<RouteSettings>>,
    /// The labels of the metrics.
    pub labels: Arc<Labels>,
    /// The idempotency store that replicas share.
    pub idempotency_store: Option<Arc<SharedStore>>,
    /// The canaries of the endpoints that have one.
    pub canaries: CanaryStatuses,
    /// The export of traces.
    pub tracing: Option<Arc<ExportMonitor>>,
}

/// The content of `/status`.
#[derive(Debug, Serialize)]
pub struct Status {
    /// What is wrong, what it means for calls, and what to do, in at most three lines.
    pub verdict: VerdictView,
    /// The gateway's version.
    pub version: &'static str,
    /// The hash of the configuration in force.
    pub config_hash: String,
    /// Keys of the last accepted configuration that take effect only after a restart. `config_hash` does not include them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after_restart: Vec<&'static str>,
    /// When the gateway started, in seconds since the Unix epoch.
    pub started: u64,
    /// Whether the gateway has obtained the first tokens and is not stopping.
    pub ready: bool,
    /// Whether the gateway is stopping.
    pub draining: bool,
    /// Calls in the last ten minutes.
    pub traffic: TrafficView,
    /// The listeners.
    pub listeners: Vec<ListenerView>,
    /// Why the last configuration was rejected, if it was. The previous one is then in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_reload: Option<String>,
    /// How many connections of callers may be open.
    pub max_connections: usize,
    /// How many lines the log has lost since the start, because stderr was not read or could not be written.
    pub lost_lines: u64,
    /// Why CA files of endpoints or credentials cannot be used, if some cannot. The CAs that were read before are then in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused_ca_files: Vec<String>,
    /// How many there are in each state, of all and not only of those on the page.
    pub counts: Counts,
    /// Which of the entries that the query asks for are listed.
    pub page: PageView,
    /// How many names have metric series of their own, and how many share `_other`.
    pub metric_labels: BTreeMap<&'static str, LabelCounts>,
    /// The idempotency store that replicas share, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_store: Option<StoreView>,
    /// The export of traces, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tracing: Option<TracesView>,
    /// The endpoints on the page, those with problems first.
    pub endpoints: Vec<EndpointStatus>,
    /// The endpoints on the page that are not in use (`enabled = false`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disabled_endpoints: Vec<DisabledView>,
    /// The credentials on the page, those with problems first.
    pub credentials: Vec<CredentialView>,
    /// The routes on the page, in the order in which they are matched.
    pub routes: Vec<RouteView>,
}

/// How many endpoints, credentials and routes there are. `total` counts all, `broken` those with a problem, and every other
/// entry those in a state.
#[derive(Debug, Default, Serialize)]
pub struct Counts {
    /// The endpoints.
    pub endpoints: BTreeMap<&'static str, usize>,
    /// The credentials, one for each tenant.
    pub credentials: BTreeMap<&'static str, usize>,
    /// The routes.
    pub routes: usize,
}

/// The page that is shown.
#[derive(Debug, Default, Serialize)]
pub struct PageView {
    /// Its number, from 1.
    pub number: usize,
    /// How many pages there are; at least 1.
    pub of: usize,
    /// The largest number of entries of each kind on a page.
    pub size: usize,
    /// How many endpoints the query asks for.
    pub endpoints: usize,
    /// How many credentials the query asks for.
    pub credentials: usize,
    /// How many routes the query asks for.
    pub routes: usize,
}

/// How many names have metric series of their own.
#[derive(Debug, Serialize)]
pub struct LabelCounts {
    /// Names with series of their own.
    pub own: usize,
    /// Names that share `_other`.
    pub other: usize,
}

impl View {
    /// Returns the entries that `query` asks for, those with problems first. Reads the states of all endpoints and
    /// credentials, and makes entries for those on the page only.
    pub(super) fn status(
        &self,
        (ready, draining): (bool, bool),
        rejection: Option<&Rejection>,
        query: &Query,
        recent: &Recent,
    ) -> Status {
        let config = self.config_file.as_deref();
        let mut states = HashMap::with_capacity(self.credentials.len());
        for (settings, source) in &self.credentials {
            states.insert(&settings.id, (settings, source, source.current_state()));
        }
        let mut counts = Counts {
            endpoints: counted(ENDPOINT_STATES),
            credentials: counted(CREDENTIAL_STATES),
            routes: self.routes.len(),
        };
        let mut situation = Situation::default();

        let mut endpoints = Vec::new();
        let mut user_of: HashMap<&CredentialId, &Arc<Endpoint>> = HashMap::new();
        for endpoint in self.endpoints.iter() {
            let id = &endpoint.settings().credential;
            // Every endpoint has a credential, which its configuration ensures.
            let Some((settings, source, credential)) = states.get(id) else { continue };
            user_of.entry(id).or_insert(endpoint);
            let (state, is_broken) = endpoint_state(endpoint, *credential);
            add(&mut counts.endpoints, state, is_broken);
            if is_broken {
                let entry = || EndpointStatus::of(endpoint, state, (settings, &***source), (recent, false), config);
                let (since, answer) = (endpoint_since(endpoint, state, &***source), Answer::of(endpoint, state));
                situation.add_broken_endpoint(endpoint.name().as_str(), state, since, answer, entry);
            }
            let canary = self.canaries.get(endpoint.name()).and_then(|canary| canary.get().last);
            let failure = canary.and_then(|round| round.outcome.err());
            let severity = if is_broken { 0 } else { 2 - usize::from(failure.is_some()) };
            if let Some(failure) = failure {
                situation.add_failing_canary(endpoint.name().as_str(), failure);
            }
            let CredentialId { name, tenant } = id;
            let names = [endpoint.name().as_str(), name.as_str()].into_iter().chain(tenant.as_deref());
            if query.has_state(state, is_broken) && query.has_name(names) {
                endpoints.push((severity, state, endpoint, *settings, *source));
            }
        }
        endpoints.sort_by_key(|(severity, ..)| *severity);

        let mut disabled = Vec::new();
        for endpoint in &self.disabled {
            add(&mut counts.endpoints, "disabled", false);
            if query.has_state("disabled", false) && query.has_name([endpoint.name.as_str()]) {
                disabled.push(endpoint);
            }
        }

        let mut credentials = Vec::new();
        for (settings, source) in &self.credentials {
            let id = &settings.id;
            let of_id = states.get(id).map_or(CredentialState::Unavailable, |(.., state)| *state);
            let (state, is_broken) = credential_state(of_id);
            add(&mut counts.credentials, state, is_broken);
            let user = user_of.get(id).map(|endpoint| &***endpoint);
            situation.add_credential(of_id, id, || CredentialView::of(settings, &**source, user, config));
            let names = [id.name.as_str()].into_iter().chain(id.tenant.as_deref());
            if query.has_state(state, is_broken) && query.has_name(names) {
                credentials.push((severity(of_id), settings, source, user));
            }
        }
        credentials.sort_by_key(|(severity, ..)| *severity);

        let is_listed = |route: &&Arc<RouteSettings>| {
            let endpoints = route.endpoints.iter().map(|named| named.endpoint.as_str());
            query.state.is_none() && query.has_name([route.name.as_str()].into_iter().chain(endpoints))
        };
        let routes: Vec<&Arc<RouteSettings>> = self.routes.iter().filter(is_listed).collect();

        let longest = endpoints.len().max(disabled.len()).max(credentials.len()).max(routes.len());
        let page = PageView {
            number: query.page,
            of: longest.div_ceil(query.size).max(1),
            size: query.size,
            endpoints: endpoints.len(),
            credentials: credentials.len(),
            routes: routes.len(),
        };
        let Labels {
            endpoints: endpoint_labels, routes: route_labels, credentials: credential_labels, callers, ..
        } = &*self.labels;
        let listeners: Vec<ListenerView> =
            self.listeners.iter().map(|(name, address)| self.listener(name, address)).collect();
        let idempotency_store: Option<StoreView> = self.idempotency_store.as_ref().map(|store| store.status().into());
        let tracing = self.tracing.as_deref().map(TracesView::of);
        situation.counts = (self.endpoints.len(), self.credentials.len());
        situation.process((ready, draining), rejection, (&self.after_restart, self.restart_since), config);
        situation.others(
            (&listeners, self.connections),
            &self.refused_ca_files,
            idempotency_store.as_ref(),
            tracing.as_ref(),
        );
        Status {
            verdict: situation.verdict(&self.routes),
            version: env!("CARGO_PKG_VERSION"),
            config_hash: self.config_hash.clone(),
            after_restart: self.after_restart.clone(),
            started: seconds(self.started),
            ready: ready && !draining,
            draining,
            traffic: TrafficView::of(recent, query.has_series),
            listeners,
            refused_reload: rejection.map(|rejection| rejection.problem.clone()),
            max_connections: self.connections.in_force,
            lost_lines: LostLine::lost(),
            refused_ca_files: self.refused_ca_files.clone(),
            counts,
            page,
            metric_labels: BTreeMap::from([
                ("endpoints", LabelCounts::of(endpoint_labels)),
                ("routes", LabelCounts::of(route_labels)),
                ("credentials", LabelCounts::of(credential_labels)),
                ("callers", LabelCounts::of(callers)),
            ]),
            idempotency_store,
            tracing,
            endpoints: query
                .page_of(&endpoints)
                .map(|(_, state, endpoint, settings, source)| {
                    let canary = self.canaries.get(endpoint.name()).map(|canary| canary.get().into());
                    let figures = (recent, query.has_series);
                    EndpointStatus {
                        canary,
                        ..EndpointStatus::of(endpoint, state, (settings, &***source), figures, config)
                    }
                })
                .collect(),
            disabled_endpoints: query.page_of(&disabled).map(|endpoint| DisabledView::of(endpoint)).collect(),
            credentials: query
                .page_of(&credentials)
                .map(|(_, settings, source, user)| CredentialView::of(settings, &***source, *user, config))
                .collect(),
            routes: query
                .page_of(&routes)
                .map(|route| RouteView::of(route, route_labels.get(route.name.as_str()).name(), recent))
                .collect(),
        }
    }
}

impl View {
    fn listener(&self, name: &str, address: &str) -> ListenerView {
        let tls = self.tls.iter().find(|tls| tls.listener() == name);
        ListenerView {
            name: name.to_owned(),
            address: address.to_owned(),
            not_after: tls.map(|tls| seconds(tls.not_after())),
            refused_files: tls.and_then(|tls| tls.problem()).map(|problem| problem.to_string()),
        }
    }
}

/// Returns the order of a credential in the list, from 0 for the worst.
fn severity(state: CredentialState) -> u8 {
    match state {
        CredentialState::Unavailable => 0,
        CredentialState::Stale => 1,
        CredentialState::Unused | CredentialState::Starting | CredentialState::Ready => 2,
    }
}

fn counted<const N: usize>(states: [&'static str; N]) -> BTreeMap<&'static str, usize> {
    ["total", BROKEN].into_iter().chain(states).map(|state| (state, 0)).collect()
}

fn add(counts: &mut BTreeMap<&'static str, usize>, state: &'static str, is_broken: bool) {
    *counts.entry("total").or_default() += 1;
    *counts.entry(state).or_default() += 1;
    *counts.entry(BROKEN).or_default() += usize::from(is_broken);
}

impl LabelCounts {
    fn of(table: &LabelTable) -> Self {
        Self { own: table.own(), other: table.shared() }
    }
}

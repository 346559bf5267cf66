//! The content of `/status`: the configuration in force and the state of credentials and endpoints. Tokens appear only as
//! fingerprints.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::query::{BROKEN, CREDENTIAL_STATES, ENDPOINT_STATES, PAGE_SIZE, Query};
use crate::credential::{BearerSource, CredentialId, CredentialState, Readiness};
use crate::endpoint::{DisabledEndpoint, Endpoint, EndpointRole};
use crate::idempotency::{SharedStore, StoreStatus};
use crate::metrics::{LabelTable, Labels};
use crate::route::RouteSettings;
use crate::serve::LiveTls;

/// The running configuration that `/status` shows.
#[derive(Debug)]
pub struct View {
    /// The hash of the configuration in force.
    pub config_hash: String,
    /// Keys of the last accepted configuration that take effect only after a restart.
    pub after_restart: Vec<&'static str>,
    /// When the gateway started.
    pub started: SystemTime,
    /// The listeners, by name, with their addresses.
    pub listeners: Vec<(String, String)>,
    /// The TLS of the listeners that have it.
    pub tls: Vec<Arc<LiveTls>>,
    /// The tokens that make the gateway ready.
    pub readiness: Readiness,
    /// The credentials.
    pub credentials: Vec<(CredentialId, Arc<dyn BearerSource>)>,
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
}

/// An endpoint that is not in use.
#[derive(Debug, Serialize)]
pub struct DisabledView {
    /// The configured name.
    pub name: String,
    /// `scheme://host[:port]`.
    pub url: String,
}

/// An endpoint on `/status`.
#[derive(Debug, Serialize)]
pub struct EndpointStatus {
    /// The configured name.
    pub name: String,
    /// `scheme://host[:port]`.
    pub url: String,
    /// The credential's name.
    pub credential: String,
    /// The tenant, if the endpoint names it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// `primary` or `secondary`.
    pub role: &'static str,
    /// The proxy that its connections go through.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub proxy: Option<String>,
    /// Whether its circuit is closed.
    pub available: bool,
    /// `ok`, `circuit_open`, or `no_token` if its credential has no valid token.
    pub state: &'static str,
    /// What else the operator should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
}

/// A route on `/status`.
#[derive(Debug, Serialize)]
pub struct RouteView {
    /// The configured name.
    pub name: String,
    /// How endpoints are picked.
    pub pick: &'static str,
    /// What in a call names its endpoint, such as `hub {endpoint}_*`; `None` if the route picks.
    pub named_by: Option<String>,
    /// The endpoints, in configured order. Empty if calls may name any.
    pub endpoints: Vec<String>,
}

/// The content of `/status`.
#[derive(Debug, Serialize)]
pub struct Status {
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
    /// The listeners.
    pub listeners: Vec<ListenerView>,
    /// Why the last configuration was rejected, if it was. The previous one is then in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_reload: Option<String>,
    /// How many there are in each state, of all and not only of those on the page.
    pub counts: Counts,
    /// Which of the entries that the query asks for are listed.
    pub page: PageView,
    /// How many names have metric series of their own, and how many share `_other`.
    pub metric_labels: BTreeMap<&'static str, LabelCounts>,
    /// The idempotency store that replicas share, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idempotency_store: Option<StoreView>,
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

/// The idempotency store on `/status`.
#[derive(Debug, Serialize)]
pub struct StoreView {
    /// Its address.
    pub address: String,
    /// `ok`, `out`, or `unknown` until it was first used.
    pub state: &'static str,
    /// Since when it has this state, in seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// Why it is out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<&'static str>,
}

impl From<StoreStatus> for StoreView {
    fn from(status: StoreStatus) -> Self {
        let StoreStatus { address, state, since, problem, remedy } = status;
        Self { address, state, since: since.map(seconds), problem, fix: remedy }
    }
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

/// A listener on `/status`.
#[derive(Debug, Serialize)]
pub struct ListenerView {
    /// The configured name.
    pub name: String,
    /// The bound address.
    pub address: String,
    /// When its certificate expires, in seconds since the Unix epoch.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_after: Option<u64>,
    /// Why its TLS files as they are now cannot be used. Those that were read before are then in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refused_files: Option<String>,
}

/// A credential on `/status`. Times are in seconds since the Unix epoch.
#[derive(Debug, Serialize)]
pub struct CredentialView {
    /// The configured name.
    pub name: String,
    /// The tenant, if endpoints name it. The credential then has one entry for each.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant: Option<String>,
    /// `unused` (acquired on demand, and no call has needed it lately), `starting`, `ready`, `stale` (a valid token, but the last refresh failed) or `unavailable`.
    pub state: &'static str,
    /// The fingerprint of the token in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// When that token expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// When a token was last obtained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<u64>,
    /// Why the last acquisition failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl View {
    /// Returns the entries that `query` asks for, those with problems first. Reads the states of all endpoints and
    /// credentials, and makes entries for those on the page only.
    pub(super) fn status(&self, ready: bool, draining: bool, refused_reload: Option<&String>, query: &Query) -> Status {
        let states: HashMap<&CredentialId, CredentialState> =
            self.credentials.iter().map(|(id, source)| (id, source.status().state)).collect();
        let state_of = |id: &CredentialId| states.get(id).copied().unwrap_or(CredentialState::Unavailable);
        let mut counts = Counts {
            endpoints: counted(ENDPOINT_STATES),
            credentials: counted(CREDENTIAL_STATES),
            routes: self.routes.len(),
        };

        let mut endpoints = Vec::new();
        for endpoint in self.endpoints.iter() {
            let credential = &endpoint.settings().credential;
            let (state, is_broken) = endpoint_state(endpoint.health().is_closed(), state_of(credential));
            add(&mut counts.endpoints, state, is_broken);
            let CredentialId { name, tenant } = credential;
            let names = [endpoint.name().as_str(), name.as_str()].into_iter().chain(tenant.as_deref());
            if query.has_state(state, is_broken) && query.has_name(names) {
                endpoints.push((!is_broken, state, endpoint));
            }
        }
        endpoints.sort_by_key(|(is_fine, ..)| *is_fine);

        let mut disabled = Vec::new();
        for endpoint in &self.disabled {
            add(&mut counts.endpoints, "disabled", false);
            if query.has_state("disabled", false) && query.has_name([endpoint.name.as_str()]) {
                disabled.push(endpoint);
            }
        }

        let mut credentials = Vec::new();
        for (id, source) in &self.credentials {
            let (state, is_broken) = credential_state(state_of(id));
            add(&mut counts.credentials, state, is_broken);
            let names = [id.name.as_str()].into_iter().chain(id.tenant.as_deref());
            if query.has_state(state, is_broken) && query.has_name(names) {
                credentials.push((!is_broken, id, source));
            }
        }
        credentials.sort_by_key(|(is_fine, ..)| *is_fine);

        let is_listed = |route: &&Arc<RouteSettings>| {
            let endpoints = route.endpoints.iter().map(|named| named.endpoint.as_str());
            query.state.is_none() && query.has_name([route.name.as_str()].into_iter().chain(endpoints))
        };
        let routes: Vec<&Arc<RouteSettings>> = self.routes.iter().filter(is_listed).collect();

        let longest = endpoints.len().max(disabled.len()).max(credentials.len()).max(routes.len());
        let page = PageView {
            number: query.page,
            of: longest.div_ceil(PAGE_SIZE).max(1),
            size: PAGE_SIZE,
            endpoints: endpoints.len(),
            credentials: credentials.len(),
            routes: routes.len(),
        };
        let Labels {
            endpoints: endpoint_labels, routes: route_labels, credentials: credential_labels, callers, ..
        } = &*self.labels;
        Status {
            version: env!("CARGO_PKG_VERSION"),
            config_hash: self.config_hash.clone(),
            after_restart: self.after_restart.clone(),
            started: seconds(self.started),
            ready: ready && !draining,
            draining,
            listeners: self.listeners.iter().map(|(name, address)| self.listener(name, address)).collect(),
            refused_reload: refused_reload.cloned(),
            counts,
            page,
            metric_labels: BTreeMap::from([
                ("endpoints", LabelCounts::of(endpoint_labels)),
                ("routes", LabelCounts::of(route_labels)),
                ("credentials", LabelCounts::of(credential_labels)),
                ("callers", LabelCounts::of(callers)),
            ]),
            idempotency_store: self.idempotency_store.as_ref().map(|store| store.status().into()),
            endpoints: query
                .page_of(&endpoints)
                .map(|(_, state, endpoint)| EndpointStatus::of(endpoint, state))
                .collect(),
            disabled_endpoints: query.page_of(&disabled).map(|endpoint| DisabledView::of(endpoint)).collect(),
            credentials: query
                .page_of(&credentials)
                .map(|(_, id, source)| CredentialView::of(id, &***source))
                .collect(),
            routes: query.page_of(&routes).map(|route| RouteView::of(route)).collect(),
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

fn counted<const N: usize>(states: [&'static str; N]) -> BTreeMap<&'static str, usize> {
    ["total", BROKEN].into_iter().chain(states).map(|state| (state, 0)).collect()
}

fn add(counts: &mut BTreeMap<&'static str, usize>, state: &'static str, is_broken: bool) {
    *counts.entry("total").or_default() += 1;
    *counts.entry(state).or_default() += 1;
    *counts.entry(BROKEN).or_default() += usize::from(is_broken);
}

/// Returns the state of an endpoint and whether it is a problem.
fn endpoint_state(is_closed: bool, credential: CredentialState) -> (&'static str, bool) {
    match (is_closed, credential) {
        (false, _) => ("circuit_open", true),
        (true, CredentialState::Unavailable) => ("no_token", true),
        (true, _) => ("ok", false),
    }
}

/// Returns the state of a credential and whether it is a problem.
fn credential_state(state: CredentialState) -> (&'static str, bool) {
    match state {
        CredentialState::Unused => ("unused", false),
        CredentialState::Starting => ("starting", false),
        CredentialState::Ready => ("ready", false),
        CredentialState::Stale => ("stale", true),
        CredentialState::Unavailable => ("unavailable", true),
    }
}

impl LabelCounts {
    fn of(table: &LabelTable) -> Self {
        Self { own: table.own(), other: table.shared() }
    }
}

impl EndpointStatus {
    fn of(endpoint: &Endpoint, state: &'static str) -> Self {
        let settings = endpoint.settings();
        Self {
            name: settings.name.to_string(),
            url: endpoint.origin().to_owned(),
            credential: settings.credential.name.to_string(),
            tenant: settings.credential.tenant.as_deref().map(str::to_owned),
            role: match settings.role {
                EndpointRole::Primary => "primary",
                EndpointRole::Secondary => "secondary",
            },
            proxy: settings.proxy.as_ref().map(ToString::to_string),
            available: endpoint.health().is_closed(),
            state,
            note: endpoint.health().note(),
        }
    }
}

impl DisabledView {
    fn of(endpoint: &DisabledEndpoint) -> Self {
        Self { name: endpoint.name.to_string(), url: endpoint.origin.to_string() }
    }
}

impl RouteView {
    fn of(route: &RouteSettings) -> Self {
        Self {
            name: route.name.to_string(),
            pick: route.pick.as_str(),
            named_by: route.named_by_text(),
            endpoints: route.endpoints.iter().map(|named| named.endpoint.to_string()).collect(),
        }
    }
}

impl CredentialView {
    fn of(id: &CredentialId, source: &dyn BearerSource) -> Self {
        let status = source.status();
        Self {
            name: id.name.to_string(),
            tenant: id.tenant.as_deref().map(str::to_owned),
            state: credential_state(status.state).0,
            token: status.fingerprint.map(|fingerprint| fingerprint.to_string()),
            expires: status.expires_at.map(seconds),
            last_success: status.last_success.map(seconds),
            last_error: status.last_error,
        }
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

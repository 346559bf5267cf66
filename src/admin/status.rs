//! The content of `/status`: the configuration in force and the state of credentials and endpoints. Tokens appear only as
//! fingerprints.

use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use crate::credential::{BearerSource, CredentialId, CredentialState, Readiness};
use crate::endpoint::Health;

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
    /// The tokens that make the gateway ready.
    pub readiness: Readiness,
    /// The credentials.
    pub credentials: Vec<(CredentialId, Arc<dyn BearerSource>)>,
    /// The endpoints.
    pub endpoints: Vec<EndpointView>,
    /// The endpoints that are not in use.
    pub disabled: Vec<DisabledView>,
    /// The routes, in the order in which they are matched.
    pub routes: Vec<RouteView>,
}

/// An endpoint that is not in use.
#[derive(Clone, Debug, Serialize)]
pub struct DisabledView {
    /// The configured name.
    pub name: String,
    /// `scheme://host[:port]`.
    pub url: String,
}

/// An endpoint of the running configuration.
#[derive(Clone, Debug)]
pub struct EndpointView {
    /// The configured name.
    pub name: String,
    /// `scheme://host[:port]`.
    pub url: String,
    /// Its token life.
    pub credential: CredentialId,
    /// `primary` or `secondary`.
    pub role: &'static str,
    /// Its health.
    pub health: Arc<Health>,
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
    /// Whether its circuit is closed.
    pub available: bool,
}

/// A route on `/status`.
#[derive(Clone, Debug, Serialize)]
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
    /// The endpoints.
    pub endpoints: Vec<EndpointStatus>,
    /// The endpoints that are not in use (`enabled = false`).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub disabled_endpoints: Vec<DisabledView>,
    /// The credentials.
    pub credentials: Vec<CredentialView>,
    /// The routes.
    pub routes: Vec<RouteView>,
}

/// A listener on `/status`.
#[derive(Debug, Serialize)]
pub struct ListenerView {
    /// The configured name.
    pub name: String,
    /// The bound address.
    pub address: String,
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
    pub(super) fn status(&self, ready: bool, draining: bool, refused_reload: Option<&String>) -> Status {
        let credentials: Vec<CredentialView> =
            self.credentials.iter().map(|(id, source)| CredentialView::of(id, &**source)).collect();
        Status {
            version: env!("CARGO_PKG_VERSION"),
            config_hash: self.config_hash.clone(),
            after_restart: self.after_restart.clone(),
            started: seconds(self.started),
            ready: ready && !draining,
            draining,
            listeners: self
                .listeners
                .iter()
                .map(|(name, address)| ListenerView { name: name.clone(), address: address.clone() })
                .collect(),
            refused_reload: refused_reload.cloned(),
            endpoints: self.endpoints.iter().map(EndpointStatus::of).collect(),
            disabled_endpoints: self.disabled.clone(),
            credentials,
            routes: self.routes.clone(),
        }
    }
}

impl EndpointStatus {
    fn of(view: &EndpointView) -> Self {
        Self {
            name: view.name.clone(),
            url: view.url.clone(),
            credential: view.credential.name.to_string(),
            tenant: view.credential.tenant.as_deref().map(str::to_owned),
            role: view.role,
            available: view.health.is_closed(),
        }
    }
}

impl CredentialView {
    fn of(id: &CredentialId, source: &dyn BearerSource) -> Self {
        let status = source.status();
        Self {
            name: id.name.to_string(),
            tenant: id.tenant.as_deref().map(str::to_owned),
            state: match status.state {
                CredentialState::Unused => "unused",
                CredentialState::Starting => "starting",
                CredentialState::Ready => "ready",
                CredentialState::Stale => "stale",
                CredentialState::Unavailable => "unavailable",
            },
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

//! The entries of `/status`: endpoints, credentials, routes, listeners and the idempotency store.

use std::path::Path;

use serde::Serialize;

use super::calls::{CallsView, TimesView, per_second};
use super::canary::CanaryView;
use super::failure::FailureView;
use super::figures::{LAST_MINUTE, Recent};
use super::time::seconds;
use crate::credential::{BearerSource, CredentialSettings, CredentialState};
use crate::endpoint::{DisabledEndpoint, Endpoint, EndpointRole, ProbeRecord};
use crate::idempotency::{StoreStatus, WhenStoreIsOut};
use crate::route::RouteSettings;

/// An endpoint that is not in use.
#[derive(Debug, Serialize)]
pub struct DisabledView {
    /// The configured name.
    pub name: String,
    /// `scheme://host[:port]`.
    pub url: String,
}

/// An endpoint on `/status`. Times are in seconds since the Unix epoch.
#[derive(Debug, Serialize)]
pub struct EndpointStatus {
    /// The configured name.
    pub name: String,
    /// `scheme://host[:port]`.
    pub url: String,
    /// `host:port`, for the verdict.
    #[serde(skip)]
    pub(super) address: String,
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
    /// `ok`, `circuit_open`, `no_token` if its credential has no valid token, or `unauthorized` if it refused the token of the last
    /// call with 401 or 403.
    pub state: &'static str,
    /// Since when it has this state.
    pub since: u64,
    /// Its calls in the last minute; none if there were none. Endpoints with the same metric label have the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_minute: Option<CallsView>,
    /// The points of its chart, the latest last.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<TimesView>,
    /// Until when it asked not to be called, if it did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cool_down_until: Option<u64>,
    /// The last failure of a call or a probe, even if later ones succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureView>,
    /// The last probe of `/api/health`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_probe: Option<ProbeView>,
    /// Its canary, if it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub canary: Option<CanaryView>,
    /// What else the operator should know.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<&'static str>,
    /// Since when it refuses `access_key` for want of a role, and what to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_key_refused: Option<FailureView>,
}

/// A probe on `/status`.
#[derive(Debug, Serialize)]
pub struct ProbeView {
    /// When, in seconds since the Unix epoch.
    pub at: u64,
    /// Whether the endpoint responded without a server error.
    pub ok: bool,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
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
    /// Since when it has this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// The fingerprint of the token in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// When that token was acquired.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub acquired: Option<u64>,
    /// When that token expires.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expires: Option<u64>,
    /// When the last token expired, if there is no valid one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expired: Option<u64>,
    /// When the next acquisition is due: a renewal, or another try after a failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_acquisition: Option<u64>,
    /// When a token was last obtained.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success: Option<u64>,
    /// How many acquisitions failed since then.
    pub failures: u32,
    /// When the first of them failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failing_since: Option<u64>,
    /// Why the last acquisition failed; none if it succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
    /// The last acquisition that failed, even if later ones succeeded.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_failure: Option<FailureView>,
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
    /// Its calls per second in the last minute.
    pub calls_per_second: f64,
    /// Its calls in the last ten minutes.
    pub recent_calls: u64,
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
    /// Whether calls with an idempotency key fail while it is out.
    #[serde(skip)]
    pub(super) is_required: bool,
}

/// Returns the state of an endpoint and whether it is a problem.
pub(super) fn endpoint_state(endpoint: &Endpoint, credential: CredentialState) -> (&'static str, bool) {
    let health = endpoint.health();
    match credential {
        _ if !health.is_closed() => ("circuit_open", true),
        CredentialState::Unavailable => ("no_token", true),
        _ if health.history().refuses_token() => ("unauthorized", true),
        CredentialState::Unused | CredentialState::Starting | CredentialState::Ready | CredentialState::Stale => {
            ("ok", false)
        }
    }
}

/// Returns since when an endpoint has this state, in seconds since the Unix epoch.
pub(super) fn endpoint_since(endpoint: &Endpoint, state: &str, source: &dyn BearerSource) -> u64 {
    let happened = endpoint.health().history().get();
    let since = match state {
        "no_token" => source.status().since,
        "unauthorized" => happened.refuses_token_since,
        _ => None,
    };
    seconds(since.unwrap_or(happened.circuit_since))
}

/// Returns the state of a credential and whether it is a problem.
pub(super) fn credential_state(state: CredentialState) -> (&'static str, bool) {
    match state {
        CredentialState::Unused => ("unused", false),
        CredentialState::Starting => ("starting", false),
        CredentialState::Ready => ("ready", false),
        CredentialState::Stale => ("stale", true),
        CredentialState::Unavailable => ("unavailable", true),
    }
}

impl EndpointStatus {
    /// Makes the entry of an endpoint, whose credential has these settings.
    pub(super) fn of(
        endpoint: &Endpoint,
        state: &'static str,
        (credential, source): (&CredentialSettings, &dyn BearerSource),
        (recent, has_series): (&Recent, bool),
        config: Option<&Path>,
    ) -> Self {
        let (settings, health) = (endpoint.settings(), endpoint.health());
        let happened = health.history().get();
        let note = health.history().note();
        let has_failed = happened.last_failure.is_some() || note.is_some();
        let token = if has_failed { source.claims() } else { None };
        let token = token.as_ref();
        let explain_note = |since| {
            note.map(|note| FailureView::of_refused_access_key(since, note, credential, settings, token, config))
        };
        Self {
            name: settings.name.to_string(),
            url: endpoint.origin().to_owned(),
            address: settings.origin.host_and_port(),
            credential: settings.credential.name.to_string(),
            tenant: settings.credential.tenant.as_deref().map(str::to_owned),
            role: match settings.role {
                EndpointRole::Primary => "primary",
                EndpointRole::Secondary => "secondary",
            },
            proxy: settings.proxy.as_ref().map(ToString::to_string),
            available: health.is_closed(),
            state,
            since: endpoint_since(endpoint, state, source),
            last_minute: recent
                .endpoint(endpoint.label().name(), LAST_MINUTE)
                .map(|(calls, seconds)| CallsView::of(&calls, seconds)),
            series: if has_series {
                recent.endpoint_points(endpoint.label().name()).iter().map(TimesView::of).collect()
            } else {
                Vec::new()
            },
            cool_down_until: health.state().cool_down.map(seconds),
            last_failure: happened
                .last_failure
                .map(|failure| FailureView::of_endpoint(&failure, credential, (endpoint, state), token, config)),
            last_probe: happened.last_probe.map(ProbeView::from),
            canary: None,
            note,
            access_key_refused: happened.refuses_access_key_since.and_then(explain_note),
        }
    }
}

impl From<ProbeRecord> for ProbeView {
    fn from(ProbeRecord { at, ok, took }: ProbeRecord) -> Self {
        Self { at: seconds(at), ok, took_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX) }
    }
}

impl CredentialView {
    /// Makes the entry of a credential. `endpoint` is one that uses it, if there is one.
    pub(super) fn of(
        settings: &CredentialSettings,
        source: &dyn BearerSource,
        endpoint: Option<&Endpoint>,
        config: Option<&Path>,
    ) -> Self {
        let status = source.status();
        let explain = |endpoint: &Endpoint| {
            let failed = status.last_failure.as_ref()?;
            Some(FailureView::of_acquisition(failed, settings, endpoint.settings(), status.next_at, config))
        };
        Self {
            name: settings.id.name.to_string(),
            tenant: settings.id.tenant.as_deref().map(str::to_owned),
            state: credential_state(status.state).0,
            since: status.since.map(seconds),
            token: status.fingerprint.map(|fingerprint| fingerprint.to_string()),
            acquired: status.obtained_at.map(seconds),
            expires: status.expires_at.map(seconds),
            expired: status.expired_at.map(seconds),
            next_acquisition: status.next_at.map(seconds),
            last_success: status.last_success.map(seconds),
            failures: status.failures,
            failing_since: status.failing_since.map(seconds),
            last_error: status.error(),
            last_failure: endpoint.and_then(explain),
        }
    }
}

impl DisabledView {
    pub(super) fn of(endpoint: &DisabledEndpoint) -> Self {
        Self { name: endpoint.name.to_string(), url: endpoint.origin.to_string() }
    }
}

impl RouteView {
    /// Makes the entry of a route whose metrics have this label.
    pub(super) fn of(route: &RouteSettings, label: &str, recent: &Recent) -> Self {
        let (calls, seconds) = recent.route(label, LAST_MINUTE);
        Self {
            calls_per_second: per_second(calls, seconds),
            recent_calls: recent.route(label, usize::MAX).0,
            name: route.name.to_string(),
            pick: route.pick.as_str(),
            named_by: route.named_by_text(),
            endpoints: route.endpoints.iter().map(|named| named.endpoint.to_string()).collect(),
        }
    }
}

impl From<StoreStatus> for StoreView {
    fn from(status: StoreStatus) -> Self {
        let StoreStatus { address, state, since, problem, remedy, when_out } = status;
        let is_required = when_out == WhenStoreIsOut::Refuse;
        Self { address, state, since: since.map(seconds), problem, fix: remedy, is_required }
    }
}

//! The settings that a gateway is built from: those of every part, and those of its logs.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use aws_lc_rs::digest;

use super::log_filter::LogFilter;
use crate::admin::{self, AdminSettings};
use crate::credential::{CredentialSettings, TokenSettings};
use crate::egress::EgressProxy;
use crate::endpoint::{DisabledEndpoint, EndpointSettings};
use crate::idempotency::StoreSettings;
use crate::metrics::Labels;
use crate::otlp::OtlpSettings;
use crate::proxy::{AdmissionSettings, ProxySettings};
use crate::route::{CallerSettings, RouteSettings};
use crate::serve::{Bind, ListenerSettings, ListenerTlsSettings, ServeSettings};

/// The settings of a whole gateway, with every default applied.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The listeners and their admission rules. Never empty.
    pub listeners: Vec<(ListenerSettings, AdmissionSettings)>,
    /// The admin listener; `None` turns it off.
    pub admin: Option<AdminSettings>,
    /// The credentials that endpoints use.
    pub credentials: Vec<CredentialSettings>,
    /// When their tokens are requested.
    pub tokens: TokenSettings,
    /// The endpoints that are in use.
    pub endpoints: Vec<Arc<EndpointSettings>>,
    /// The endpoints that are not in use. Routes may name them.
    pub disabled: Vec<DisabledEndpoint>,
    /// The routes, in the order in which they are tried.
    pub routes: Vec<Arc<RouteSettings>>,
    /// The callers that are named by the identities of their certificates.
    pub callers: Vec<CallerSettings>,
    /// The limits and deadlines of requests.
    pub proxy: ProxySettings,
    /// The idempotency store that replicas share.
    pub store: Option<StoreSettings>,
    /// The workers, the connection limits and the drain.
    pub serve: ServeSettings,
    /// The limits on what has metrics of its own.
    pub metrics: MetricsSettings,
    /// Where traces are exported to; `None` if calls are not traced.
    pub tracing: Option<OtlpSettings>,
    /// The log settings.
    pub logging: LoggingSettings,
    /// A hash of the effective settings, in eight hex digits.
    pub hash: String,
    /// The configuration file, by an absolute path. `None` if there is none, or if it is standard input.
    pub file: Option<PathBuf>,
}

impl Settings {
    /// Returns the settings of the listeners, in configured order.
    pub fn listener_settings(&self) -> Vec<ListenerSettings> {
        self.listeners.iter().map(|(listener, _)| listener.clone()).collect()
    }

    /// Returns the names and settings of the listeners with TLS, that of the admin listener last.
    pub fn tls_listeners(&self) -> impl Iterator<Item = (&str, &ListenerTlsSettings)> {
        let listeners = self.listeners.iter().map(|(listener, _)| (listener.name.as_str(), listener.tls.as_ref()));
        let admin = self.admin.iter().map(|admin| (admin::LISTENER_NAME, admin.tls.as_ref()));
        listeners.chain(admin).filter_map(|(name, tls)| Some((name, tls?)))
    }

    /// Returns the listeners that other hosts reach and whose callers need no certificate and no certain address, with their
    /// addresses.
    pub fn open_listeners(&self) -> impl Iterator<Item = (&str, &AdmissionSettings, SocketAddr)> {
        self.listeners.iter().filter_map(|(listener, admission)| {
            let Bind::Tcp(address) = listener.bind else { return None };
            let is_open = is_remote(&address) && admission.clients.is_any() && !listener.requires_certificate();
            is_open.then_some((listener.name.as_str(), admission, address))
        })
    }

    /// Returns the address of the admin listener, if other hosts reach it and it has no TLS.
    pub fn open_admin(&self) -> Option<SocketAddr> {
        let admin = self.admin.as_ref().filter(|admin| admin.tls.is_none())?;
        Some(admin.bind).filter(is_remote)
    }

    /// Returns the proxies of the endpoints and credentials, each once.
    pub fn proxies(&self) -> Vec<&Arc<EgressProxy>> {
        let of_endpoints = self.endpoints.iter().filter_map(|endpoint| endpoint.proxy.as_ref());
        let of_credentials = self.credentials.iter().filter_map(|credential| credential.kind.egress()?.proxy.as_ref());
        let of_tracing = self.tracing.iter().filter_map(|tracing| tracing.egress.proxy.as_ref());
        let mut proxies = Vec::new();
        for proxy in of_endpoints.chain(of_credentials).chain(of_tracing) {
            if !proxies.contains(&proxy) {
                proxies.push(proxy);
            }
        }
        proxies
    }

    /// Returns the labels of the metrics of a gateway that starts with these settings.
    pub fn metric_labels(&self) -> Labels {
        let MetricsSettings { max_endpoints, max_routes, max_credentials, max_callers } = self.metrics;
        self.next_metric_labels(&Labels::new(max_endpoints, max_routes, max_credentials, max_callers))
    }

    /// Returns the labels of the metrics after a reload. Names that are among the `previous` ones keep theirs.
    pub(super) fn next_metric_labels(&self, previous: &Labels) -> Labels {
        Labels {
            endpoints: previous.endpoints.next(self.endpoints.iter().map(|endpoint| &*endpoint.metrics_label)),
            routes: previous.routes.next(self.routes.iter().map(|route| route.name.as_str())),
            credentials: previous
                .credentials
                .next(self.credentials.iter().map(|credential| credential.id.name.as_str())),
            callers: previous.callers.next(self.callers.iter().map(|caller| caller.name.as_str())),
            listeners: self.listeners.iter().map(|(listener, _)| listener.name.clone()).collect(),
        }
    }
}

/// Returns whether other hosts may reach an address.
fn is_remote(address: &SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

/// Returns the first eight hex digits of the SHA-256 of a text.
pub fn short_hash(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let first = digest.as_ref().iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    format!("{first:08x}")
}

/// How many names have metric series of their own; the others share the label `_other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricsSettings {
    /// Labels of endpoints.
    pub max_endpoints: usize,
    /// Routes.
    pub max_routes: usize,
    /// Credentials.
    pub max_credentials: usize,
    /// Configured callers.
    pub max_callers: usize,
}

/// The settings of the logs, which go to stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggingSettings {
    /// Which lines are written.
    pub filter: LogFilter,
    /// The format of a line.
    pub format: LogFormat,
    /// The maximum number of lines per second for each kind of event that callers cause, such as failed requests; 0 for no
    /// limit.
    pub failures_per_second: u32,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, otherwise JSON.
    Auto,
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}

//! The only wiring: settings → build → bind → addresses → serve until shutdown.

use std::net::SocketAddr;

use crate::credential::CredentialSettings;
use crate::endpoint::EndpointSettings;
use crate::proxy::{AdmissionSettings, ProxySettings};
use crate::route::RouteSettings;
use crate::serve::{ListenerSettings, ServeSettings};

/// Everything a gateway is built from, decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Where callers come in, and what each listener lets pass. Never empty.
    pub listeners: Vec<(ListenerSettings, AdmissionSettings)>,
    /// The admin listener's address; `None` turns it off.
    pub admin: Option<SocketAddr>,
    /// The credentials that at least one endpoint names.
    pub credentials: Vec<CredentialSettings>,
    /// The endpoints. Never empty.
    pub endpoints: Vec<EndpointSettings>,
    /// The routes, in the order in which they are tried.
    pub routes: Vec<RouteSettings>,
    /// The pipeline's limits and deadlines.
    pub proxy: ProxySettings,
    /// Workers, connection limits, drain.
    pub serve: ServeSettings,
    /// What is logged, and how.
    pub logging: LoggingSettings,
    /// Eight hex digits that change when the effective settings do.
    pub hash: String,
}

/// What is logged, and how. Logs go to stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggingSettings {
    /// A `tracing` filter, such as `info` or `signalr_gateway=debug`.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}

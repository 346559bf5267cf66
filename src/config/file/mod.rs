//! What an operator may write: the keys, their types and their defaults. Nothing is decided here; durations, sizes and
//! names are text until `lower` reads them. The doc comments become the descriptions in the JSON Schema.

mod credential;
mod endpoint;
mod listener;
mod one_or_many;
mod process;
mod request;
mod route;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use credential::{
    AlgorithmFile, AssertionFile, ClientAuthenticationFile, CloudFile, CredentialFile, GcpFormatFile, OAuth2TokenFile,
    SecretFile,
};
pub(crate) use endpoint::{EndpointFile, HealthFile, HttpVersionFile, RoleFile};
pub(crate) use listener::{AdminFile, ListenerFile};
pub(crate) use one_or_many::OneOrMany;
pub(crate) use process::{AccessFile, FormatFile, LoggingFile, ProcessFile, ShutdownFile};
pub(crate) use request::{
    ForwardingFile, IdempotencyFile, LimitsFile, MessageRetryFile, RetryFile, SizeFile, TimeoutsFile,
};
pub(crate) use route::{
    HashByFile, HashNameFile, HeaderMatchFile, MatchFile, PickFile, PolicyFile, RouteEndpointFile, RouteFile, TestFile,
    WhenUnavailableFile,
};

/// The configuration of signalr-gateway.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConfigFile {
    /// Where callers come in, by name. Without any, one called `default` at 127.0.0.1:8080.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) listeners: BTreeMap<String, ListenerFile>,
    /// The admin listener: metrics, health, status.
    pub(crate) admin: AdminFile,
    /// As whom endpoints are called, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) credentials: BTreeMap<String, CredentialFile>,
    /// The SignalR resources, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) endpoints: BTreeMap<String, EndpointFile>,
    /// Which calls go where, tried in order. Without any, all calls go to all endpoints, the first that works.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) routes: Vec<RouteFile>,
    /// Calls, and where they are to go: rehearsed by `check`, and before the configuration is in force.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tests: Vec<TestFile>,
    /// Limits on what callers may send.
    pub(crate) limits: LimitsFile,
    /// Deadlines.
    pub(crate) timeouts: TimeoutsFile,
    /// What is sent again.
    pub(crate) retry: RetryFile,
    /// Calls that may be repeated.
    pub(crate) idempotency: IdempotencyFile,
    /// When endpoints are taken out.
    pub(crate) health: HealthFile,
    /// What is added to requests.
    pub(crate) forwarding: ForwardingFile,
    /// How the gateway stops.
    pub(crate) shutdown: ShutdownFile,
    /// The process.
    pub(crate) process: ProcessFile,
    /// Logs, which go to stderr.
    pub(crate) logging: LoggingFile,
}

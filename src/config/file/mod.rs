//! The keys of the configuration file, with their types and defaults. Durations, sizes and names remain text; `lower` parses
//! them. The doc comments are the descriptions in the JSON Schema and in hints.

mod caller;
mod credential;
mod egress;
mod endpoint;
mod listener;
mod one_or_many;
mod process;
mod rate;
mod request;
mod route;
mod secret;
mod tokens;
mod trace;

use std::collections::BTreeMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub(crate) use caller::CallerFile;
pub(crate) use credential::{
    AlgorithmFile, AppFile, AssertionFile, ClientAuthenticationFile, CloudFile, CredentialFile, GcpFormatFile,
    OAuth2TokenFile, OptionalAppFile,
};
pub(crate) use egress::{EgressFile, ProxyChoiceFile, ProxyFile};
pub(crate) use endpoint::{CanaryFile, EndpointFile, HealthFile, HttpVersionFile, RoleFile};
pub(crate) use listener::{AdminFile, ClientAuthFile, ListenerFile, TlsFile};
pub(crate) use one_or_many::OneOrMany;
pub(crate) use process::{AccessFile, FormatFile, LoggingFile, MetricsFile, ProcessFile, ShutdownFile};
pub(crate) use request::{
    ForwardingFile, IdempotencyFile, LimitsFile, MessageRetryFile, RetryFile, SizeFile, TimeoutsFile,
    WhenStoreIsOutFile,
};
pub(crate) use route::{
    EndpointHeaderFile, HashByFile, HashNameFile, HeaderMatchFile, MatchFile, PickFile, PolicyFile, RouteEndpointFile,
    RouteFile, TestFile, WhenUnavailableFile,
};
pub(crate) use secret::SecretFile;
pub(crate) use tokens::{AcquireFile, TokensFile};
pub(crate) use trace::TracingFile;

/// A file that the main file includes.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IncludedFile {
    /// Credentials, by name.
    pub(crate) credentials: BTreeMap<String, Arc<CredentialFile>>,
    /// SignalR resources, by name.
    pub(crate) endpoints: BTreeMap<String, Arc<EndpointFile>>,
    /// Routes, which stand before those of the main file.
    pub(crate) routes: Vec<Arc<RouteFile>>,
    /// Routing tests.
    pub(crate) tests: Vec<TestFile>,
}

/// The configuration of signalr-gateway.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ConfigFile {
    /// Files with more endpoints, credentials, routes and tests: paths, or patterns such as `tenants.d/*.toml`. Relative ones are
    /// relative to this file. Files whose name begins with a dot are left out. Their routes stand before those of this file.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) include: Vec<String>,
    /// The listeners for callers, by name. Default: one called `default` at 127.0.0.1:8080.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) listeners: BTreeMap<String, ListenerFile>,
    /// The admin listener: metrics, health, status.
    pub(crate) admin: AdminFile,
    /// The callers that are known by their certificates, by name, and what they may do. Default: none, and callers need no
    /// certificate.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) callers: BTreeMap<String, CallerFile>,
    /// The forward proxy of connections to endpoints, Entra and identity providers.
    pub(crate) egress: EgressFile,
    /// The credentials of the endpoints, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) credentials: BTreeMap<String, Arc<CredentialFile>>,
    /// When the tokens of the credentials are requested.
    pub(crate) tokens: TokensFile,
    /// The SignalR resources, by name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) endpoints: BTreeMap<String, Arc<EndpointFile>>,
    /// The routes of calls to endpoints; the first one that matches applies. Default: one that sends every call to the first
    /// available endpoint.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) routes: Vec<Arc<RouteFile>>,
    /// Routing tests: calls and their expected routes. `check`, `run` and a reload evaluate them without sending a call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) tests: Vec<TestFile>,
    /// Limits on what callers may send.
    pub(crate) limits: LimitsFile,
    /// Timeouts.
    pub(crate) timeouts: TimeoutsFile,
    /// Retries.
    pub(crate) retry: RetryFile,
    /// Calls with an `Idempotency-Key`.
    pub(crate) idempotency: IdempotencyFile,
    /// The circuit breakers of endpoints.
    pub(crate) health: HealthFile,
    /// Headers that are added to requests.
    pub(crate) forwarding: ForwardingFile,
    /// Graceful shutdown.
    pub(crate) shutdown: ShutdownFile,
    /// Worker threads.
    pub(crate) process: ProcessFile,
    /// Limits on the number of metric series.
    pub(crate) metrics: MetricsFile,
    /// Traces of calls and of token acquisitions, which are exported to an OpenTelemetry collector.
    pub(crate) tracing: TracingFile,
    /// Logs, which go to stderr.
    pub(crate) logging: LoggingFile,
}

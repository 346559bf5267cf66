//! Endpoints and their health. A new key of an endpoint needs one field here, and its default in `lower/endpoint.rs`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An endpoint.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointFile {
    /// `https://host[:port]` of the SignalR resource.
    pub(crate) url: String,
    /// The name of the credential its calls carry.
    pub(crate) credential: String,
    /// `primary` (default) or `secondary`: client tokens come from a primary while one is healthy.
    #[serde(default)]
    pub(crate) role: RoleFile,
    /// PEM file of the CAs that its certificate is checked against. Default: those of the system.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The most time for name resolution, and again for TCP and TLS together. Default `2s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connect_timeout: Option<String>,
    /// The HTTP version: `"1.1"` (default) or `"2"`.
    #[serde(default)]
    pub(crate) http_version: HttpVersionFile,
    /// The most calls in flight to it at once. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_requests: Option<u32>,
    /// The pool of connections to it.
    #[serde(default)]
    pub(crate) pool: PoolFile,
}

/// The role of an endpoint in issuing client tokens.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RoleFile {
    #[default]
    Primary,
    Secondary,
}

/// The HTTP version of an endpoint.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub(crate) enum HttpVersionFile {
    #[default]
    #[serde(rename = "1.1")]
    Http1,
    #[serde(rename = "2")]
    Http2,
}

/// The pool of connections to an endpoint.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PoolFile {
    /// The most idle connections that each worker keeps.
    pub(crate) max_idle_per_worker: u32,
    /// The most time that a connection stays idle.
    pub(crate) idle_timeout: String,
}

impl Default for PoolFile {
    fn default() -> Self {
        Self { max_idle_per_worker: 128, idle_timeout: "60s".to_owned() }
    }
}

/// When the circuits of endpoints open.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HealthFile {
    /// The fewest failures, within `window` or in a row, that open the circuit of an endpoint, so that calls go to others.
    /// Failures are: unreachable, connection lost, too slow, or a status of 500 and above.
    pub(crate) failures: u32,
    /// The share of calls within `window` that must fail as well: above 0, at most 1.
    pub(crate) failure_ratio: f64,
    /// The time over which calls are counted; at least `1s`.
    pub(crate) window: String,
    /// How long the circuit stays open at first; twice as long each time in a row, at most a minute.
    pub(crate) pause: String,
    /// The interval of probes of `/api/health` of each endpoint, without a token. A sixth of it while the circuit is open.
    pub(crate) probe_interval: String,
}

impl Default for HealthFile {
    fn default() -> Self {
        Self {
            failures: 5,
            failure_ratio: 0.5,
            window: "10s".to_owned(),
            pause: "5s".to_owned(),
            probe_interval: "2m".to_owned(),
        }
    }
}

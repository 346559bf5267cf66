//! The SignalR resources, and when they are left alone.

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
    /// PEM file of the CAs that its certificate is checked against. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// How long name resolution may take, and how long TCP and TLS together. Default `2s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connect_timeout: Option<String>,
    /// `"1.1"` (default) or `"2"`: what is spoken with it.
    #[serde(default)]
    pub(crate) http_version: HttpVersionFile,
    /// The most calls it may have in work at once. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_requests: Option<u32>,
    /// How connections to it are kept.
    #[serde(default)]
    pub(crate) pool: PoolFile,
}

/// An endpoint's part in handing out client tokens.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RoleFile {
    #[default]
    Primary,
    Secondary,
}

/// What is spoken with an endpoint.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
pub(crate) enum HttpVersionFile {
    #[default]
    #[serde(rename = "1.1")]
    Http1,
    #[serde(rename = "2")]
    Http2,
}

/// How connections to an endpoint are kept.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct PoolFile {
    /// The most idle connections that each worker keeps.
    pub(crate) max_idle_per_worker: u32,
    /// How long a connection may lie idle.
    pub(crate) idle_timeout: String,
}

impl Default for PoolFile {
    fn default() -> Self {
        Self { max_idle_per_worker: 128, idle_timeout: "60s".to_owned() }
    }
}

/// When endpoints are taken out.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HealthFile {
    /// The fewest failures, within `window` or in a row, that open an endpoint's circuit, so that calls go elsewhere:
    /// unreachable, broken off, too slow, or a status of 500 and above.
    pub(crate) failures: u32,
    /// The share of calls within `window` that have to fail for it: above 0, at most 1.
    pub(crate) failure_ratio: f64,
    /// The time over which calls are counted; at least `1s`.
    pub(crate) window: String,
    /// How long it stays out at first; twice as long each time in a row, a minute at most.
    pub(crate) pause: String,
    /// How often `/api/health` of each endpoint is asked, without a token. While an endpoint is out, six times as often.
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

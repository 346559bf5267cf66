//! The process: shutdown, threads, logs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Graceful shutdown.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ShutdownFile {
    /// The time for which the gateway still accepts calls after `/readyz` begins to fail. It asks callers to close their
    /// connections meanwhile. In Kubernetes: the time that the removal of the pod from the service takes, such as `5s`.
    pub(crate) delay: String,
    /// The time limit for requests in flight after `delay`.
    pub(crate) timeout: String,
}

impl Default for ShutdownFile {
    fn default() -> Self {
        Self { delay: "1s".to_owned(), timeout: "25s".to_owned() }
    }
}

/// Worker threads.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ProcessFile {
    /// The number of worker threads; 0 for one per core.
    pub(crate) workers: u32,
}

/// Metrics.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_field_names, reason = "the keys are maxima, as those of limits are")]
pub(crate) struct MetricsFile {
    /// The maximum number of endpoint labels (`metrics_label`) with series of their own. The first ones in the order of the
    /// configuration have them, the others share the label `_other`. A label keeps its series while it is configured.
    pub(crate) max_endpoints: u32,
    /// The maximum number of routes with series of their own.
    pub(crate) max_routes: u32,
    /// The maximum number of credentials with series of their own. All tenants of a credential share its series.
    pub(crate) max_credentials: u32,
    /// The maximum number of configured callers with series of their own.
    pub(crate) max_callers: u32,
}

impl Default for MetricsFile {
    fn default() -> Self {
        Self { max_endpoints: 500, max_routes: 500, max_credentials: 500, max_callers: 500 }
    }
}

/// Logs, which go to stderr.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LoggingFile {
    /// A level, or levels by target such as `info,signalr_gateway::credential=debug`.
    pub(crate) filter: String,
    /// `auto` (text on a terminal, JSON otherwise), `text` or `json`.
    pub(crate) format: FormatFile,
    /// The requests that are logged: `all`, `failures` (status 400 and above, or not
    /// completed; not a 404 by which the service says that a target does not exist) or `off`.
    pub(crate) access: AccessFile,
    /// With `all`: the percentage of successful requests that are logged. Failed ones are logged up to
    /// `failures_per_second`.
    pub(crate) access_percent: u8,
    /// The maximum number of lines per second for each kind of event that callers cause, such as requests rejected for one
    /// reason. Bursts may be ten times as large. A line reports how many were suppressed. 0 for no limit.
    pub(crate) failures_per_second: u32,
}

impl Default for LoggingFile {
    fn default() -> Self {
        Self {
            filter: "info".to_owned(),
            format: FormatFile::default(),
            access: AccessFile::default(),
            access_percent: 100,
            failures_per_second: 10,
        }
    }
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FormatFile {
    #[default]
    Auto,
    Text,
    Json,
}

/// The requests that are logged.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AccessFile {
    #[default]
    All,
    Failures,
    Off,
}

//! The process: shutdown, threads, logs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the gateway stops.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ShutdownFile {
    /// How long it keeps accepting calls after `/readyz` fails, while it asks callers to close their connections. In
    /// Kubernetes, the time that it takes to remove the pod from the service, such as `5s`.
    pub(crate) delay: String,
    /// The most time for requests in flight after that.
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
    /// The number of workers, each a thread; 0 for one a core.
    pub(crate) workers: u32,
}

/// Logs, which go to stderr.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LoggingFile {
    /// A level, or a filter such as `info,signalr_gateway::credential=debug`.
    pub(crate) filter: String,
    /// `auto` (text on a terminal, JSON otherwise), `text` or `json`.
    pub(crate) format: FormatFile,
    /// Which requests are logged: `all`, `failures` (status 400 and above, or not completed) or `off`.
    pub(crate) access: AccessFile,
    /// With `all`: the percentage of successful requests that are logged. Failed ones are logged up to
    /// `failures_per_second`.
    pub(crate) access_percent: u8,
    /// The most lines a second of each kind that callers cause, such as requests refused for one reason; ten times as many
    /// in a burst. A line says how many were left out. 0 for no limit.
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

/// Which requests are logged.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AccessFile {
    #[default]
    All,
    Failures,
    Off,
}

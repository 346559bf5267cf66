//! The process: how it stops, its threads, its logs.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How the gateway stops.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ShutdownFile {
    /// How long it goes on accepting while it is not ready any more and asks callers to close their connections. In
    /// Kubernetes, give it the time that endpoints take to be withdrawn, such as `5s`.
    pub(crate) delay: String,
    /// How long requests in flight may take after that.
    pub(crate) timeout: String,
}

impl Default for ShutdownFile {
    fn default() -> Self {
        Self { delay: "1s".to_owned(), timeout: "25s".to_owned() }
    }
}

/// The process.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ProcessFile {
    /// The number of workers, each a thread; 0 for one per core.
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
    /// Which requests get a line: `all`, `failures` (answered 400 and above, or broken off) or `off`.
    pub(crate) access: AccessFile,
    /// How many percent of the requests that succeed get a line with `all`. Those that fail get one within
    /// `failures_per_second`.
    pub(crate) access_percent: u8,
    /// How many lines a second there may be of each kind that callers cause, such as requests refused for one reason; ten
    /// times as many at once. A line says how many more there were. 0 for no limit.
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

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum FormatFile {
    #[default]
    Auto,
    Text,
    Json,
}

/// Which requests get a log line.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AccessFile {
    #[default]
    All,
    Failures,
    Off,
}

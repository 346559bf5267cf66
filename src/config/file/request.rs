//! What applies to every request: limits, deadlines, retries, idempotency keys, added headers.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits on what callers may send.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsFile {
    /// The largest request body: bytes, or with `KiB` or `MiB`. The service accepts 1 MiB.
    pub(crate) max_body: SizeFile,
    /// The most memory of all request bodies that are kept for a retry; the first 16 KiB of each are not counted. Beyond it,
    /// a call to one endpoint is forwarded but cannot be retried, and one to several endpoints waits for `queue_time` and
    /// is then answered 503.
    pub(crate) body_memory: SizeFile,
    /// The largest request head, including the token that is added. The service accepts 16 KiB; at most 64 KiB.
    pub(crate) max_header: SizeFile,
    /// The most connections of callers at once; others wait to be accepted.
    pub(crate) max_connections: u32,
    /// The most calls that wait at one listener or endpoint whose `max_requests` is reached.
    pub(crate) queue: u32,
    /// The most time that each waits.
    pub(crate) queue_time: String,
}

/// A number of bytes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum SizeFile {
    /// Bytes.
    Bytes(u64),
    /// With `KiB` or `MiB`.
    Text(String),
}

impl Default for LimitsFile {
    fn default() -> Self {
        let text = |text: &str| SizeFile::Text(text.to_owned());
        Self {
            max_body: text("1MiB"),
            body_memory: text("64MiB"),
            max_header: text("16KiB"),
            max_connections: 10_000,
            queue: 100,
            queue_time: "500ms".to_owned(),
        }
    }
}

/// Deadlines.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TimeoutsFile {
    /// The most time until the head of the answer, including all attempts and waits. The body of the answer has the same
    /// time again.
    pub(crate) request: String,
    /// The most time of one attempt until the head of its answer, not counting waits for the caller's upload. Default: `10s`,
    /// or `request` if that is shorter.
    #[serde(rename = "try")]
    pub(crate) attempt: String,
    /// The most time that a caller's connection is idle, or takes to send the head of a request. Keep it longer than callers
    /// keep idle connections, or they will use closed ones.
    pub(crate) idle: String,
    /// The most time that a caller takes to read an answer, or the next 16 KiB of it. Then its stream is reset or its
    /// connection closed. Keep it below `shutdown.timeout`.
    pub(crate) write: String,
}

impl Default for TimeoutsFile {
    fn default() -> Self {
        Self { request: "30s".to_owned(), attempt: "10s".to_owned(), idle: "90s".to_owned(), write: "20s".to_owned() }
    }
}

/// Retries. A request that was not sent, or was refused with 401, is always retried.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetryFile {
    /// Retries of messages: `never` (default: none is sent twice) or `sdk` (after a status above 500, as the Management SDK does).
    pub(crate) messages: MessageRetryFile,
    /// The most attempts of one request, not counting those that sent nothing before the next endpoint was tried.
    pub(crate) attempts: u32,
    /// The most retries to an endpoint, in percent of its requests.
    pub(crate) budget_percent: u32,
}

impl Default for RetryFile {
    fn default() -> Self {
        Self { messages: MessageRetryFile::default(), attempts: 3, budget_percent: 20 }
    }
}

/// When messages are retried.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MessageRetryFile {
    #[default]
    Never,
    Sdk,
}

/// Headers that are added to requests.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ForwardingFile {
    /// Whether the caller's address is appended to `X-Forwarded-For`, which the endpoint's tenant can see.
    pub(crate) client_address: bool,
}

/// Calls to several endpoints with an `Idempotency-Key`: a repeated call goes only to the endpoints that did not accept.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IdempotencyFile {
    /// How long a key is kept.
    pub(crate) keep: String,
    /// The most keys that are kept, each up to 2 KiB. Beyond it, the oldest key of the network of callers (/24, /64) that has
    /// the most is removed.
    pub(crate) keys: u32,
}

impl Default for IdempotencyFile {
    fn default() -> Self {
        Self { keep: "5m".to_owned(), keys: 10_000 }
    }
}

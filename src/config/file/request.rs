//! What happens to every request: limits, deadlines, repeats, what is added.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits on what callers may send.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsFile {
    /// The largest request body: bytes, or with `KiB` or `MiB`. The service takes 1 MiB.
    pub(crate) max_body: SizeFile,
    /// The memory that request bodies may take together while they are kept, so that they can be sent again; the first 16 KiB
    /// of each are not counted. Beyond it, a call to one endpoint passes but cannot be sent again, and one to several
    /// endpoints waits for `queue_time` and is then answered 503.
    pub(crate) body_memory: SizeFile,
    /// The largest request head, the token that is added included. The service takes 16 KiB; at most 64 KiB.
    pub(crate) max_header: SizeFile,
    /// The most connections of callers at once; more wait to be accepted.
    pub(crate) max_connections: u32,
    /// The most calls that wait for a place at one listener or endpoint where `max_requests` is reached.
    pub(crate) queue: u32,
    /// How long each may wait.
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
    /// How long a request may take until the head of its answer, attempts and waits included. The body of an answer gets
    /// the same time again.
    pub(crate) request: String,
    /// How long one attempt may take until the head of its answer; waits for the caller's upload do not count. Unless it is
    /// set, no longer than `request`.
    #[serde(rename = "try")]
    pub(crate) attempt: String,
    /// How long a caller's connection may lie idle, or take to send the head of a request. Keep it longer than callers
    /// keep idle connections, or they will meet closed ones.
    pub(crate) idle: String,
    /// How long a caller may take to read an answer, or the next 16 KiB of it. Then its stream is reset or its connection
    /// closed, and the call frees what it holds. Keep it below `shutdown.timeout`.
    pub(crate) write: String,
}

impl Default for TimeoutsFile {
    fn default() -> Self {
        Self { request: "30s".to_owned(), attempt: "10s".to_owned(), idle: "90s".to_owned(), write: "20s".to_owned() }
    }
}

/// What is sent again. What was never sent, and what was refused with 401, always is.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetryFile {
    /// Messages: `never` (default: none is sent twice) or `sdk` (after a status above 500, as the Management SDK does).
    pub(crate) messages: MessageRetryFile,
    /// The most attempts of one request; going on to the next endpoint because nothing was sent does not count.
    pub(crate) attempts: u32,
    /// Retries an endpoint may get, in percent of the requests it gets.
    pub(crate) budget_percent: u32,
}

impl Default for RetryFile {
    fn default() -> Self {
        Self { messages: MessageRetryFile::default(), attempts: 3, budget_percent: 20 }
    }
}

/// What is sent again of messages.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MessageRetryFile {
    #[default]
    Never,
    Sdk,
}

/// What is added to requests.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ForwardingFile {
    /// Whether the caller's address is appended to `X-Forwarded-For`. The endpoint's tenant gets to see it.
    pub(crate) client_address: bool,
}

/// Calls to several endpoints that carry an `Idempotency-Key`: a repeat goes only to those that did not accept.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IdempotencyFile {
    /// How long a key is remembered.
    pub(crate) keep: String,
    /// The most keys that are remembered. Beyond, the callers' network (/24, /64) that has the most loses its oldest. Each
    /// takes up to 2 KiB.
    pub(crate) keys: u32,
}

impl Default for IdempotencyFile {
    fn default() -> Self {
        Self { keep: "5m".to_owned(), keys: 10_000 }
    }
}

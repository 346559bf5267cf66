//! The keys that apply to every request: limits, timeouts, retries, idempotency keys, added headers.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rate::RateFile;
use super::secret::SecretFile;

/// Limits on what callers may send.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LimitsFile {
    /// The maximum size of a request body: bytes, or with `KiB` or `MiB`. The service accepts 1 MiB.
    pub(crate) max_body: SizeFile,
    /// The maximum memory of all request bodies that are kept for a retry, not counting the first 16 KiB of each. Beyond it,
    /// a call to one endpoint is forwarded but cannot be retried. A call to several endpoints waits for `queue_time` and is
    /// then answered 503.
    pub(crate) body_memory: SizeFile,
    /// The maximum size of a request head, including the added token; at most 64 KiB. The service accepts 16 KiB.
    pub(crate) max_header: SizeFile,
    /// The maximum number of caller connections; further ones wait to be accepted.
    pub(crate) max_connections: u32,
    /// The maximum number of calls that wait at one listener or endpoint whose `max_requests` is reached.
    pub(crate) queue: u32,
    /// The maximum time that each of them waits.
    pub(crate) queue_time: String,
    /// The maximum number of idle connections that are kept to endpoints, over all endpoints and workers. Beyond it, the one that
    /// has been idle longest is closed.
    pub(crate) max_idle_connections: u32,
    /// The maximum number of calls in flight to each endpoint that has no `max_requests` of its own. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint_max_requests: Option<u32>,
    /// The maximum rate of calls to each endpoint that has no `rate` of its own. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint_rate: Option<RateFile>,
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
            max_idle_connections: 4096,
            endpoint_max_requests: None,
            endpoint_rate: None,
        }
    }
}

/// Timeouts.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TimeoutsFile {
    /// The timeout until the head of the response, including all attempts and waits. The body of the response has the same
    /// timeout again.
    pub(crate) request: String,
    /// The timeout of one attempt until the head of its response, not counting waits for the caller's upload. Default: `10s`,
    /// or `request` if that is shorter.
    #[serde(rename = "try")]
    pub(crate) attempt: String,
    /// The timeout of an idle caller connection, and of reading the head of a request. Must be longer than callers keep idle
    /// connections; otherwise they send requests on closed ones.
    pub(crate) idle: String,
    /// The timeout of a caller that does not read a response, or its next 16 KiB. The stream is then reset or the connection
    /// closed. Keep it below `shutdown.timeout`.
    pub(crate) write: String,
    /// The age at which a caller connection is closed, within 10 %, at least `1s`, so that callers connect to other replicas as
    /// well. No request is lost: an HTTP/1.1 response has `Connection: close`, HTTP/2 has `GOAWAY`. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connection_age: Option<String>,
}

impl Default for TimeoutsFile {
    fn default() -> Self {
        Self {
            request: "30s".to_owned(),
            attempt: "10s".to_owned(),
            idle: "90s".to_owned(),
            write: "20s".to_owned(),
            connection_age: None,
        }
    }
}

/// Retries. A request that was not sent, or was rejected with 401, is always retried.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RetryFile {
    /// The retries of messages: `never` (default: no message is sent twice) or `sdk` (after a status above 500, as in the
    /// Management SDK).
    pub(crate) messages: MessageRetryFile,
    /// The maximum number of attempts of a request, not counting those that sent nothing before a failover.
    pub(crate) attempts: u32,
    /// The maximum number of retries to an endpoint, in percent of its requests.
    pub(crate) budget_percent: u32,
}

impl Default for RetryFile {
    fn default() -> Self {
        Self { messages: MessageRetryFile::default(), attempts: 3, budget_percent: 20 }
    }
}

/// The retries of messages.
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

/// Calls with an `Idempotency-Key`: a repeated call gets the outcome of the first and is not sent again.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct IdempotencyFile {
    /// The time for which a key is remembered after it was first used. A repeat after that is a new call.
    pub(crate) expires_after: String,
    /// The maximum number of keys that are remembered, in 2 KiB each; one with a longer response counts as several. Beyond it, the network of callers (/24, /64) with the most
    /// keys loses its oldest one.
    pub(crate) keys: u32,
    /// The store that replicas share: `redis://host[:port][/database]`, `rediss://…` for TLS, or `unix:///path`. Default: none; each
    /// replica remembers its own calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) store: Option<String>,
    /// The user at the store. Default: its default user.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) username: Option<String>,
    /// The source of the password at the store, read when a connection is opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<SecretFile>,
    /// PEM file of the CAs for the certificate of the store. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// What happens to calls with a key while the store is out: `refuse` (default: they are answered 503, and nothing is sent) or
    /// `local` (each replica goes on alone, so that a repeat at another replica may be sent twice).
    pub(crate) when_store_is_out: WhenStoreIsOutFile,
    /// The timeout of one operation of the store, including a new connection.
    pub(crate) store_timeout: String,
}

/// What happens to calls with a key while the store is out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WhenStoreIsOutFile {
    /// They are refused.
    #[default]
    Refuse,
    /// Each replica goes on alone.
    Local,
}

impl Default for IdempotencyFile {
    fn default() -> Self {
        Self {
            expires_after: "5m".to_owned(),
            keys: 10_000,
            store: None,
            username: None,
            password: None,
            ca_file: None,
            when_store_is_out: WhenStoreIsOutFile::default(),
            store_timeout: "1s".to_owned(),
        }
    }
}

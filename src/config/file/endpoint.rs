//! Endpoints and their health. A new key of an endpoint needs a field here, and its default in `lower/endpoint.rs`.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::egress::ProxyChoiceFile;
use super::rate::RateFile;

/// An endpoint.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct EndpointFile {
    /// `https://host[:port]` of the SignalR resource.
    pub(crate) url: String,
    /// The name of its credential.
    pub(crate) credential: String,
    /// The tenant of this SignalR resource, which issues its tokens. A GUID or a domain. Only if the credential names none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tenant: Option<String>,
    /// The object id of the credential's enterprise application in that tenant. If set, `doctor` and `token` compare it with the
    /// `oid` of the token. Only if the credential has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) object_id: Option<String>,
    /// The label of its metrics. Endpoints that share it share their series: counters add up, states show the worst. Default:
    /// its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) metrics_label: Option<String>,
    /// Whether it is in use. Default: true. If not, it has no token and no connection; calls that only it could answer are
    /// answered 503 `endpoint_disabled`, and routes with other endpoints use those.
    #[serde(default = "enabled")]
    pub(crate) enabled: bool,
    /// `primary` (default) or `secondary`: client tokens come from a primary while one is healthy.
    #[serde(default)]
    pub(crate) role: RoleFile,
    /// PEM file of the CAs for its certificate. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The proxy of connections to it, instead of `egress.proxy` and regardless of `egress.no_proxy`: a URL, `"environment"`,
    /// `"off"`, or `{ url = …, username = …, password = …, ca_file = … }`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proxy: Option<ProxyChoiceFile>,
    /// The timeout of name resolution. Default: `6s`, since the system's resolver repeats a lost query after 5 s.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) resolve_timeout: Option<String>,
    /// The timeout of TCP, a proxy's answer and TLS together, after name resolution. Default: `2s`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) connect_timeout: Option<String>,
    /// The HTTP version: `"1.1"` (default) or `"2"`.
    #[serde(default)]
    pub(crate) http_version: HttpVersionFile,
    /// The maximum number of calls in flight to it. Default: `limits.endpoint_max_requests`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_requests: Option<u32>,
    /// The maximum rate of calls to it. Default: `limits.endpoint_rate`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<RateFile>,
    /// The pool of connections to it.
    #[serde(default)]
    pub(crate) pool: PoolFile,
    /// Tests all the time whether messages arrive: a client of the gateway's own connects to a hub of the endpoint and receives a
    /// message at intervals, such as `{ hub = "signalr_gateway_canary", interval = "1m" }`. Default: none. Each gateway process is
    /// billed for one connection and one message per interval: 1,440 a day at `1m`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) canary: Option<CanaryFile>,
}

/// The canary of an endpoint.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct CanaryFile {
    /// The hub of its client. It need not exist. Nothing else should send to it: the canary's connection would receive, and be
    /// billed for, every broadcast to the hub.
    pub(crate) hub: String,
    /// The interval of its messages, at least `10s`. After a failure, the next one follows after 5 s, then 10 s, and so on up to the
    /// interval.
    pub(crate) interval: String,
}

impl Default for CanaryFile {
    fn default() -> Self {
        Self { hub: "signalr_gateway_canary".to_owned(), interval: "1m".to_owned() }
    }
}

fn enabled() -> bool {
    true
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
    /// The maximum number of idle connections that each worker keeps.
    pub(crate) max_idle_per_worker: u32,
    /// The time after which an idle connection is closed.
    pub(crate) idle_timeout: String,
    /// The age at which a connection is closed after its response, within 10 %, so that a changed DNS answer is followed: at least
    /// `1s`, or `off`.
    pub(crate) max_age: String,
}

impl Default for PoolFile {
    fn default() -> Self {
        Self { max_idle_per_worker: 128, idle_timeout: "60s".to_owned(), max_age: "10m".to_owned() }
    }
}

/// The circuit breakers of endpoints.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HealthFile {
    /// The number of failures, within `window` or consecutive, that opens the circuit of an endpoint, so that calls go to
    /// others. Failures are: unreachable, connection lost, timeout, or a status of 500 and above.
    pub(crate) failures: u32,
    /// The ratio of failed calls within `window` that is required as well: above 0, at most 1.
    pub(crate) failure_ratio: f64,
    /// The time over which calls are counted, at least `1s`.
    pub(crate) window: String,
    /// The time for which the circuit stays open at first. It doubles with each consecutive opening, up to a minute.
    pub(crate) pause: String,
    /// The interval of the probes of each endpoint's `/api/health`, without a token. A sixth of it while the circuit is open. If
    /// there are more than 64 endpoints, those are probed that calls have used since the last interval, and the other endpoints of
    /// the routes that may pick these.
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

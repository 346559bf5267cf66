//! Routes and routing tests.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::one_or_many::OneOrMany;
use super::rate::RateFile;

/// A route.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteFile {
    /// The route's name, for metrics and logs.
    pub(crate) name: String,
    /// The conditions; all must hold. Default: every call matches.
    #[serde(default, rename = "match")]
    pub(crate) matches: MatchFile,
    /// `first` (default: in order, the next only if nothing could be sent), `weighted` (at random), `hash` (calls with the
    /// same hash key go to the same endpoint), or `all` (every endpoint, one merged response).
    #[serde(default)]
    pub(crate) pick: PickFile,
    /// With `pick = "hash"`: the hash key, which is `hub` (default), `group`, `user`, `connection`, or
    /// `{ header = "name" }`. The hub is the key of a call without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hash_by: Option<HashByFile>,
    /// With `pick = "all"`: the number of endpoints that must accept a delivery, `all` (default), `any` or `quorum`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<PolicyFile>,
    /// While the circuits of all endpoints are open: `send` (default: to the first anyway) or `fail` (503).
    #[serde(default)]
    pub(crate) when_unavailable: WhenUnavailableFile,
    /// Whether a call may name its endpoint in the header `signalr-gateway-endpoint`, or the name of another header for it.
    /// Default: false. Without `endpoints`, each call must name its endpoint, which may be any.
    #[serde(default)]
    pub(crate) endpoint_header: EndpointHeaderFile,
    /// The maximum rate of calls. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<RateFile>,
    /// The endpoints: names, or `{ name = …, weight = … }`; at most 32. Default: any endpoint, which each call must name, by
    /// `{endpoint}` in a pattern of the route or in the `endpoint_header`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoints: Option<Vec<RouteEndpointFile>>,
}

/// Whether, and in which header, calls may name their endpoint.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum EndpointHeaderFile {
    /// Whether they may name it in the header `signalr-gateway-endpoint`.
    Allowed(bool),
    /// The header in which they may name it.
    Name(String),
}

impl Default for EndpointHeaderFile {
    fn default() -> Self {
        Self::Allowed(false)
    }
}

/// The way in which a route picks endpoints.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PickFile {
    #[default]
    First,
    Weighted,
    Hash,
    All,
}

/// The hash key of calls.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum HashByFile {
    /// A name in the call's path.
    Name(HashNameFile),
    /// A header.
    Header(HashHeaderFile),
}

/// A name in the path of a call.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HashNameFile {
    Hub,
    Group,
    User,
    Connection,
}

/// A header whose value is the hash key.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HashHeaderFile {
    /// The header's name.
    pub(crate) header: String,
}

/// The number of endpoints that must accept a delivery.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PolicyFile {
    All,
    Any,
    Quorum,
}

/// What a route does while the circuits of all endpoints are open.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum WhenUnavailableFile {
    #[default]
    Send,
    Fail,
}

/// An endpoint of a route.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum RouteEndpointFile {
    /// Its name.
    Name(String),
    /// Its name and its weight.
    Weighted(WeightedEndpointFile),
}

/// An endpoint of a route, with its weight.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct WeightedEndpointFile {
    /// Its name.
    pub(crate) name: String,
    /// Its weight with `pick = "weighted"` or `"hash"`, from 1 to 1000000. Default: 1.
    #[serde(default = "one")]
    pub(crate) weight: u32,
}

fn one() -> u32 {
    1
}

/// The conditions of a route.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MatchFile {
    /// Hub names or `*` patterns, in any case; `{endpoint}` stands for the name of the call's endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hub: Option<OneOrMany<String>>,
    /// Operations, or the sets `messages`, `execute`, `groups`, `queries`, `close`, `credentials`, `claims`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operation: Option<OneOrMany<String>>,
    /// Group names or `*` patterns; `{endpoint}` stands for the name of the call's endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<OneOrMany<String>>,
    /// User ids or `*` patterns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<OneOrMany<String>>,
    /// Values or `*` patterns of the `application` parameter, in any case; `{endpoint}` stands for the name of the call's
    /// endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) application: Option<OneOrMany<String>>,
    /// Headers that the call must have, all of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) header: Option<OneOrMany<HeaderMatchFile>>,
    /// Names of listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listener: Option<OneOrMany<String>>,
    /// Networks of callers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<OneOrMany<String>>,
    /// Identities in the certificates of callers, or `*` patterns: a URI (SPIFFE id), a DNS name or a subject. Needs a listener
    /// with `client_ca`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) caller: Option<OneOrMany<String>>,
}

impl MatchFile {
    /// Returns whether there is no condition, so that every call matches.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { hub, operation, group, user, application, header, listener, client, caller } = self;
        let texts = [hub, operation, group, user, application, listener, client, caller];
        texts.into_iter().all(Option::is_none) && header.is_none()
    }
}

/// A header that a call must have.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderMatchFile {
    /// The header's name.
    pub(crate) name: String,
    /// The value that it must have. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
}

/// A routing test: a call and its expected route.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestFile {
    /// Its name in a report. Default: its method and URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The method. Default: `POST`.
    #[serde(default = "post")]
    pub(crate) method: String,
    /// The URL, or its path and query.
    pub(crate) url: String,
    /// The headers, by name.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// The listener that receives it. Default: the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listener: Option<String>,
    /// The caller's IP address. Default: 127.0.0.1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<String>,
    /// The identity in the caller's certificate. Default: the caller sends no certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) caller: Option<String>,
    /// The route that must match.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<String>,
    /// The endpoints that it must go to, in the order in which they are tried, or in any order if the route has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoints: Option<OneOrMany<String>>,
    /// Instead of `route` and `endpoints`: the error kind with which it must be rejected, such as `no_route`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
}

fn post() -> String {
    "POST".to_owned()
}

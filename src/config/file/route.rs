//! Which calls go where, and the tests of that.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::one_or_many::OneOrMany;

/// A route.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RouteFile {
    /// The route's name, for metrics and logs.
    pub(crate) name: String,
    /// What a call must look like; every condition must hold. Without any, every call matches.
    #[serde(default, rename = "match")]
    pub(crate) matches: MatchFile,
    /// `first` (default; in order, the next only if nothing could be sent), `weighted` (at random), `hash` (what is about
    /// the same goes to the same endpoint), or `all` (every endpoint, one answer).
    #[serde(default)]
    pub(crate) pick: PickFile,
    /// With `pick = "hash"`: what calls are spread by, `hub` (default), `group`, `user`, `connection`, or
    /// `{ header = "name" }`. A call that does not have it is spread by its hub.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hash_by: Option<HashByFile>,
    /// With `pick = "all"`: how many endpoints must accept a delivery, `all` (default), `any` or `quorum`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) policy: Option<PolicyFile>,
    /// What happens while every endpoint is out: `send` (default; the first is tried all the same) or `fail` (503).
    #[serde(default)]
    pub(crate) when_unavailable: WhenUnavailableFile,
    /// Whether a caller may name one of the endpoints by the header `signalr-gateway-endpoint`. Default false.
    #[serde(default)]
    pub(crate) endpoint_header: bool,
    /// How many calls it takes. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<RateFile>,
    /// The endpoints: names, or `{ name = …, weight = … }`.
    pub(crate) endpoints: Vec<RouteEndpointFile>,
}

/// How many calls a route takes.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateFile {
    /// Calls per second in the long run.
    pub(crate) per_second: u32,
    /// Calls that may come at once. Default: as many as per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<u32>,
}

/// How a route picks an endpoint.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PickFile {
    #[default]
    First,
    Weighted,
    Hash,
    All,
}

/// What calls are spread by.
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

/// A header that calls are spread by.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HashHeaderFile {
    /// The header's name.
    pub(crate) header: String,
}

/// How many endpoints must accept a delivery.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum PolicyFile {
    All,
    Any,
    Quorum,
}

/// What a route does while every endpoint is out.
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
    /// Its share under `pick = "weighted"` or `"hash"`, from 1 to 1000000. Default 1.
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
    /// Hub names or `*` patterns, without case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hub: Option<OneOrMany<String>>,
    /// Operations, or the sets `messages`, `execute`, `groups`, `queries`, `close`, `credentials`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operation: Option<OneOrMany<String>>,
    /// Group names or `*` patterns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) group: Option<OneOrMany<String>>,
    /// User ids or `*` patterns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) user: Option<OneOrMany<String>>,
    /// Values or `*` patterns of the `application` parameter, without case.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) application: Option<OneOrMany<String>>,
    /// Headers that must all be there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) header: Option<OneOrMany<HeaderMatchFile>>,
    /// Names of listeners.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listener: Option<OneOrMany<String>>,
    /// Networks of callers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<OneOrMany<String>>,
}

impl MatchFile {
    /// Whether there is no condition at all, so that every call matches.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { hub, operation, group, user, application, header, listener, client } = self;
        let texts = [hub, operation, group, user, application, listener, client];
        texts.into_iter().all(Option::is_none) && header.is_none()
    }
}

/// A header a call must carry.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct HeaderMatchFile {
    /// The header's name.
    pub(crate) name: String,
    /// The value it must have. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) value: Option<String>,
}

/// A call, and where it is to go.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TestFile {
    /// What it is called in a report. Default: its method and URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) name: Option<String>,
    /// The method. Default `POST`.
    #[serde(default = "post")]
    pub(crate) method: String,
    /// The URL, or its path and query.
    pub(crate) url: String,
    /// The headers, by name.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, String>,
    /// The listener it comes in by. Default: the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) listener: Option<String>,
    /// The caller's IP address. Default: this host's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client: Option<String>,
    /// The route that is to take it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) route: Option<String>,
    /// The endpoints it is to go to, in the order in which they are tried; in any order where the route has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoints: Option<OneOrMany<String>>,
    /// In place of both: the kind of error it is to be refused with, such as `no_route`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) refused: Option<String>,
}

fn post() -> String {
    "POST".to_owned()
}

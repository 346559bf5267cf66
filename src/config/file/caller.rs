//! Callers that are known by their certificates.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::one_or_many::OneOrMany;
use super::rate::RateFile;

/// A caller that is known by the identity in its certificate, and what it may do. What is left out is not limited.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CallerFile {
    /// Its identities or `*` patterns of them: the first URI of the certificate (a SPIFFE id), else its first DNS name, else its
    /// subject, such as `CN=orders,O=Example`. A caller that has exactly an identity takes precedence over patterns, and a
    /// narrower pattern over a wider one.
    #[serde(rename = "match")]
    pub(crate) matches: OneOrMany<String>,
    /// The operations that it may use, among those that the listener allows: single ones, or the sets `messages`, `execute`,
    /// `groups`, `queries`, `close`, `credentials`, `claims`. Default: all that the listener allows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operations: Option<Vec<String>>,
    /// Names of hubs that it may use, or `*` patterns, in any case. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) hubs: Option<Vec<String>>,
    /// Names of endpoints that its calls may be sent to, or `*` patterns. A call that could be sent to another endpoint is refused,
    /// also if `{endpoint}` or a header names it. Default: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoints: Option<Vec<String>>,
    /// The maximum rate of its calls. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) rate: Option<RateFile>,
}

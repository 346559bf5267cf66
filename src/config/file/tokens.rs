//! When tokens are requested.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// When tokens are requested.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TokensFile {
    /// `at_start`, or `on_demand`: at the first call that needs a token. Default: `at_start` for up to 64 tokens, one for each
    /// credential and tenant, else `on_demand`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) acquire: Option<AcquireFile>,
    /// With `on_demand`: the time without use after which a token is dropped and no longer refreshed.
    pub(crate) release_after: String,
    /// The maximum number of token requests at once, for each authority. Requests that calls wait for come before refreshes.
    pub(crate) max_requests: u32,
}

impl Default for TokensFile {
    fn default() -> Self {
        Self { acquire: None, release_after: "1h".to_owned(), max_requests: 16 }
    }
}

/// When a token is requested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum AcquireFile {
    AtStart,
    OnDemand,
}

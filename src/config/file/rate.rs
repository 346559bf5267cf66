//! The rate of a route or an endpoint.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The maximum rate of calls, over all workers.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RateFile {
    /// The sustained rate, in calls per second.
    pub(crate) per_second: u32,
    /// The maximum burst, in calls. Default: `per_second`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<u32>,
}

//! The source of a secret.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The source of a secret: `{ file = … }` or `{ env = … }`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct SecretFile {
    /// A file that contains the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
    /// The name of an environment variable that contains the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) env: Option<String>,
}

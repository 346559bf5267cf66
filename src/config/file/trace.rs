//! The export of traces.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::SecretFile;
use crate::otlp::SERVICE_NAME;

/// Traces of calls and of token acquisitions, which are exported to an OpenTelemetry collector.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TracingFile {
    /// The collector's OTLP/HTTP receiver, such as `http://collector:4318`. `/v1/traces` is appended to a URL without a path.
    /// Connections to `https` URLs go through the proxy of `[egress]`. Default: none, and nothing is traced.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) endpoint: Option<String>,
    /// The share of the calls that is traced, from 0 to 1, among those whose caller sends no `traceparent`. With one, its sampled flag
    /// decides.
    pub(crate) sample: f64,
    /// The headers of each export, such as an API key: the source of each value, which is read for each export.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) headers: BTreeMap<String, SecretFile>,
    /// The `service.name` of the spans.
    pub(crate) service_name: String,
    /// PEM file of the CAs for the certificate of an `https` collector. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

impl Default for TracingFile {
    fn default() -> Self {
        Self {
            endpoint: None,
            sample: 0.01,
            headers: BTreeMap::new(),
            service_name: SERVICE_NAME.to_owned(),
            ca_file: None,
        }
    }
}

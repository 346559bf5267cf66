//! The forward proxies of connections to other networks.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::secret::SecretFile;

/// The forward proxy of connections to endpoints, Entra and identity providers. Identity endpoints of the host and `http://`
/// endpoints never go through it.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct EgressFile {
    /// `http://host:port` or `https://host:port` of a proxy that supports CONNECT; `"environment"` for the proxy in `https_proxy`,
    /// `HTTPS_PROXY`, `all_proxy` or `ALL_PROXY`, the first that is set, and the exceptions in `no_proxy` or `NO_PROXY`, as curl
    /// reads them; or `"off"`. Default: `"off"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) proxy: Option<String>,
    /// The user name at the proxy, for `Basic` authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) username: Option<String>,
    /// The source of the password at the proxy, read when a connection is opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<SecretFile>,
    /// PEM file of the CAs for the certificate of an `https://` proxy. Default: the system's. For a proxy that inspects TLS, set
    /// `ca_file` of the endpoints and credentials.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// The hosts that are connected to without the proxy: names, which include every name below them (`corp.example`,
    /// `.corp.example`), addresses, networks (`10.0.0.0/8`), or `"*"` alone. Ports do not count. Default: none, or those of the
    /// environment with `proxy = "environment"`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) no_proxy: Option<Vec<String>>,
}

/// The proxy of an endpoint or credential: a URL, `"environment"` or `"off"`, or a table with a URL, a user name and a password.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
pub(crate) enum ProxyChoiceFile {
    /// `http://host:port`, `https://host:port`, `"environment"` or `"off"`.
    Text(String),
    /// A proxy with a user name and a password or a CA of its own.
    Table(ProxyFile),
}

/// A proxy.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProxyFile {
    /// `http://host:port` or `https://host:port`.
    pub(crate) url: String,
    /// The user name at the proxy, for `Basic` authentication.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) username: Option<String>,
    /// The source of the password at the proxy, read when a connection is opened.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) password: Option<SecretFile>,
    /// PEM file of the CAs for the certificate of an `https://` proxy. Default: the system's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
}

//! Where callers and operators come in.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A listener.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerFile {
    /// `address:port`, or `unix:` and a path. Port 0 takes a free one.
    pub(crate) bind: String,
    /// Permission bits of a Unix socket, in octal. Default `0660`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<String>,
    /// TLS for callers. Default: plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<TlsFile>,
    /// Names that `Host` may carry; `*.example.com` stands for any name below. IP addresses and `localhost` always
    /// pass. Default: none.
    #[serde(default)]
    pub(crate) allowed_hosts: Vec<String>,
    /// The operations callers may use: single ones, or the sets `messages`, `execute`, `groups`, `queries`, `close`,
    /// `credentials`. Default `messages`, `groups`, `queries`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operations: Option<Vec<String>>,
    /// Networks callers may come from, such as `10.0.0.0/8`. Default: any.
    #[serde(default)]
    pub(crate) clients: Vec<String>,
    /// A header every call must carry, but for health probes. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) required_header: Option<RequiredHeaderFile>,
    /// The most calls in work at once. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_requests: Option<u32>,
    /// How many calls may come from each network of callers. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_rate: Option<ClientRateFile>,
}

/// How many calls may come from each network of callers.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientRateFile {
    /// Calls per second in the long run.
    pub(crate) per_second: u32,
    /// Calls that may come at once. Default: as many as per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<u32>,
    /// The prefix length that makes a network of IPv4 addresses. Default 32: each address is one.
    #[serde(default = "ipv4_prefix")]
    pub(crate) ipv4_prefix: u8,
    /// The same of IPv6 addresses. Default 64.
    #[serde(default = "ipv6_prefix")]
    pub(crate) ipv6_prefix: u8,
}

fn ipv4_prefix() -> u8 {
    32
}

fn ipv6_prefix() -> u8 {
    64
}

/// A listener's certificate.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsFile {
    /// PEM file with the certificate chain.
    pub(crate) certificate: PathBuf,
    /// PEM file with the private key.
    pub(crate) key: PathBuf,
}

/// A header every call must carry.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequiredHeaderFile {
    /// The header's name.
    pub(crate) name: String,
    /// The value it must have.
    pub(crate) value: String,
}

/// The admin listener.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AdminFile {
    /// `address:port`, or `off`.
    pub(crate) bind: String,
    /// Names that `Host` may carry, for scrapers and people that use a name; `*.example.com` stands for any name below. IP
    /// addresses and `localhost` always pass, and `/livez` and `/readyz` answer to any name. Default: none.
    pub(crate) allowed_hosts: Vec<String>,
}

impl Default for AdminFile {
    fn default() -> Self {
        Self { bind: "127.0.0.1:9090".to_owned(), allowed_hosts: Vec::new() }
    }
}

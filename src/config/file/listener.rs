//! The listeners for callers and for operators.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::one_or_many::OneOrMany;

/// A listener.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerFile {
    /// `address:port`, or `unix:` and a path. Port 0 chooses a free port.
    pub(crate) bind: String,
    /// The permission bits of a Unix socket, in octal. Default: `0660`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) mode: Option<String>,
    /// TLS for callers. Default: plain HTTP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<TlsFile>,
    /// The host names that are allowed in `Host`; `*.example.com` matches any subdomain. IP addresses and `localhost` are
    /// always allowed. Default: none.
    #[serde(default)]
    pub(crate) allowed_hosts: Vec<String>,
    /// The operations that callers may use: single ones, or the sets `messages`, `execute`, `groups`, `queries`, `close`,
    /// `credentials`, `claims`. Default: `messages`, `groups`, `queries`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) operations: Option<Vec<String>>,
    /// Networks that callers may connect from, such as `10.0.0.0/8`. Default: any.
    #[serde(default)]
    pub(crate) clients: Vec<String>,
    /// The proxies in front of this listener, by address or network such as `10.0.0.0/8`, and `unix` for all peers of a Unix
    /// socket. A caller's address is read from the `Forwarded` or `X-Forwarded-For` of these alone, for `clients`,
    /// `client_rate`, routes and logs. Default: none, so that the peer of the connection is the caller.
    #[serde(default)]
    pub(crate) trusted_proxies: Vec<String>,
    /// Whether connections begin with a header of the PROXY protocol, version 1 or 2. Connections without it and those of other
    /// peers than `trusted_proxies` are closed. Default: false.
    #[serde(default)]
    pub(crate) proxy_protocol: bool,
    /// A header that every call except health probes must have. Default: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) required_header: Option<RequiredHeaderFile>,
    /// The maximum number of calls in flight. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) max_requests: Option<u32>,
    /// The maximum rate of calls from each network of callers. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_rate: Option<ClientRateFile>,
}

/// The maximum rate of calls from each network of callers.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClientRateFile {
    /// The sustained rate, in calls per second.
    pub(crate) per_second: u32,
    /// The maximum burst, in calls. Default: `per_second`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) burst: Option<u32>,
    /// The prefix length of a network of IPv4 addresses. Default: 32, so that each address is a network.
    #[serde(default = "ipv4_prefix")]
    pub(crate) ipv4_prefix: u8,
    /// The prefix length of a network of IPv6 addresses. Default: 64.
    #[serde(default = "ipv6_prefix")]
    pub(crate) ipv6_prefix: u8,
}

fn ipv4_prefix() -> u8 {
    32
}

fn ipv6_prefix() -> u8 {
    64
}

/// The certificate of a listener, and how it verifies those of its callers.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TlsFile {
    /// PEM file with the certificate chain.
    pub(crate) certificate: PathBuf,
    /// PEM file with the private key.
    pub(crate) key: PathBuf,
    /// PEM file with the CAs of callers' certificates, which then identify callers. Default: callers need no certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_ca: Option<PathBuf>,
    /// With `client_ca`: whether a caller must have a certificate, `required` (default) or `optional`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_auth: Option<ClientAuthFile>,
    /// With `client_ca`: PEM files with certificate revocation lists, one for each CA of the chains. A certificate is then
    /// refused if it is revoked, if no list covers it, or if the list has expired. Default: revocation is not checked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) client_crl: Option<OneOrMany<PathBuf>>,
}

/// Whether a caller must have a certificate.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClientAuthFile {
    Required,
    Optional,
}

/// A header that every call must have.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequiredHeaderFile {
    /// The header's name.
    pub(crate) name: String,
    /// The value that it must have.
    pub(crate) value: String,
}

/// The admin listener.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct AdminFile {
    /// `address:port`, or `off`.
    pub(crate) bind: String,
    /// The host names that are allowed in `Host`; `*.example.com` matches any subdomain. IP addresses and `localhost` are
    /// always allowed, and `/livez` and `/readyz` allow any name. Default: none.
    pub(crate) allowed_hosts: Vec<String>,
    /// TLS. With `client_ca`, everything but `/livez` and `/readyz` needs a certificate, and these two need one as well unless
    /// `client_auth` is `optional`. Default: plain HTTP. Prometheus then needs `scheme: https` and `tls_config` with the CA and, for
    /// `client_ca`, a certificate. Probes of Kubernetes need `scheme: HTTPS` and send no certificate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) tls: Option<TlsFile>,
}

impl Default for AdminFile {
    fn default() -> Self {
        Self { bind: "127.0.0.1:9090".to_owned(), allowed_hosts: Vec::new(), tls: None }
    }
}

//! The settings of an endpoint. No serde, no I/O.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::HealthSettings;
use crate::credential::CredentialName;

/// The configured name of an endpoint. Metric label, log field, key of the `[endpoints.*]` tables.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointName(Arc<str>);

impl EndpointName {
    /// Wraps a name that configuration has checked.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Returns the name as the operator wrote it.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One SignalR resource.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointSettings {
    /// The configured name.
    pub name: EndpointName,
    /// Where it listens.
    pub origin: Origin,
    /// The credential of its requests.
    pub credential: CredentialName,
    /// Its role for client tokens.
    pub role: EndpointRole,
    /// PEM file of the CAs that verify its certificate, in place of the system's.
    pub ca_file: Option<PathBuf>,
    /// The timeout of name resolution, and again that of TCP and TLS together.
    pub connect_timeout: Duration,
    /// The HTTP version of its connections.
    pub http_version: HttpVersion,
    /// The most concurrent calls; no limit if `None`.
    pub max_requests: Option<usize>,
    /// How its connections are kept.
    pub pool: PoolSettings,
    /// When its circuit opens.
    pub health: HealthSettings,
}

/// Scheme, host and port of an endpoint. Configuration allows `http` for loopback hosts only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether the connection is TLS.
    pub tls: bool,
    /// The host: a name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Origin {
    /// Returns the value of the `Host` header: the port is left out where it is the scheme's own.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// An endpoint's role for client tokens, as in the Management SDK: tokens come from a primary while one is healthy; messages
/// go to both kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EndpointRole {
    /// Issues client tokens.
    Primary,
    /// Issues client tokens when no primary is healthy.
    Secondary,
}

/// The HTTP version of connections to an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.1: one request at a time on each connection. Costs the least CPU.
    Http1,
    /// HTTP/2: one connection of each worker for all its requests. By ALPN with TLS, by prior knowledge without.
    Http2,
}

/// How upstream connections are kept. Each worker has a pool of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// The most idle connections one worker keeps to one endpoint.
    pub max_idle_per_worker: usize,
    /// The idle time after which a connection is closed. Keep it below the service's own idle timeout.
    pub idle_timeout: Duration,
}

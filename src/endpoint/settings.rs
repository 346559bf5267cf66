//! The settings of an endpoint. No serde, no I/O.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::HealthSettings;
use crate::credential::CredentialId;
use crate::egress::EgressProxy;
use crate::limits::RateSettings;

/// The configured name of an endpoint. It is a metric label, a log field and the key of an `[endpoints.*]` table.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointName(Arc<str>);

impl EndpointName {
    /// Wraps a name that the configuration has validated.
    pub fn new(name: &str) -> Self {
        Self(name.into())
    }

    /// Returns the name as configured.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the name as configured, in shared memory.
    pub fn shared(&self) -> Arc<str> {
        Arc::clone(&self.0)
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
    /// Its scheme, host and port.
    pub origin: Origin,
    /// The name that labels its metrics, unless the maximum of such names is reached. Endpoints may share it.
    pub metrics_label: Arc<str>,
    /// The credential whose tokens its requests carry.
    pub credential: CredentialId,
    /// Its role for client tokens.
    pub role: EndpointRole,
    /// The PEM file of the CAs that are trusted for it, instead of the system's CAs.
    pub ca_file: Option<PathBuf>,
    /// The proxy that its connections go through.
    pub proxy: Option<Arc<EgressProxy>>,
    /// The timeout of name resolution.
    pub resolve_timeout: Duration,
    /// The timeout of TCP, a proxy's answer and TLS together.
    pub connect_timeout: Duration,
    /// The HTTP version of its connections.
    pub http_version: HttpVersion,
    /// The maximum number of concurrent calls; `None` for no limit.
    pub max_requests: Option<usize>,
    /// The rate of calls; `None` for no limit.
    pub rate: Option<RateSettings>,
    /// The limits of its idle connections.
    pub pool: PoolSettings,
    /// The thresholds of its circuit breaker.
    pub health: HealthSettings,
    /// The canary that tests whether messages arrive at its clients.
    pub canary: Option<CanarySettings>,
}

/// The canary of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanarySettings {
    /// The hub of its client.
    pub hub: Arc<str>,
    /// The interval of its messages.
    pub interval: Duration,
}

impl EndpointSettings {
    /// Returns whether an endpoint with these settings can serve a configuration with the other ones: they differ in limits and
    /// the canary at most, which belong to the configuration.
    pub fn differs_only_in_limits(&self, other: &Self) -> bool {
        let Self {
            name,
            origin,
            metrics_label,
            credential,
            role,
            ca_file,
            proxy,
            resolve_timeout,
            connect_timeout,
            http_version,
            max_requests: _,
            rate: _,
            pool,
            health,
            // A canary reads it from the configuration in force.
            canary: _,
        } = self;
        (name, origin, metrics_label, credential)
            == (&other.name, &other.origin, &other.metrics_label, &other.credential)
            && (role, ca_file, connect_timeout) == (&other.role, &other.ca_file, &other.connect_timeout)
            && (proxy, resolve_timeout, http_version) == (&other.proxy, &other.resolve_timeout, &other.http_version)
            && (pool, health) == (&other.pool, &other.health)
    }
}

/// A configured endpoint that is not in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DisabledEndpoint {
    /// The configured name.
    pub name: EndpointName,
    /// Its scheme, host and port.
    pub origin: Origin,
}

/// Scheme, host and port of an endpoint. Configuration allows `http` for loopback hosts only.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Origin {
    /// Whether connections use TLS.
    pub tls: bool,
    /// The host: a name, an IPv4 address, or an IPv6 address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl Origin {
    /// Returns the value of the `Host` header, which omits the default port of the scheme.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        match (self.tls, self.port) {
            (true, 443) | (false, 80) => host,
            (_, port) => format!("{host}:{port}"),
        }
    }

    /// Returns `scheme://host:port`, also if the port is the default of the scheme.
    pub fn with_port(&self) -> String {
        format!("{}://{}", if self.tls { "https" } else { "http" }, self.host_and_port())
    }

    /// Returns `host:port`, also if the port is the default of the scheme.
    pub fn host_and_port(&self) -> String {
        let host = &self.host;
        if host.contains(':') { format!("[{host}]:{}", self.port) } else { format!("{host}:{}", self.port) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", if self.tls { "https" } else { "http" }, self.authority())
    }
}

/// An endpoint's role for client tokens, as in the Management SDK. Primary endpoints issue them while one is healthy. Messages
/// are sent to endpoints of both roles.
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
    /// HTTP/1.1: one request at a time on each connection. It costs the least CPU.
    Http1,
    /// HTTP/2: one connection per worker, which all of its requests share. Negotiated by ALPN over TLS, else used with prior
    /// knowledge.
    Http2,
}

/// The limits of idle connections to an endpoint. Each worker has its own pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// The maximum number of idle connections of one worker to one endpoint.
    pub max_idle_per_worker: usize,
    /// The idle time after which a connection is closed. It should be shorter than the idle timeout of the service.
    pub idle_timeout: Duration,
    /// The age at which a connection carries no further requests, within 10 %; `None` for no limit.
    pub max_age: Option<Duration>,
}

/// The ages at which connections that were opened at one time are closed, in parts of `max_age`, so that not all are opened again
/// at one time.
const AGE_SPREAD: (f32, f32) = (0.9, 1.1);

impl PoolSettings {
    /// Returns when a connection that is opened `now` reaches its age.
    pub(super) fn expiry(&self, now: Instant) -> Option<Instant> {
        let (shortest, longest) = AGE_SPREAD;
        self.max_age.map(|age| now + age.mul_f32(shortest + fastrand::f32() * (longest - shortest)))
    }
}

//! The settings of listeners and workers. No serde, no I/O.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::caller_address::TrustedProxies;

/// The settings of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// The configured name.
    pub name: String,
    /// The address.
    pub bind: Bind,
    /// TLS for callers; plain if `None`.
    pub tls: Option<ListenerTlsSettings>,
    /// The proxies that must begin each connection with a header of the PROXY protocol, which no other peer may; `None` turns
    /// the protocol off.
    pub proxy_protocol: Option<Arc<TrustedProxies>>,
}

impl ListenerSettings {
    /// Returns whether its callers may have an identity.
    pub fn identifies_callers(&self) -> bool {
        self.client_auth().is_some()
    }

    /// Returns whether it accepts only callers with a certificate.
    pub fn requires_certificate(&self) -> bool {
        self.client_auth().is_some_and(|auth| auth.is_required)
    }

    fn client_auth(&self) -> Option<&ClientAuthSettings> {
        self.tls.as_ref()?.client_auth.as_ref()
    }
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// A TCP address; port 0 takes a free port.
    Tcp(SocketAddr),
    /// A Unix domain socket.
    Unix {
        /// The socket's path. A stale socket at this path is replaced, any other file is kept.
        path: PathBuf,
        /// Permission bits of the socket, such as `0o660`.
        mode: u32,
    },
}

impl Bind {
    /// Returns whether two listeners would bind the same address. The system does not report it, because workers share ports.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => {
                let is_one_address = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
                // Port 0 takes a free port.
                one.port() == other.port() && one.port() != 0 && is_one_address
            }
            (Self::Unix { path: one, .. }, Self::Unix { path: other, .. }) => one == other,
            (Self::Tcp(_), Self::Unix { .. }) | (Self::Unix { .. }, Self::Tcp(_)) => false,
        }
    }
}

/// The certificate of a listener, and how it verifies those of its callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTlsSettings {
    /// PEM file with the certificate chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
    /// The verification of callers' certificates; `None` if callers are asked for none.
    pub client_auth: Option<ClientAuthSettings>,
}

/// The verification of callers' certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientAuthSettings {
    /// PEM file with the CAs of callers' certificates.
    pub ca: PathBuf,
    /// Whether a handshake without a certificate fails.
    pub is_required: bool,
    /// PEM files with certificate revocation lists. Revocation is checked if there are any.
    pub revocation_lists: Vec<PathBuf>,
}

/// How connections are served: workers, limits, drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeSettings {
    /// The number of workers. Each is a thread with its own runtime, listeners and upstream pools.
    pub workers: usize,
    /// The most open connections of callers, over all workers. Further ones wait to be accepted.
    pub max_connections: usize,
    /// The time that a caller has to send the head of a request, and that a connection may be idle.
    pub header_read_timeout: Duration,
    /// The time that a caller has to read a response, or 16 KiB of it. Then the stream is reset or the connection closed.
    pub write_timeout: Duration,
    /// The age at which a connection is closed, within 10 %; `None` for no limit.
    pub connection_age: Option<Duration>,
    /// The time that a stopping gateway keeps accepting, while it responds with `Connection: close` and is not ready.
    pub drain_delay: Duration,
    /// The time that requests in flight have to end after accepting has stopped.
    pub drain_timeout: Duration,
}

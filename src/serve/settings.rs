//! What a listener and the process model are built from, decided. No serde, no I/O.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Where one listener listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// The configured name.
    pub name: String,
    /// The address.
    pub bind: Bind,
    /// TLS for callers; plain if `None`.
    pub tls: Option<ListenerTlsSettings>,
}

/// An address to listen on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Bind {
    /// A TCP address; port 0 takes a free one.
    Tcp(SocketAddr),
    /// A Unix domain socket.
    Unix {
        /// The socket's path. A stale socket at this path is replaced, any other file is left alone.
        path: PathBuf,
        /// Permission bits of the socket, such as `0o660`.
        mode: u32,
    },
}

impl Bind {
    /// Whether two listeners would meet. Workers share their ports, so the system would not say so.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(one), Self::Tcp(other)) => {
                let is_one_address = one.ip() == other.ip() || one.ip().is_unspecified() || other.ip().is_unspecified();
                // Port 0 takes a free one.
                one.port() == other.port() && one.port() != 0 && is_one_address
            }
            (Self::Unix { path: one, .. }, Self::Unix { path: other, .. }) => one == other,
            (Self::Tcp(_), Self::Unix { .. }) | (Self::Unix { .. }, Self::Tcp(_)) => false,
        }
    }
}

/// The certificate a listener shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerTlsSettings {
    /// PEM file with the certificate chain.
    pub certificate: PathBuf,
    /// PEM file with the private key.
    pub key: PathBuf,
}

/// How connections are served: workers, limits, drain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeSettings {
    /// The number of workers, each a thread with a runtime, listeners and upstream pools of its own.
    pub workers: usize,
    /// The most connections of callers open at once, over all workers; more wait to be accepted.
    pub max_connections: usize,
    /// How long a caller may take to send the head of a request, and how long a connection may lie idle.
    pub header_read_timeout: Duration,
    /// How long a caller may take to read an answer, or 16 KiB of it. Then a stream is reset, a connection closed.
    pub write_timeout: Duration,
    /// How long a stopping gateway keeps accepting, while it answers `Connection: close` and is not ready.
    pub drain_delay: Duration,
    /// How long requests in flight may take to end once accepting has stopped.
    pub drain_timeout: Duration,
}

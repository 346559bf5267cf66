//! What can go wrong with a sandbox itself, as opposed to what it emulates.

use std::net::SocketAddr;
use std::path::PathBuf;

/// Why a sandbox did not start, or could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// A port is taken, or not allowed.
    #[error("sandbox {server} cannot listen on {address}; choose another address, or port 0 for a free one")]
    Bind {
        /// The server.
        server: String,
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// Two servers have one name.
    #[error("two sandbox servers are named {name}; give each endpoint a name of its own")]
    Name {
        /// The name.
        name: String,
    },
    /// A certificate could not be made.
    #[error("sandbox certificate could not be made")]
    Certificate(#[from] rcgen::Error),
    /// A key or token could not be made.
    #[error("sandbox key or token could not be made")]
    Jwt(#[from] jsonwebtoken::errors::Error),
    /// TLS could not be set up.
    #[error("sandbox TLS could not be set up")]
    Tls(#[from] rustls::Error),
    /// A file could not be written.
    #[error("sandbox file {} could not be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The directory has no client for an endpoint.
    #[error("sandbox has no endpoint {endpoint}, or its tenant no enterprise application")]
    NoClient {
        /// The endpoint.
        endpoint: String,
    },
}

//! The errors of a sandbox itself. Emulated errors are not among them.

use std::net::SocketAddr;
use std::path::PathBuf;

/// An error of a sandbox.
#[derive(Debug, thiserror::Error)]
pub enum SandboxError {
    /// An address cannot be bound.
    #[error("sandbox server {server} cannot listen on {address}; choose another address, or port 0 for a free port")]
    Bind {
        /// The server.
        server: String,
        /// The address.
        address: SocketAddr,
        /// The cause.
        source: std::io::Error,
    },
    /// Two servers have the same name.
    #[error("two sandbox servers are named {name}; rename one of the endpoints")]
    Name {
        /// The name.
        name: String,
    },
    /// A certificate cannot be generated.
    #[error("the sandbox cannot generate a certificate")]
    Certificate(#[from] rcgen::Error),
    /// A key or a token cannot be created.
    #[error("the sandbox cannot create a key or a token")]
    Jwt(#[from] jsonwebtoken::errors::Error),
    /// TLS cannot be set up.
    #[error("the sandbox cannot set up TLS")]
    Tls(#[from] rustls::Error),
    /// A file cannot be written.
    #[error("the sandbox cannot write the file {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The tenant of an endpoint has no service principal of the client.
    #[error("the sandbox has no endpoint {endpoint}, or its tenant has no enterprise application of the client")]
    NoClient {
        /// The endpoint.
        endpoint: String,
    },
}

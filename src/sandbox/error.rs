//! The errors of the sandbox itself. Emulated error responses are in the modules of their services.

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
    /// A server name is used twice.
    #[error("two sandbox servers are named {name}; rename one of the endpoints")]
    DuplicateName {
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
    /// The endpoint is unknown, or its tenant has no service principal of the application.
    #[error(
        "the sandbox has no endpoint {endpoint}, or the endpoint's tenant has no service principal of the application"
    )]
    NoServicePrincipal {
        /// The endpoint.
        endpoint: String,
    },
}

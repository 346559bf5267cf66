//! The errors of building and running a gateway.

use std::net::SocketAddr;

use crate::credential::CredentialBuildError;
use crate::endpoint::EndpointError;
use crate::route::TableError;
use crate::serve::{BindError, TlsFileError};

/// An error of building or running a gateway.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A credential cannot be built.
    #[error(transparent)]
    Credential(#[from] CredentialBuildError),
    /// An endpoint cannot be built.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// An endpoint names a credential that does not exist. [`config`](crate::config) rejects such a configuration.
    #[error("endpoint `{endpoint}`: there is no credential `{credential}`; define it, or name one that exists")]
    NoCredential {
        /// The endpoint.
        endpoint: String,
        /// The name of the missing credential.
        credential: String,
    },
    /// A route names an endpoint or a listener that does not exist. [`config`](crate::config) rejects such a configuration.
    #[error(transparent)]
    Routes(#[from] TableError),
    /// A listener cannot be set up.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin listener cannot be set up.
    #[error(
        "admin listener: cannot listen on {address}; stop the program that listens there, or set `admin.bind` to another address or to \"off\""
    )]
    BindAdmin {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        source: std::io::Error,
    },
    /// The TLS of the admin listener cannot be set up.
    #[error("admin listener: its TLS cannot be set up")]
    AdminTls(#[source] TlsFileError),
    /// The metrics cannot be set up.
    #[error("the metrics cannot be set up")]
    Metrics(#[from] prometheus::Error),
    /// The workers cannot be started.
    #[error("the workers cannot be started")]
    Workers(#[source] std::io::Error),
    /// Requests were still in flight at the end of `shutdown.timeout`.
    #[error("requests were cut off: they did not end within `shutdown.timeout`")]
    CutOff,
}

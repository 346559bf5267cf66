//! Why an endpoint cannot be built or connected to.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::settings::{EndpointName, Origin};
use crate::metrics::UpstreamErrorReason;
use crate::tls::TrustError;

/// Why an endpoint could not be built.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// There are no CA certificates to verify its certificate with.
    #[error("endpoint `{endpoint}`: connections to it cannot be secured")]
    Trust {
        /// The endpoint.
        endpoint: EndpointName,
        /// The reason.
        source: TrustError,
    },
    /// Its host is not valid in a request or a TLS handshake.
    #[error("endpoint `{endpoint}`: `{origin}` cannot be connected to: the host is not a DNS name or IP address")]
    Host {
        /// The endpoint.
        endpoint: EndpointName,
        /// Its origin.
        origin: Origin,
    },
}

/// Why there is no connection. Nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name did not resolve.
    #[error("name resolution of the endpoint failed")]
    Dns(#[source] Box<dyn Error + Send + Sync>),
    /// The resolver did not answer within `connect_timeout`.
    #[error("name resolution of the endpoint did not finish within {}", humantime::format_duration(*.0))]
    DnsTimeout(Duration),
    /// No address accepted the connection.
    #[error("the endpoint does not accept connections")]
    Tcp(#[source] io::Error),
    /// The TLS handshake failed.
    #[error("the TLS handshake with the endpoint failed")]
    Tls(#[source] io::Error),
    /// No address accepted the connection within `connect_timeout`.
    #[error("the endpoint did not accept a connection within {}", humantime::format_duration(*.0))]
    Timeout(Duration),
    /// The TLS handshake did not end within what was left of `connect_timeout`.
    #[error("the TLS handshake with the endpoint did not finish within {}", humantime::format_duration(*.0))]
    TlsTimeout(Duration),
    /// No connection became free while other requests waited as well.
    #[error("no connection to the endpoint became free within {}, and as many as may be are being opened", humantime::format_duration(*.0))]
    Queue(Duration),
    /// The connection that several requests share could not be opened.
    #[error(transparent)]
    Shared(Arc<ConnectError>),
    /// The endpoint supports HTTP/1.1 only.
    #[error("the endpoint does not offer HTTP/2, which is configured for it (`http_version`)")]
    NoHttp2,
    /// HTTP/2 could not be started on the connection.
    #[error("HTTP/2 could not be started on the connection to the endpoint")]
    Http(#[source] hyper::Error),
}

impl ConnectError {
    /// Returns the metric label.
    pub fn reason(&self) -> UpstreamErrorReason {
        match self {
            Self::Dns(_) | Self::DnsTimeout(_) => UpstreamErrorReason::Dns,
            Self::Tcp(_) => UpstreamErrorReason::Connect,
            Self::Tls(_) => UpstreamErrorReason::Tls,
            Self::Timeout(_) | Self::TlsTimeout(_) | Self::Queue(_) => UpstreamErrorReason::ConnectTimeout,
            Self::Shared(err) => err.reason(),
            Self::NoHttp2 | Self::Http(_) => UpstreamErrorReason::Protocol,
        }
    }
}

/// `EMFILE` and `ENFILE`: the process, or the host, has no free descriptor. Their numbers are the same on all Unix systems.
const OUT_OF_DESCRIPTORS: [i32; 2] = [24, 23];

impl ConnectError {
    /// Whether the gateway's host lacks what a connection needs, such as file descriptors. Says nothing about the endpoint.
    pub fn is_shortage_here(&self) -> bool {
        let mut cause = self.source();
        while let Some(err) = cause {
            if let Some(err) = err.downcast_ref::<io::Error>() {
                let is_out = err.raw_os_error().is_some_and(|code| OUT_OF_DESCRIPTORS.contains(&code));
                return is_out || err.kind() == io::ErrorKind::OutOfMemory;
            }
            cause = err.source();
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lack_of_descriptors_on_this_host_is_not_blamed_on_the_endpoint() {
        for (code, is_shortage) in [(24, true), (23, true), (12, true), (111, false), (110, false)] {
            let err = || io::Error::from_raw_os_error(code);
            for found in [ConnectError::Tcp(err()), ConnectError::Dns(err().into()), ConnectError::Tls(err())] {
                assert_eq!(found.is_shortage_here(), is_shortage, "{found:?}");
            }
        }
        assert!(!ConnectError::Timeout(Duration::ZERO).is_shortage_here());
    }
}

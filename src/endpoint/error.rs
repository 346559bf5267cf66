//! Errors of building an endpoint and of connecting to it.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::settings::{EndpointName, Origin};
use crate::egress::{EgressProxy, ProxyError};
use crate::metrics::UpstreamErrorReason;
use crate::tls::TrustError;

/// Error of building an endpoint.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Its CA certificates could not be loaded.
    #[error("endpoint `{endpoint}`: TLS to it cannot be set up")]
    Trust {
        /// The endpoint.
        endpoint: EndpointName,
        /// The cause.
        source: TrustError,
    },
    /// Its host is not valid in a URI or a TLS handshake.
    #[error("endpoint `{endpoint}`: the host of `{origin}` is not a DNS name or IP address")]
    Host {
        /// The endpoint.
        endpoint: EndpointName,
        /// Its origin.
        origin: Origin,
    },
    /// The host of its proxy is not valid in a TLS handshake.
    #[error("endpoint `{endpoint}`: the host of the proxy `{proxy}` is not a DNS name or IP address")]
    ProxyHost {
        /// The endpoint.
        endpoint: EndpointName,
        /// The proxy.
        proxy: String,
    },
}

/// Error of opening a connection to an endpoint. No part of the request was sent.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Name resolution failed.
    #[error("name resolution of the endpoint failed")]
    Dns(#[source] Box<dyn Error + Send + Sync>),
    /// Name resolution did not finish within `resolve_timeout`.
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
    /// The TLS handshake did not finish within the rest of `connect_timeout`.
    #[error("the TLS handshake with the endpoint did not finish within {}", humantime::format_duration(*.0))]
    TlsTimeout(Duration),
    /// No connection became available to the request in time.
    #[error("no connection to the endpoint became available within {}; the maximum number of connections is already being opened", humantime::format_duration(*.0))]
    Queue(Duration),
    /// The HTTP/2 connection that several requests wait for could not be opened.
    #[error(transparent)]
    Shared(Arc<ConnectError>),
    /// The proxy of the endpoint opened no tunnel.
    #[error("no connection to the endpoint through the proxy {proxy}")]
    Proxy {
        /// The proxy.
        proxy: Arc<EgressProxy>,
        /// Why.
        source: ProxyError,
    },
    /// The endpoint supports HTTP/1.1 only.
    #[error("the endpoint does not offer HTTP/2, which is configured for it (`http_version`)")]
    NoHttp2,
    /// The HTTP/2 handshake failed.
    #[error("the HTTP/2 handshake with the endpoint failed")]
    Http(#[source] hyper::Error),
}

impl ConnectError {
    /// Returns the metric label of the error.
    pub fn reason(&self) -> UpstreamErrorReason {
        match self {
            Self::Dns(_) | Self::DnsTimeout(_) => UpstreamErrorReason::Dns,
            Self::Tcp(_) => UpstreamErrorReason::Connect,
            Self::Tls(_) => UpstreamErrorReason::Tls,
            Self::Timeout(_) | Self::TlsTimeout(_) | Self::Queue(_) => UpstreamErrorReason::ConnectTimeout,
            Self::Shared(err) => err.reason(),
            Self::Proxy { .. } => UpstreamErrorReason::Proxy,
            Self::NoHttp2 | Self::Http(_) => UpstreamErrorReason::Protocol,
        }
    }
}

/// `EMFILE` and `ENFILE`: the process or the host has no free file descriptor. Their numbers are the same on all Unix systems.
const OUT_OF_DESCRIPTORS: [i32; 2] = [24, 23];

impl ConnectError {
    /// Returns whether the gateway's host has run out of a resource, such as file descriptors. Such an error is no failure of the
    /// endpoint.
    pub fn is_local_shortage(&self) -> bool {
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
    fn local_shortage_of_descriptors_is_distinguished_from_endpoint_failures() {
        for (code, is_shortage) in [(24, true), (23, true), (12, true), (111, false), (110, false)] {
            let err = || io::Error::from_raw_os_error(code);
            for failed in [ConnectError::Tcp(err()), ConnectError::Dns(err().into()), ConnectError::Tls(err())] {
                assert_eq!(failed.is_local_shortage(), is_shortage, "{failed:?}");
            }
        }
        assert!(!ConnectError::Timeout(Duration::ZERO).is_local_shortage());
    }
}

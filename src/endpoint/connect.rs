//! Opens connections to one endpoint: name resolution each time (so DNS changes are followed), TCP with the addresses side
//! by side, TLS. Nothing is sent on them.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::lookup::Lookup;
use super::race;
use super::socket::Socket;
use super::{EndpointError, EndpointSettings, HttpVersion};
use crate::descriptors;
use crate::metrics::UpstreamErrorReason;
use crate::tls::{self, Trust};

/// ALPN's name of HTTP/2.
const HTTP2: &[u8] = b"h2";

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
    /// Other requests waited for connections as well, and none became free.
    #[error("no connection to the endpoint became free within {}, and as many as may be are being opened", humantime::format_duration(*.0))]
    Queue(Duration),
    /// The connection that several requests waited for could not be opened.
    #[error(transparent)]
    Shared(Arc<ConnectError>),
    /// It speaks HTTP/1.1 alone.
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

/// `EMFILE` and `ENFILE`: no descriptor is left to the process, or to the host. The same on all Unix systems.
const OUT_OF_DESCRIPTORS: [i32; 2] = [24, 23];

impl ConnectError {
    /// Whether this host is short of what a connection needs, such as file descriptors. That says nothing of the endpoint.
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

/// Tells a server that refuses to speak HTTP/2 from other failures of TLS.
fn refused(err: io::Error) -> ConnectError {
    let alert = err.get_ref().and_then(|err| err.downcast_ref::<rustls::Error>());
    match alert {
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => ConnectError::NoHttp2,
        _ => ConnectError::Tls(err),
    }
}

/// Opens connections to one endpoint.
pub(super) struct Connector {
    lookup: Lookup,
    uri: Uri,
    tls: Option<Tls>,
    timeout: Duration,
}

struct Tls {
    http1: TlsConnector,
    http2: TlsConnector,
    name: ServerName<'static>,
}

impl Connector {
    pub(super) fn build(
        settings: &EndpointSettings,
        uri: Uri,
        unusable_host: impl FnOnce() -> EndpointError,
    ) -> Result<Self, EndpointError> {
        let tls = if settings.origin.tls {
            let mut config = tls::client_config(&Trust::of(settings.ca_file.as_deref()))
                .map_err(|source| EndpointError::Trust { endpoint: settings.name.clone(), source })?;
            config.alpn_protocols = vec![b"http/1.1".to_vec()];
            let http1 = TlsConnector::from(Arc::new(config.clone()));
            config.alpn_protocols = vec![HTTP2.to_vec()];
            let http2 = TlsConnector::from(Arc::new(config));
            let name = ServerName::try_from(settings.origin.host.clone()).map_err(|_invalid| unusable_host())?;
            Some(Tls { http1, http2, name })
        } else {
            None
        };
        let lookup = Lookup::new(&settings.origin.host, settings.origin.port);
        Ok(Self { lookup, uri, tls, timeout: settings.connect_timeout })
    }

    /// Returns where it connects to: scheme, host and port.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Opens a connection, to speak `version` on it. Name resolution may take the configured time, and TCP and TLS together
    /// as much again. `wrap` is put between TCP and what is above.
    ///
    /// # Cancel safety
    /// Safe: what was begun is closed.
    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        version: HttpVersion,
        wrap: impl FnOnce(TcpStream) -> S,
    ) -> Result<Socket<S>, ConnectError> {
        let found = self.lookup.find(self.timeout).await?;
        let deadline = Instant::now() + self.timeout;
        let tcp = match tokio::time::timeout_at(deadline, race::connect(found)).await {
            Ok(connected) => wrap(connected.and_then(descriptors::outside_reserve).map_err(ConnectError::Tcp)?),
            Err(_late) => return Err(ConnectError::Timeout(self.timeout)),
        };
        let Some(tls) = &self.tls else { return Ok(Socket::Left(tcp)) };
        let secured = tokio::time::timeout_at(deadline, tls.secure(version, tcp)).await;
        secured.unwrap_or(Err(ConnectError::TlsTimeout(self.timeout))).map(|secured| Socket::Right(Box::new(secured)))
    }
}

impl Tls {
    async fn secure<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        version: HttpVersion,
        tcp: S,
    ) -> Result<TlsStream<S>, ConnectError> {
        let connector = match version {
            HttpVersion::Http1 => &self.http1,
            HttpVersion::Http2 => &self.http2,
        };
        let secured = connector.connect(self.name.clone(), tcp).await.map_err(refused)?;
        // A server that knows no ALPN goes on without a word.
        if version == HttpVersion::Http2 && secured.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(ConnectError::NoHttp2);
        }
        Ok(secured)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shortage_of_descriptors_here_is_told_from_an_endpoint_that_does_not_answer() {
        for (code, is_shortage) in [(24, true), (23, true), (12, true), (111, false), (110, false)] {
            let err = || io::Error::from_raw_os_error(code);
            for found in [ConnectError::Tcp(err()), ConnectError::Dns(err().into()), ConnectError::Tls(err())] {
                assert_eq!(found.is_shortage_here(), is_shortage, "{found:?}");
            }
        }
        assert!(!ConnectError::Timeout(Duration::ZERO).is_shortage_here());
    }
}

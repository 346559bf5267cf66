//! Opens connections to one endpoint. It resolves the host name each time, so DNS changes take effect, then connects TCP and
//! TLS.

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

use super::error::{ConnectError, EndpointError};
use super::lookup::Lookup;
use super::race;
use super::settings::{EndpointSettings, HttpVersion};
use super::socket::Socket;
use crate::descriptors;
use crate::tls::{self, Trust};

/// The ALPN protocol name of HTTP/2.
const HTTP2: &[u8] = b"h2";

/// Converts the error of a TLS handshake. The alert `no_application_protocol` states that the server does not offer HTTP/2.
fn handshake_error(err: io::Error) -> ConnectError {
    let alert = err.get_ref().and_then(|err| err.downcast_ref::<rustls::Error>());
    match alert {
        Some(rustls::Error::AlertReceived(rustls::AlertDescription::NoApplicationProtocol)) => ConnectError::NoHttp2,
        _ => ConnectError::Tls(err),
    }
}

/// The parts that connections to one endpoint are opened with.
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
            let mut config = tls::client_config(&Trust::from_ca_file(settings.ca_file.as_deref()))
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

    /// Returns the endpoint's scheme, host and port.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Opens a connection for `version`. The configured timeout applies to name resolution, and again to TCP and TLS together.
    /// `wrap` wraps the TCP stream.
    ///
    /// # Cancel safety
    /// Safe: cancellation closes the connection that is being opened.
    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        version: HttpVersion,
        wrap: impl FnOnce(TcpStream) -> S,
    ) -> Result<Socket<S>, ConnectError> {
        let resolved = self.lookup.resolve(self.timeout).await?;
        let deadline = Instant::now() + self.timeout;
        let tcp = match tokio::time::timeout_at(deadline, race::connect(resolved)).await {
            Ok(connected) => wrap(connected.and_then(descriptors::ensure_outside_reserve).map_err(ConnectError::Tcp)?),
            Err(_late) => return Err(ConnectError::Timeout(self.timeout)),
        };
        let Some(tls) = &self.tls else { return Ok(Socket::Left(tcp)) };
        let secured = tokio::time::timeout_at(deadline, tls.handshake(version, tcp)).await;
        secured.unwrap_or(Err(ConnectError::TlsTimeout(self.timeout))).map(|secured| Socket::Right(Box::new(secured)))
    }
}

impl Tls {
    async fn handshake<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        version: HttpVersion,
        tcp: S,
    ) -> Result<TlsStream<S>, ConnectError> {
        let connector = match version {
            HttpVersion::Http1 => &self.http1,
            HttpVersion::Http2 => &self.http2,
        };
        let secured = connector.connect(self.name.clone(), tcp).await.map_err(handshake_error)?;
        // A server without ALPN support ignores the requested protocol.
        if version == HttpVersion::Http2 && secured.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(ConnectError::NoHttp2);
        }
        Ok(secured)
    }
}

//! Opens connections to one endpoint: resolves the name each time, so that DNS changes take effect, then connects TCP and TLS.
//! Sends no request.

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

/// ALPN's name of HTTP/2.
const HTTP2: &[u8] = b"h2";

/// Distinguishes a server that refuses HTTP/2 from other TLS failures.
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

    /// Opens a connection for `version`. Name resolution may take the configured time, and TCP and TLS together the same time
    /// again. `wrap` wraps the TCP stream.
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
            Ok(connected) => wrap(connected.and_then(descriptors::ensure_outside_reserve).map_err(ConnectError::Tcp)?),
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
        // A server without ALPN continues the handshake.
        if version == HttpVersion::Http2 && secured.get_ref().1.alpn_protocol() != Some(HTTP2) {
            return Err(ConnectError::NoHttp2);
        }
        Ok(secured)
    }
}

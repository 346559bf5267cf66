//! Opens connections to one endpoint. It resolves the host name each time, so DNS changes take effect, then connects TCP and
//! TLS.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::error::{ConnectError, EndpointError};
use super::lookup::Lookup;
use super::race;
use super::settings::{EndpointSettings, HttpVersion};
use super::socket::Socket;
use super::tls_clients::{TlsClient, TlsClients};
use crate::descriptors;
use crate::tls::Trust;

/// The parts that connections to one endpoint are opened with.
pub(super) struct Connector {
    lookup: Lookup,
    uri: Uri,
    tls: Option<Tls>,
    timeout: Duration,
}

struct Tls {
    client: Arc<TlsClient>,
    name: ServerName<'static>,
}

impl Connector {
    pub(super) fn build(
        settings: &EndpointSettings,
        uri: Uri,
        tls_clients: &mut TlsClients,
        unusable_host: impl FnOnce() -> EndpointError,
    ) -> Result<Self, EndpointError> {
        let tls = if settings.origin.tls {
            let client = tls_clients
                .get(Trust::from_ca_file(settings.ca_file.as_deref()))
                .map_err(|source| EndpointError::Trust { endpoint: settings.name.clone(), source })?;
            let name = ServerName::try_from(settings.origin.host.clone()).map_err(|_invalid| unusable_host())?;
            Some(Tls { client, name })
        } else {
            None
        };
        let lookup = Lookup::new(&settings.origin.host, settings.origin.port);
        Ok(Self { lookup, uri, tls, timeout: settings.connect_timeout })
    }

    /// Returns the TLS client, if connections use TLS.
    pub(super) fn tls_client(&self) -> Option<&Arc<TlsClient>> {
        self.tls.as_ref().map(|tls| &tls.client)
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
        let secured = tokio::time::timeout_at(deadline, tls.client.handshake(version, tls.name.clone(), tcp)).await;
        secured.unwrap_or(Err(ConnectError::TlsTimeout(self.timeout))).map(|secured| Socket::Right(Box::new(secured)))
    }
}

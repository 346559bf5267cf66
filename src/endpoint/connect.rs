//! Opens connections to one endpoint: resolves the host name, then connects TCP and TLS. With a proxy, it connects to that, asks it
//! for a tunnel, and connects TLS through the tunnel.

use std::sync::Arc;
use std::time::Duration;

use http::Uri;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::error::{ConnectError, EndpointError};
use super::lookup::Lookup;
use super::proxied::{Proxies, Proxy};
use super::race;
use super::settings::{EndpointSettings, HttpVersion, Origin};
use super::socket::Socket;
use super::tls_clients::{TlsClient, TlsClients};
use crate::descriptors;
use crate::egress::{Carrier, Target};
use crate::tls::Trust;

/// The parts that connections to one endpoint are opened with.
pub(super) struct Connector {
    path: NetworkPath,
    uri: Uri,
    tls: Option<Tls>,
    resolve_timeout: Duration,
    timeout: Duration,
}

/// How the endpoint is reached.
enum NetworkPath {
    /// By an address of its host.
    Direct(Lookup),
    /// By a tunnel of this proxy, which resolves the name of its destination.
    Proxy(Arc<Proxy>, Target),
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
        proxies: &mut Proxies,
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
        let Origin { host, port, .. } = &settings.origin;
        let path = match &settings.proxy {
            Some(proxy) => {
                NetworkPath::Proxy(proxies.get(proxy, &settings.name, tls_clients)?, Target::new(host, *port))
            }
            None => NetworkPath::Direct(Lookup::new(host, *port)),
        };
        let (resolve_timeout, timeout) = (settings.resolve_timeout, settings.connect_timeout);
        Ok(Self { path, uri, tls, resolve_timeout, timeout })
    }

    /// Returns the TLS clients of connections to the endpoint and to its proxy, as far as they use TLS.
    pub(super) fn tls_clients(&self) -> impl Iterator<Item = &Arc<TlsClient>> {
        let of_proxy = match &self.path {
            NetworkPath::Direct(_) => None,
            NetworkPath::Proxy(proxy, _) => proxy.tls_client(),
        };
        self.tls.as_ref().map(|tls| &tls.client).into_iter().chain(of_proxy)
    }

    /// Returns whether a connection waits for the addresses of the host.
    pub(super) fn is_resolving(&self) -> bool {
        matches!(&self.path, NetworkPath::Direct(lookup) if lookup.is_pending())
    }

    /// Returns the endpoint's scheme, host and port.
    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }

    /// Opens a connection for `version`. `wrap` wraps the TCP stream.
    ///
    /// # Cancel safety
    /// Safe: cancellation closes the connection that is being opened.
    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        version: HttpVersion,
        wrap: impl FnOnce(TcpStream) -> S,
    ) -> Result<Socket<S>, ConnectError> {
        let (carrier, deadline) = match &self.path {
            NetworkPath::Direct(lookup) => self.connect_directly(lookup, wrap).await?,
            NetworkPath::Proxy(proxy, target) => {
                proxy.connect(target, self.resolve_timeout, self.timeout, wrap).await?
            }
        };
        let Some(tls) = &self.tls else { return Ok(Socket::Left(carrier)) };
        let secured = tokio::time::timeout_at(deadline, tls.client.handshake(version, tls.name.clone(), carrier)).await;
        secured.unwrap_or(Err(ConnectError::TlsTimeout(self.timeout))).map(|secured| Socket::Right(Box::new(secured)))
    }

    /// Connects to the endpoint's host. Returns the deadline of what follows as well.
    async fn connect_directly<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        lookup: &Lookup,
        wrap: impl FnOnce(TcpStream) -> S,
    ) -> Result<(Carrier<S>, Instant), ConnectError> {
        let resolved = lookup.resolve(self.resolve_timeout).await?;
        let deadline = Instant::now() + self.timeout;
        match tokio::time::timeout_at(deadline, race::connect(resolved)).await {
            Ok(connected) => {
                let tcp = connected.and_then(descriptors::ensure_outside_reserve).map_err(ConnectError::Tcp)?;
                Ok((Carrier::Left(wrap(tcp)), deadline))
            }
            Err(_late) => Err(ConnectError::Timeout(self.timeout)),
        }
    }
}

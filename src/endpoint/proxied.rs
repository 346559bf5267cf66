//! Opens tunnels through the proxies of endpoints. Endpoints with the same proxy share one, with its pending name lookup and the
//! password that was read last.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::error::{ConnectError, EndpointError};
use super::lookup::Lookup;
use super::race;
use super::settings::EndpointName;
use super::tls_clients::{TlsClient, TlsClients};
use crate::descriptors;
use crate::egress::{Authorization, Carrier, EgressProxy, ProxyError, ProxyLayer, Target, TunnelDeadline, open_over};
use crate::tls::Trust;

/// The proxies of the endpoints of one configuration.
#[derive(Debug, Default)]
pub struct Proxies(HashMap<Arc<EgressProxy>, Arc<Proxy>>);

/// The parts that tunnels through one proxy are opened with.
pub(super) struct Proxy {
    settings: Arc<EgressProxy>,
    lookup: Lookup,
    /// The TLS client and the server name, if connections to the proxy itself use TLS.
    tls: Option<(Arc<TlsClient>, ServerName<'static>)>,
    authorization: Authorization,
}

impl Proxies {
    /// Returns the proxy with these settings.
    pub(super) fn get(
        &mut self,
        settings: &Arc<EgressProxy>,
        endpoint: &EndpointName,
        tls_clients: &mut TlsClients,
    ) -> Result<Arc<Proxy>, EndpointError> {
        if let Some(known) = self.0.get(settings) {
            return Ok(Arc::clone(known));
        }
        let proxy = Arc::new(Proxy::build(settings, endpoint, tls_clients)?);
        self.0.insert(Arc::clone(settings), Arc::clone(&proxy));
        Ok(proxy)
    }
}

impl Proxy {
    fn build(
        settings: &Arc<EgressProxy>,
        endpoint: &EndpointName,
        tls_clients: &mut TlsClients,
    ) -> Result<Self, EndpointError> {
        let tls = if settings.tls {
            let client = tls_clients
                .get(Trust::from_ca_file(settings.ca_file.as_deref()))
                .map_err(|source| EndpointError::Trust { endpoint: endpoint.clone(), source })?;
            let name = ServerName::try_from(settings.host.clone()).map_err(|_invalid| EndpointError::ProxyHost {
                endpoint: endpoint.clone(),
                proxy: settings.to_string(),
            })?;
            Some((client, name))
        } else {
            None
        };
        Ok(Self {
            settings: Arc::clone(settings),
            lookup: Lookup::new(&settings.host, settings.port),
            tls,
            authorization: Authorization::new(settings),
        })
    }

    /// Returns the TLS client of connections to the proxy itself, if they use TLS.
    pub(super) fn tls_client(&self) -> Option<&Arc<TlsClient>> {
        self.tls.as_ref().map(|(client, _)| client)
    }

    /// Opens a tunnel to `target`. `resolve_timeout` applies to name resolution, `timeout` to the rest: TCP, TLS with the proxy, its
    /// answer and, by the returned deadline, what follows. `wrap` wraps the TCP stream.
    ///
    /// # Cancel safety
    /// Safe: cancellation closes the connection.
    pub(super) async fn connect<S: AsyncRead + AsyncWrite + Unpin>(
        &self,
        target: &Target,
        resolve_timeout: Duration,
        timeout: Duration,
        wrap: impl FnOnce(TcpStream) -> S,
    ) -> Result<(Carrier<S>, Instant), ConnectError> {
        let failed = |source| ConnectError::Proxy { proxy: Arc::clone(&self.settings), source };
        let resolved = self.lookup.resolve(resolve_timeout).await;
        let resolved = resolved.map_err(|err| failed(resolution_error(err, resolve_timeout)))?;
        let deadline = Instant::now() + timeout;
        let tcp = match timeout_at(deadline, race::connect(resolved)).await {
            Ok(connected) => connected.and_then(descriptors::ensure_outside_reserve),
            Err(_elapsed) => {
                return Err(failed(ProxyError::Timeout { layer: ProxyLayer::Connection, within: timeout }));
            }
        };
        let tcp = wrap(tcp.map_err(|err| failed(ProxyError::Tcp(err)))?);
        let tls = self.tls.as_ref().map(|(client, name)| (client.http1(), name));
        let until = TunnelDeadline { at: deadline, within: timeout };
        let carrier = open_over(tcp, tls, &self.authorization, target, until).await.map_err(failed)?;
        Ok((carrier, deadline))
    }
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Proxy").field(&self.settings).finish()
    }
}

/// Converts the error of resolving the name of a proxy.
fn resolution_error(err: ConnectError, timeout: Duration) -> ProxyError {
    if let ConnectError::Dns(source) = err {
        return ProxyError::Dns(source);
    }
    ProxyError::Timeout { layer: ProxyLayer::Name, within: timeout }
}

//! The part of an endpoint that all workers share.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Full;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::connect::Connector;
use super::error::{ConnectError, EndpointError};
use super::health::Health;
use super::proxied::Proxies;
use super::settings::{EndpointName, EndpointSettings, HttpVersion};
use super::tls_clients::TlsClients;
use super::unpooled::{self, UnpooledError};
use crate::credential::BearerSource;
use crate::metrics::Label;

/// An endpoint: its origin, its bearer source and its health. No other type combines origin and bearer source, so no bearer is
/// sent to another host.
pub struct Endpoint {
    name: EndpointName,
    origin: String,
    host: HeaderValue,
    connector: Connector,
    bearer: Arc<dyn BearerSource>,
    health: Arc<Health>,
    label: Label,
    settings: Arc<EndpointSettings>,
    /// Whether the configuration in force no longer has it.
    is_retired: AtomicBool,
}

impl Endpoint {
    /// Builds an endpoint whose metrics have this label. It reads the CA file, unless `tls_clients` has a client that trusts it,
    /// and does no network I/O.
    ///
    /// # Errors
    /// [`EndpointError`] if its host or its CA file is not usable.
    pub fn build(
        settings: &Arc<EndpointSettings>,
        bearer: Arc<dyn BearerSource>,
        label: Label,
        tls_clients: &mut TlsClients,
        proxies: &mut Proxies,
    ) -> Result<Self, EndpointError> {
        let unusable_host = || EndpointError::Host { endpoint: settings.name.clone(), origin: settings.origin.clone() };
        let host = HeaderValue::try_from(settings.origin.authority()).map_err(|_invalid| unusable_host())?;
        let origin = settings.origin.to_string();
        let uri = Uri::try_from(&origin).map_err(|_invalid| unusable_host())?;
        let connector = Connector::build(settings, uri, tls_clients, proxies, unusable_host)?;
        let health = Health::new(settings);
        Ok(Self {
            name: settings.name.clone(),
            origin,
            host,
            connector,
            bearer,
            health,
            label,
            settings: Arc::clone(settings),
            is_retired: AtomicBool::new(false),
        })
    }

    /// Offers its TLS clients to the endpoints of the next configuration.
    pub fn share_tls_clients(&self, tls_clients: &mut TlsClients) {
        self.connector.tls_clients().for_each(|client| tls_clients.add_previous(client));
    }

    /// Returns whether it trusts the CAs that its CA file and that of its proxy have now. Reads the files, unless `tls_clients` has
    /// read them.
    pub fn has_current_cas(&self, tls_clients: &mut TlsClients) -> bool {
        self.connector.tls_clients().all(|client| tls_clients.is_current(client))
    }

    /// Returns the configured name.
    pub fn name(&self) -> &EndpointName {
        &self.name
    }

    /// Returns `scheme://host[:port]`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Marks the endpoint as one that the configuration in force no longer has. Workers then drop their connections to it.
    pub fn retire(&self) {
        self.is_retired.store(true, Ordering::Relaxed);
    }

    /// Returns whether the configuration in force no longer has the endpoint.
    pub fn is_retired(&self) -> bool {
        self.is_retired.load(Ordering::Relaxed)
    }

    /// Returns the connector, which opens connections to the endpoint.
    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Returns whether connections wait for the addresses of its host.
    pub fn is_resolving(&self) -> bool {
        self.connector.is_resolving()
    }

    /// Returns the value of the `Host` header, by which the service distinguishes its resources.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Returns the source of bearers for requests to this endpoint.
    pub fn bearer(&self) -> &Arc<dyn BearerSource> {
        &self.bearer
    }

    /// Sends a request on a new connection, in the configured HTTP version, and reads the whole response. Adds the `Host` header.
    ///
    /// # Errors
    /// [`UnpooledError`] if there is no connection within the endpoint's own timeouts, or no complete response over it `within`
    /// this time.
    ///
    /// # Cancel safety
    /// Safe: cancellation closes the connection.
    pub async fn send_unpooled(
        &self,
        request: Request<Full<Bytes>>,
        within: Duration,
    ) -> Result<Response<Bytes>, UnpooledError> {
        self.send_unpooled_timed(request, within).await.map(|(response, _)| response)
    }

    /// Sends a request as [`Endpoint::send_unpooled`] does. Returns as well when it was handed to the open connection.
    ///
    /// # Errors
    /// As [`Endpoint::send_unpooled`].
    ///
    /// # Cancel safety
    /// Safe: cancellation closes the connection.
    pub async fn send_unpooled_timed(
        &self,
        request: Request<Full<Bytes>>,
        within: Duration,
    ) -> Result<(Response<Bytes>, Instant), UnpooledError> {
        unpooled::send(&self.connector, &self.host, self.settings.http_version, request, within).await
    }

    /// Opens a connection for HTTP/1.1 outside the pools, through the proxy if there is one.
    ///
    /// # Errors
    /// [`ConnectError`] if it cannot be opened within the timeouts of the endpoint.
    ///
    /// # Cancel safety
    /// Safe: cancellation closes the connection that is being opened.
    pub async fn connect_unpooled(&self) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + use<>, ConnectError> {
        self.connector.connect(HttpVersion::Http1, |stream| stream).await
    }

    /// Returns the health of the endpoint.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Returns the label of its metrics, which endpoints may share.
    pub fn label(&self) -> &Label {
        &self.label
    }

    /// Returns the settings of the endpoint. Its limits may have changed since: they are those of the configuration in force.
    pub fn settings(&self) -> &EndpointSettings {
        &self.settings
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).field("origin", &self.origin).finish_non_exhaustive()
    }
}

//! A running endpoint: what all workers share of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri};
use http_body_util::Empty;

use super::connect::Connector;
use super::error::EndpointError;
use super::health::Health;
use super::settings::{EndpointName, EndpointSettings};
use super::unpooled::{self, UnpooledError};
use crate::credential::BearerSource;
use crate::metrics::EndpointMetrics;

/// A running endpoint: its origin and its bearer source. Only here are the two combined, so no bearer can go to another host.
pub struct Endpoint {
    name: EndpointName,
    origin: String,
    host: HeaderValue,
    connector: Connector,
    bearer: Arc<dyn BearerSource>,
    health: Arc<Health>,
    settings: EndpointSettings,
}

impl Endpoint {
    /// Builds an endpoint. Reads its CA file; does no network I/O.
    ///
    /// # Errors
    /// [`EndpointError`] when connections to it can never succeed.
    pub fn build(
        settings: &EndpointSettings,
        bearer: Arc<dyn BearerSource>,
        metrics: &EndpointMetrics,
    ) -> Result<Self, EndpointError> {
        let unusable_host = || EndpointError::Host { endpoint: settings.name.clone(), origin: settings.origin.clone() };
        let host = HeaderValue::try_from(settings.origin.authority()).map_err(|_invalid| unusable_host())?;
        let origin = settings.origin.to_string();
        let uri = Uri::try_from(&origin).map_err(|_invalid| unusable_host())?;
        let connector = Connector::build(settings, uri, unusable_host)?;
        let health = Health::new(settings.name.as_str(), settings.health, metrics.clone());
        Ok(Self { name: settings.name.clone(), origin, host, connector, bearer, health, settings: settings.clone() })
    }

    /// Returns the configured name.
    pub fn name(&self) -> &EndpointName {
        &self.name
    }

    /// Returns `scheme://host[:port]`.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns its connector.
    pub(super) fn connector(&self) -> &Connector {
        &self.connector
    }

    /// Returns the value of `Host`, by which the service distinguishes its resources.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Returns the source of bearers for requests to this endpoint.
    pub fn bearer(&self) -> &Arc<dyn BearerSource> {
        &self.bearer
    }

    /// Sends a request without a body on a new connection, in the HTTP version that is configured for the endpoint, and reads
    /// the whole response. Sets the host.
    ///
    /// # Errors
    /// [`UnpooledError`] when no whole response came within the time.
    ///
    /// # Cancel safety
    /// Safe: the connection is closed.
    pub async fn send_unpooled(
        &self,
        request: Request<Empty<Bytes>>,
        within: Duration,
    ) -> Result<Response<Bytes>, UnpooledError> {
        unpooled::send(&self.connector, &self.host, self.settings.http_version, request, within).await
    }

    /// Returns its health.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Returns its settings.
    pub fn settings(&self) -> &EndpointSettings {
        &self.settings
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).field("origin", &self.origin).finish_non_exhaustive()
    }
}

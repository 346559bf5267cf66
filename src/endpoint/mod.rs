//! One running upstream: its origin, its connections, the bearer source that is bound to it.
//!
//! An [`Endpoint`] is shared by all workers and never changes; each worker has a [`Pool`] of its own for it. Knows no
//! operations and no routes.

mod abandoned;
mod ask;
mod connect;
mod health;
mod http1;
mod http2;
mod lease;
mod lookup;
mod pool;
mod probe;
mod race;
mod settings;
mod socket;
mod spare;

use std::fmt;
use std::sync::Arc;

use http::{HeaderValue, Uri};

pub use ask::AskError;
pub use connect::ConnectError;
pub use health::{CallClass, FailureRatio, Health, HealthSettings, Permit};
#[cfg(any(test, fuzzing))]
pub(crate) use http1::fuzzing;
pub use http1::{Broken, EachLine, RequestHead};
pub use lease::{BrokenOff, Download, Lease, Processing, SendError, Sending, UploadBody};
pub use pool::Pool;
pub use probe::Probes;
pub use settings::{EndpointName, EndpointRole, EndpointSettings, HttpVersion, Origin, PoolSettings};
pub use spare::SpareMemory;

use crate::credential::BearerSource;
use crate::metrics::EndpointMetrics;
use crate::tls::TrustError;
use connect::Connector;

/// A running endpoint: where it is and as whom it is called. The one holder of both, so that no bearer can go to
/// another host.
pub struct Endpoint {
    name: EndpointName,
    origin: String,
    host: HeaderValue,
    connector: Connector,
    bearer: Arc<dyn BearerSource>,
    health: Arc<Health>,
    settings: EndpointSettings,
}

/// Why an endpoint could not be built.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    /// Its certificate could not be checked against anything.
    #[error("endpoint `{endpoint}`: connections to it cannot be secured")]
    Trust {
        /// The endpoint.
        endpoint: EndpointName,
        /// The reason.
        source: TrustError,
    },
    /// Its host is not one that can be put into a request or a TLS handshake.
    #[error("endpoint `{endpoint}`: `{origin}` cannot be connected to: the host is not a DNS name or IP address")]
    Host {
        /// The endpoint.
        endpoint: EndpointName,
        /// Its origin.
        origin: Origin,
    },
}

impl Endpoint {
    /// Builds an endpoint. Reads its CA file; does no network I/O.
    ///
    /// # Errors
    /// [`EndpointError`] when connections to it could never be made.
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

    /// Returns where it is: scheme, host and port.
    fn uri(&self) -> &Uri {
        self.connector.uri()
    }

    /// Returns the value of `Host`. The service tells its resources apart by it.
    pub fn host(&self) -> &HeaderValue {
        &self.host
    }

    /// Returns the source of the bearers that requests to this endpoint carry.
    pub fn bearer(&self) -> &Arc<dyn BearerSource> {
        &self.bearer
    }

    /// Returns its health.
    pub fn health(&self) -> &Arc<Health> {
        &self.health
    }

    /// Returns what it was built from.
    pub fn settings(&self) -> &EndpointSettings {
        &self.settings
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint").field("name", &self.name).field("origin", &self.origin).finish_non_exhaustive()
    }
}

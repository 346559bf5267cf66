//! Endpoints: their origin, connections, health and bearer source.
//!
//! All workers share an [`Endpoint`], which is immutable. Each worker has its own [`Pool`] of connections to it. A worker creates it when it
//! first uses the endpoint, and [`WorkerPools`] is what all its pools share. This module depends on neither operations nor routes.

mod abandoned;
mod connect;
mod error;
mod failure;
mod health;
mod http1;
mod http2;
mod idle;
mod idle_limit;
mod idle_order;
mod lease;
mod lookup;
mod pool;
mod probe;
mod proxied;
mod race;
mod recycler;
mod running;
mod send_error;
mod settings;
mod socket;
mod store;
#[cfg(test)]
pub(crate) mod tests;
mod tls_clients;
mod transport_failure;
mod unpooled;
mod waiting;
mod worker_pools;

pub use error::{ConnectError, EndpointError};
pub use failure::{EndpointFailure, ErrorResponse, FailureCause, FailureKind, GatewayAnswer, is_from_front_end};
pub use health::{CallClass, EndpointHistory, FailureRatio, Health, HealthSettings, History, Permit, ProbeRecord};
#[cfg(any(test, fuzzing))]
pub(crate) use http1::fuzzing;
pub use http1::{HeaderVisitor, Http1Error, RequestHead, UploadBody};
pub use idle_limit::IdleLimit;
pub use lease::{Download, Lease, Sending};
pub use lookup::localhost_addresses;
pub use pool::Pool;
pub use probe::Probes;
pub use proxied::Proxies;
pub use running::Endpoint;
pub use send_error::{Processing, SendError, TransportError};
pub use settings::{
    CanarySettings, DisabledEndpoint, EndpointName, EndpointRole, EndpointSettings, HttpVersion, Origin, PoolSettings,
};
pub use tls_clients::TlsClients;
pub use transport_failure::transport_failure;
pub use unpooled::UnpooledError;
pub use worker_pools::WorkerPools;

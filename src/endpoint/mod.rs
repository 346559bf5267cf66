//! Running endpoints: origin, connections, health, and the bearer source that belongs to each.
//!
//! An [`Endpoint`] is shared by all workers and never changes; each worker has its own [`Pool`] for it. Knows no operations and
//! no routes.

mod abandoned;
mod connect;
mod error;
mod health;
mod http1;
mod http2;
mod lease;
mod lookup;
mod pool;
mod probe;
mod race;
mod recycler;
mod running;
mod send_error;
mod settings;
mod socket;
mod store;
mod unpooled;
mod waiting;

pub use error::{ConnectError, EndpointError};
pub use health::{CallClass, FailureRatio, Health, HealthSettings, Permit};
#[cfg(any(test, fuzzing))]
pub(crate) use http1::fuzzing;
pub use http1::{HeaderVisitor, Http1Error, RequestHead, UploadBody};
pub use lease::{Download, Lease, Sending};
pub use pool::Pool;
pub use probe::Probes;
pub use recycler::Recycler;
pub use running::Endpoint;
pub use send_error::{Processing, SendError, TransportError};
pub use settings::{EndpointName, EndpointRole, EndpointSettings, HttpVersion, Origin, PoolSettings};
pub use unpooled::UnpooledError;

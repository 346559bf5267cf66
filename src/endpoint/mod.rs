//! One running upstream: its origin, its connections, the bearer source that is bound to it.

mod settings;

pub use settings::{EndpointName, EndpointRole, EndpointSettings, Origin, PoolSettings};

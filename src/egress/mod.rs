//! Connections that leave through a forward proxy: which connections do, and how a proxy is asked for a tunnel.
//!
//! A proxy opens a tunnel to a host and port (HTTP `CONNECT`). TLS with the server runs inside the tunnel, so the proxy sees
//! neither tokens nor calls. Identity endpoints of the host (instance metadata, App Service, metadata servers) and `http://` URLs,
//! which only loopback addresses may have, never go through a proxy.
//!
//! `endpoint` and `credential` open the connections; this module knows neither.

mod acceptance;
mod authorization;
mod carrier;
mod error;
mod no_proxy;
mod settings;
mod tunnel;
mod url;

pub use authorization::{Authorization, inspect_password};
pub use carrier::{Carrier, TunnelDeadline, open_over};
pub use error::{ProxyError, ProxyLayer, Refusal, RefusalKind, TunnelError};
pub use no_proxy::{InvalidException, NoProxy};
pub use settings::{Egress, EgressProxy, ProxyCredentials};
pub use tunnel::Target;
pub use url::{InvalidProxyUrl, ProxyUrl};

//! The settings of the proxy. No serde, no I/O.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::delivery::DeliverySettings;
use crate::limits::ClientRateSettings;
use crate::route::Constraint;
use crate::serve::TrustedProxies;
use crate::signalr::OperationSet;

/// Which requests one listener accepts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// The listener's configured name.
    pub listener: String,
    /// Allowed values of `Host`, in lower case, without port; `*.example.com` matches every name below. IP addresses
    /// and `localhost` are always allowed: DNS rebinding cannot produce them.
    pub allowed_hosts: Vec<String>,
    /// The allowed operations.
    pub operations: OperationSet,
    /// The networks of allowed callers. Callers on a Unix socket are always allowed.
    pub clients: Constraint<IpNet>,
    /// The proxies whose reports of the caller's address count; none if `None`.
    pub trusted_proxies: Option<Arc<TrustedProxies>>,
    /// A header that every call must carry.
    pub required_header: Option<(HeaderName, HeaderValue)>,
    /// The maximum number of calls in progress; no limit if `None`.
    pub max_requests: Option<usize>,
    /// The rate of each network of callers; no limit if `None`.
    pub client_rate: Option<ClientRateSettings>,
}

/// Limits, deadlines and logging, the same for all listeners.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxySettings {
    /// The largest request body, in bytes. The service's own limit is 1 MiB.
    pub max_body_bytes: u64,
    /// The memory for request bodies that are kept so that they can be sent again, in bytes. The first 16 KiB of each
    /// are not counted.
    pub body_memory: u64,
    /// How long a request may take until the head of its response. The response's body may take as long again.
    pub request_timeout: Duration,
    /// How calls are delivered.
    pub delivery: DeliverySettings,
    /// Whether the caller's address is appended to `X-Forwarded-For` upstream.
    pub forward_client_address: bool,
    /// Which requests the access log contains.
    pub access_log: AccessLog,
}

/// Which requests the access log contains.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Failed requests, and a share of the others.
    Sampled {
        /// The share of the others, in percent.
        percent: u8,
    },
    /// Failed requests only: status 400 and above, or a response that ended early. A 404 by which the service says that a target
    /// does not exist is none.
    Failures,
    /// None.
    Off,
}

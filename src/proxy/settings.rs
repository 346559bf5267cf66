//! What the pipeline is built from, decided. No serde, no I/O.

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use ipnet::IpNet;

use crate::delivery::DeliverySettings;
use crate::limits::ClientRateSettings;
use crate::route::Constraint;
use crate::signalr::OperationSet;

/// Who and what may pass one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdmissionSettings {
    /// The listener's configured name.
    pub listener: String,
    /// Host names that `Host` may carry, in lower case, without port; `*.example.com` stands for any name below. IP
    /// addresses and `localhost` always pass: a page that rebinds a name cannot show those.
    pub allowed_hosts: Vec<String>,
    /// The operations callers may use.
    pub operations: OperationSet,
    /// Networks callers may come from; any if empty. Callers on a Unix socket always pass.
    pub clients: Constraint<IpNet>,
    /// A header every call must carry.
    pub required_header: Option<(HeaderName, HeaderValue)>,
    /// The most calls that may be in work at once; no limit if `None`.
    pub max_requests: Option<usize>,
    /// How many calls may come from each network of callers; no limit if `None`.
    pub client_rate: Option<ClientRateSettings>,
}

/// Limits, deadlines and header rules of the pipeline, the same for all listeners.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxySettings {
    /// The largest request body, in bytes. The service's own limit is 1 MiB.
    pub max_body_bytes: u64,
    /// The memory that request bodies may take together while they are kept for sending them again, in bytes. The first 16 KiB
    /// of each are not counted.
    pub body_memory: u64,
    /// How long a request may take in all, until the answer's head; an answer's body gets the same time again.
    pub request_timeout: Duration,
    /// How calls are delivered.
    pub delivery: DeliverySettings,
    /// Whether the caller's address is appended to `X-Forwarded-For` upstream.
    pub forward_client_address: bool,
    /// What the access log holds.
    pub access_log: AccessLog,
}

/// Which requests get a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AccessLog {
    /// Requests that failed, and so many percent of the others.
    Sampled {
        /// 100 for each request.
        percent: u8,
    },
    /// Requests answered 400 and above, and those that broke off.
    Failures,
    /// None.
    Off,
}

//! The settings of the export of traces. No serde, no I/O. They name secrets, which are read when they are used.

use std::path::PathBuf;
use std::sync::Arc;

use http::{HeaderName, Uri};

use crate::egress::Egress;
use crate::files::SecretSource;

/// The default name of the service that spans belong to.
pub const SERVICE_NAME: &str = "signalr-gateway";

/// Where traces are exported to, and which.
#[derive(Clone, Debug, PartialEq)]
pub struct OtlpSettings {
    /// The URL that spans are posted to.
    pub url: Uri,
    /// The CAs that the collector's certificate is verified against; the system's if `None`.
    pub ca_file: Option<PathBuf>,
    /// The proxy of connections to an `https` collector.
    pub egress: Arc<Egress>,
    /// The headers of each export, whose values may be secrets.
    pub headers: Vec<(HeaderName, SecretSource)>,
    /// The name of the service that spans belong to.
    pub service_name: String,
    /// The share of the calls without a parent that is recorded, from 0 to 1.
    pub sample: f64,
}

//! The settings that a gateway is built from: those of every part, and those of its logs.

use aws_lc_rs::digest;

use crate::admin::AdminSettings;
use crate::credential::CredentialSettings;
use crate::endpoint::EndpointSettings;
use crate::proxy::{AdmissionSettings, ProxySettings};
use crate::route::RouteSettings;
use crate::serve::{ListenerSettings, ServeSettings};

/// The settings of a whole gateway. Every value is decided; none is optional because it was not written.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// The listeners, and what each admits. Never empty.
    pub listeners: Vec<(ListenerSettings, AdmissionSettings)>,
    /// The admin listener; `None` turns it off.
    pub admin: Option<AdminSettings>,
    /// The credentials that endpoints use.
    pub credentials: Vec<CredentialSettings>,
    /// The endpoints. Never empty.
    pub endpoints: Vec<EndpointSettings>,
    /// The routes, in the order in which they are tried.
    pub routes: Vec<RouteSettings>,
    /// The limits and deadlines of requests.
    pub proxy: ProxySettings,
    /// Workers, connection limits, drain.
    pub serve: ServeSettings,
    /// The logs.
    pub logging: LoggingSettings,
    /// Eight hex digits that change when the effective settings do.
    pub hash: String,
}

impl Settings {
    /// Returns the settings of the listeners, in configured order.
    pub fn listener_settings(&self) -> Vec<ListenerSettings> {
        self.listeners.iter().map(|(listener, _)| listener.clone()).collect()
    }
}

/// Returns the first eight hex digits of a text's SHA-256.
pub fn short_hash(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let first = digest.as_ref().iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    format!("{first:08x}")
}

/// The logs, which go to stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggingSettings {
    /// A `tracing` filter, such as `info` or `signalr_gateway=debug`.
    pub filter: String,
    /// The format of a line.
    pub format: LogFormat,
    /// The most lines a second of each kind that callers cause, such as failed requests; 0 for no limit.
    pub failures_per_second: u32,
}

/// The format of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}

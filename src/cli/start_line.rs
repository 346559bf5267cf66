//! The lines of the log with which a gateway starts and stops.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::descriptors;
use crate::gateway::{Addresses, Settings};
use crate::metrics::{LostLine, Responses};

/// The maximum number of endpoints that are named. Chosen: more are not read.
const MAX_NAMED: usize = 20;

/// What a gateway starts with.
pub(super) struct Summary {
    file: Option<String>,
    hash: String,
    endpoints: String,
    disabled: usize,
    credentials: usize,
    routes: usize,
    workers: usize,
    max_connections: usize,
    max_body: u64,
    request_timeout: Duration,
}

impl Summary {
    pub(super) fn of(settings: &Settings, file: Option<&Path>) -> Self {
        let names: Vec<&str> =
            settings.endpoints.iter().take(MAX_NAMED).map(|endpoint| endpoint.name.as_str()).collect();
        let more = settings.endpoints.len() - names.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        Self {
            file: file.map(|file| file.display().to_string()),
            hash: settings.hash.clone(),
            endpoints: format!("{}{more}", names.join(", ")),
            disabled: settings.disabled.len(),
            credentials: settings.credentials.len(),
            routes: settings.routes.len(),
            workers: settings.serve.workers,
            max_connections: settings.serve.max_connections,
            max_body: settings.proxy.max_body_bytes,
            request_timeout: settings.proxy.request_timeout,
        }
    }

    /// Logs that the gateway serves, once the limits of the process are in force.
    pub(super) fn log(&self, addresses: &Addresses) {
        let listeners = addresses.listeners.iter().map(|(name, address)| format!("{name} at {address}"));
        let allowed = descriptors::max_caller_connections();
        tracing::info!(
            version = env!("CARGO_PKG_VERSION"),
            pid = std::process::id(),
            config = self.file,
            config_hash = self.hash,
            listeners = listeners.collect::<Vec<_>>().join(", "),
            admin = addresses.admin.map(tracing::field::display),
            endpoints = self.endpoints,
            disabled = self.disabled,
            credentials = self.credentials,
            routes = self.routes,
            workers = self.workers,
            max_connections = self.max_connections.min(allowed),
            max_body_bytes = self.max_body,
            request_timeout = %humantime::format_duration(self.request_timeout),
            "signalr-gateway started"
        );
    }
}

/// Logs that the gateway has stopped, and what it did.
pub(super) fn log_stop(totals: Responses, started: Instant) {
    let Responses { total, client_errors, server_errors } = totals;
    let lost = [LostLine::SlowReader, LostLine::RateLimit, LostLine::WriteError].map(LostLine::total);
    tracing::info!(
        uptime_secs = started.elapsed().as_secs(),
        requests = total,
        client_errors,
        server_errors,
        log_lines_missing = lost.iter().sum::<u64>(),
        "signalr-gateway stopped"
    );
}

//! Integration tests: the whole gateway against the sandbox, over real sockets, one file per area. They observe the
//! gateway only from outside: responses, the journals of the endpoints and the admin listener.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic, reason = "a failed expectation ends the test")]

mod support;

mod access_log;
mod admin_listener;
mod admission;
mod architecture;
mod behind_proxies;
mod broken_uploads;
mod ca_rotation;
mod callers;
mod canary;
mod certificate_rotation;
mod chaos;
mod ci;
mod cli;
mod config_file;
mod connection_age;
mod connections;
mod credentials;
mod documents;
mod dotnet;
mod drain;
#[cfg(unix)]
mod drills;
mod egress;
mod endpoint_connections;
mod endpoint_http2;
mod explain;
mod fanout;
mod forwarding;
mod framing;
mod http2;
mod idempotency;
mod included_files;
mod listener_reload;
mod listeners;
#[cfg(unix)]
mod log;
mod malformed_secrets;
mod memory;
mod metrics;
mod named_endpoints;
mod outcomes;
mod overload;
#[cfg(unix)]
mod problems;
mod providers;
mod refused_certificates;
mod reload;
mod responses;
mod rotation;
mod routing;
mod sandbox_description;
mod sandbox_image;
mod sdk;
mod secrets;
mod service_manager;
mod setup;
mod slow_callers;
mod status;
mod tail;
mod tenants;
mod token_faults;
mod token_lifetime;
mod token_reports;
mod token_requests;
mod tokens_on_demand;
mod tracing;
mod wire;

//! One integration binary: the whole gateway on port 0 against the sandbox, over real sockets. A file per behaviour
//! area; `support` has the laboratory they work in. Nothing here looks into the gateway: callers, endpoints' journals
//! and the admin listener tell everything.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a test ends where something is not as it says"
)]

mod support;

mod admission;
mod answers;
mod architecture;
mod broken_uploads;
mod chaos;
mod cli;
mod config_file;
mod connections;
mod credentials;
mod described;
mod documents;
mod drain;
mod endpoint_connections;
mod endpoint_http2;
mod fanout;
mod forwarding;
mod http2;
mod listener_reload;
mod listeners;
#[cfg(unix)]
mod log;
mod mangled;
mod memory;
mod observability;
mod outcomes;
mod overload;
#[cfg(unix)]
mod providers;
mod reload;
mod rotation;
mod routing;
mod sdk;
mod secrets;
mod slow_callers;
mod token_faults;
mod token_life;
mod token_told;
mod wire;

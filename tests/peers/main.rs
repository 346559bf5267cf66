//! Tests against servers of Debian and `PyPI`, over loopback sockets: one module per server. `tests/peers/run` installs the
//! packages and runs them; `cargo test` does not.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed expectation ends the test")]

#[allow(dead_code, unused_imports, clippy::panic, reason = "the harness of tests/it; each target uses a part of it")]
#[path = "../it/support/mod.rs"]
mod support;

mod curl;
mod forward_proxy;
mod haproxy;
mod nginx;
mod openssl;
mod opentelemetry;
mod prometheus;
mod redis;
mod rolling_restart;
mod server;
mod squid;
mod tinyproxy;

//! Tests of `doctor` against the sandbox: each row breaks one step of the cross-tenant setup, and `doctor` must report that step
//! and its remediation.
#![cfg(feature = "sandbox")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed expectation ends the test")]

mod app;
mod command;
#[allow(dead_code, reason = "shared with tests/it, which uses all of it")]
#[path = "../it/support/connect_proxy.rs"]
mod connect_proxy;
mod delivery;
mod identities;
mod proxies;
mod scripted_service;
mod service;
mod setup;
mod table;

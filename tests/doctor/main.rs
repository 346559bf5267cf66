//! The doctor against the sandbox: each test breaks one step of the cross-tenant set-up, and the doctor names that step and
//! no other, with what mends it.
#![cfg(feature = "sandbox")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test ends where something is not as it says")]

mod app;
mod bench;
mod command;
mod identities;
mod service;
mod table;

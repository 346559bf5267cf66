//! `doctor` against the sandbox: each row breaks one step of the cross-tenant setup, and the doctor must report that
//! step, no other, and how to repair it.
#![cfg(feature = "sandbox")]
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failed expectation ends the test")]

mod app;
mod command;
mod identities;
mod service;
mod setup;
mod table;

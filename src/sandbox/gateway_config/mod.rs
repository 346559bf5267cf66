//! The configuration of a gateway that uses a sandbox, and the files that it names. Imports none of the gateway's code: it
//! writes what an operator would write.

pub(super) mod config;
pub(super) mod credential;
pub(super) mod files;

//! The configuration of a gateway in front of a sandbox, and the files that it names. The configuration is plain TOML, as an
//! operator writes it.

pub(super) mod config;
pub(super) mod credential;
pub(super) mod files;

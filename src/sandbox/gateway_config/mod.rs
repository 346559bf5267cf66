//! The configuration that makes an ordinary gateway use a sandbox, and the files that it names.

pub(super) mod config;
pub(super) mod credential;
pub(super) mod files;

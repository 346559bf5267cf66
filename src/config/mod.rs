//! Loads the configuration: turns a file, environment variables and flags into [`Settings`](crate::gateway::Settings), or into a report of all problems.
//!
//! ```text
//! defaults < files < environment < flags ──merged──► values ──structure──► ConfigFile ──lower──► Settings
//! ```
//!
//! `sources.rs` reads the sources; `merged.rs` merges those of one file and keeps the origin of each value. `included/` has the
//! files that the main one includes, and `tree.rs` has the values of all files. `structure/` validates the values against the
//! schema of `file/`, and `lower/` turns the files into settings. `loader.rs` does all of this in order, and keeps what a reload
//! can use again. `conversion.rs` converts the connection strings of an SDK to a file. This module depends on the settings of
//! every part; no part depends on it.

mod connection_string;
mod conversion;
mod document;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod identifier;
mod included;
mod loaded;
mod loader;
mod lower;
mod merged;
mod problem;
mod sources;
mod structure;
mod syntax;
mod tree;

pub use conversion::{Conversion, from_connection_strings};
pub use loaded::{EffectiveValue, Loaded};
pub use loader::Loader;
pub use problem::{ConfigError, Origin, Problem};
pub use sources::{PREFIX, Sources};

use file::{ConfigFile, IncludedFile};

/// Loads a configuration. Performs no network I/O.
///
/// # Errors
/// [`ConfigError`] with every problem of every source.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    Loader::new(sources.clone()).load()
}

/// Loads a configuration on a host that is not the gateway's, such as one of a CI system: files, secrets and variables that
/// this host lacks are warnings. Performs no network I/O.
///
/// # Errors
/// [`ConfigError`] with every problem of every source.
pub fn load_for_other_host(sources: &Sources) -> Result<Loaded, ConfigError> {
    Loader::of_other_host(sources.clone()).load()
}

/// Returns the JSON Schema of the configuration file.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(ConfigFile).to_value()
}

/// Returns the JSON Schema of the files that `include` names.
pub fn included_schema() -> serde_json::Value {
    schemars::schema_for!(IncludedFile).to_value()
}

#[cfg(test)]
mod tests;

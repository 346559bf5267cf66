//! Loads the configuration: turns a file, environment variables and flags into [`Settings`], or into a report of all problems.
//!
//! ```text
//! defaults < file < environment < flags ──merge──► values ──structure──► ConfigFile ──lower──► Settings
//! ```
//!
//! `sources.rs` merges the sources and keeps the origin of each value, `structure/` validates the values against the schema
//! of `file/`, and `lower/` turns the file into settings. `conversion.rs` converts the connection strings of an SDK to a file.
//! This module depends on the settings of every part; no part depends on it.

mod connection_string;
mod conversion;
mod file;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod identifier;
mod lower;
mod problem;
mod sources;
mod structure;

use figment::value::Value;

pub use conversion::{Conversion, from_connection_strings};
pub use problem::{ConfigError, Origin, Problem};
pub use sources::{PREFIX, Sources};

use file::ConfigFile;
use sources::Merged;
use structure::Checked;

use crate::gateway::Settings;

/// A valid configuration.
#[derive(Debug)]
pub struct Loaded {
    /// The settings of the gateway.
    pub settings: Settings,
    /// Every value in force, with its key and its origin.
    pub effective: Vec<EffectiveValue>,
    /// The problems that do not make it invalid.
    pub warnings: Vec<Problem>,
}

/// A value in force.
#[derive(Clone, Debug)]
pub struct EffectiveValue {
    /// The key, such as `limits.max_body`.
    pub key: String,
    /// The value, as JSON. A configuration contains no secrets; the value of a required header is hidden.
    pub value: serde_json::Value,
    /// Its origin.
    pub origin: Option<Origin>,
}

/// Loads a configuration. Performs no network I/O.
///
/// # Errors
/// [`ConfigError`] with every problem of every source.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    load_text(sources, sources.read()?)
}

/// Loads a configuration whose file was already read.
///
/// # Errors
/// [`ConfigError`] with every problem of every source.
pub fn load_text(sources: &Sources, text: Option<String>) -> Result<Loaded, ConfigError> {
    let merged = sources.merge(text)?;
    let Checked { root, invalid, mut problems, warnings: ignored_keys } = structure::check(&merged, &schema());
    let file: ConfigFile = root.deserialize().map_err(|err| {
        // Invalid values were removed, so this is a bug. The library's message is omitted: it quotes values, which may be
        // secrets.
        let fact = "cannot be deserialized".to_owned();
        let fix =
            "check the value against `signalr-gateway schema`, and report this as a bug of signalr-gateway".to_owned();
        let last = Problem { key: err.path.join("."), fact, origin: None, fix };
        ConfigError { problems: problems.iter().cloned().chain([last]).collect() }
    })?;
    let mut context = lower::Context::new(&merged, invalid, &sources.environment, sources.folder());
    let (settings, tests) = lower::lower(&file, &mut context);
    problems.append(&mut context.problems);
    if problems.is_empty() {
        lower::run_tests(&tests, &settings, &mut context);
        problems.append(&mut context.problems);
    }
    let warnings = ignored_keys.into_iter().chain(std::mem::take(&mut context.warnings)).collect();
    if problems.is_empty() {
        let mut effective = effective(&merged, &root);
        for value in &mut effective {
            context.displayed_values.iter().filter(|(key, _)| *key == value.key).for_each(|(_, displayed)| {
                value.value.clone_from(displayed);
            });
        }
        return Ok(Loaded { settings, effective, warnings });
    }
    problems.sort_by(|one, other| (&one.origin, &one.key).cmp(&(&other.origin, &other.key)));
    problems.dedup();
    Err(ConfigError { problems })
}

/// Returns the JSON Schema of the configuration file.
pub fn schema() -> serde_json::Value {
    schemars::schema_for!(ConfigFile).to_value()
}

fn effective(merged: &Merged, root: &Value) -> Vec<EffectiveValue> {
    let mut leaves = Vec::new();
    collect_leaves(merged, root, &mut Vec::new(), &mut leaves);
    leaves
}

fn collect_leaves(merged: &Merged, value: &Value, path: &mut Vec<String>, leaves: &mut Vec<EffectiveValue>) {
    match value {
        Value::Dict(_, dict) if !dict.is_empty() => {
            for (key, value) in dict {
                path.push(key.clone());
                collect_leaves(merged, value, path, leaves);
                path.pop();
            }
        }
        Value::Array(_, items) if items.iter().any(|item| item.as_dict().is_some()) => {
            for (index, value) in items.iter().enumerate() {
                path.push(index.to_string());
                collect_leaves(merged, value, path, leaves);
                path.pop();
            }
        }
        Value::Dict(..)
        | Value::Array(..)
        | Value::String(..)
        | Value::Char(..)
        | Value::Bool(..)
        | Value::Num(..)
        | Value::Empty(..) => leaves.push(EffectiveValue {
            key: path.join("."),
            value: serde_json::to_value(value).unwrap_or_default(),
            origin: merged.origin(path, value),
        }),
    }
}

#[cfg(test)]
mod tests;

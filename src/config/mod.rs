//! From what the operator wrote to [`Settings`]: sources, precedence, and one report of everything that is wrong.
//!
//! ```text
//! defaults < file < environment < flags ──merge──► values ──structure──► ConfigFile ──lower──► Settings
//! ```
//!
//! `sources.rs` merges and remembers origins, `structure.rs` holds the values against the schema of `file.rs`, `lower/`
//! decides. `conversion.rs` goes the other way, from an SDK's connection strings to a file. Knows the settings of every part; no part knows it.

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

/// A configuration that holds together.
#[derive(Debug)]
pub struct Loaded {
    /// What the gateway is built from.
    pub settings: Settings,
    /// Every value that is in force by the file's keys, and where it came from.
    pub effective: Vec<Effective>,
    /// What is worth saying and does not stop anything.
    pub warnings: Vec<Problem>,
}

/// A value in force.
#[derive(Clone, Debug)]
pub struct Effective {
    /// The key, such as `limits.max_body`.
    pub key: String,
    /// The value, as JSON. Secrets do not stand in a configuration, so none is here; the value of a required header is
    /// left out.
    pub value: serde_json::Value,
    /// Where it came from.
    pub origin: Option<Origin>,
}

/// Loads a configuration: everything up to the first network I/O.
///
/// # Errors
/// [`ConfigError`] with every problem of every source.
pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
    load_read(sources, sources.read()?)
}

/// As [`load`], of a file that was read already.
///
/// # Errors
/// [`ConfigError`] with every problem of every source.
pub fn load_read(sources: &Sources, text: Option<String>) -> Result<Loaded, ConfigError> {
    let merged = sources.merge(text)?;
    let Checked { root, invalid, mut problems, warnings: left_out } = structure::check(&merged, &schema());
    let file: ConfigFile = root.deserialize().map_err(|err| {
        // What does not fit is gone, so this is a fault of ours; the report so far is still the better help. What the
        // library says is left out: it quotes values, which may be secrets.
        let fact = "cannot be read".to_owned();
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
    let warnings = left_out.into_iter().chain(std::mem::take(&mut context.warnings)).collect();
    if problems.is_empty() {
        let mut effective = effective(&merged, &root);
        for value in &mut effective {
            context.decided.iter().filter(|(key, _)| *key == value.key).for_each(|(_, decided)| {
                value.value.clone_from(decided);
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

fn effective(merged: &Merged, root: &Value) -> Vec<Effective> {
    let mut leaves = Vec::new();
    collect(merged, root, &mut Vec::new(), &mut leaves);
    leaves
}

fn collect(merged: &Merged, value: &Value, path: &mut Vec<String>, leaves: &mut Vec<Effective>) {
    match value {
        Value::Dict(_, dict) if !dict.is_empty() => {
            for (key, value) in dict {
                path.push(key.clone());
                collect(merged, value, path, leaves);
                path.pop();
            }
        }
        Value::Array(_, items) if items.iter().any(|item| item.as_dict().is_some()) => {
            for (index, value) in items.iter().enumerate() {
                path.push(index.to_string());
                collect(merged, value, path, leaves);
                path.pop();
            }
        }
        Value::Dict(..)
        | Value::Array(..)
        | Value::String(..)
        | Value::Char(..)
        | Value::Bool(..)
        | Value::Num(..)
        | Value::Empty(..) => leaves.push(Effective {
            key: path.join("."),
            value: serde_json::to_value(value).unwrap_or_default(),
            origin: merged.origin(path, value),
        }),
    }
}

#[cfg(test)]
mod tests;

//! A valid configuration, and the values in force with their origins.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use figment::value::Value;

use super::included::IncludedSchema;
use super::merged::{Merged, find};
use super::problem::{Origin, Problem};
use super::structure::Checked;
use super::tree::Tree;
use crate::gateway::Settings;

/// A valid configuration.
pub struct Loaded {
    /// The settings of the gateway.
    pub settings: Settings,
    /// The problems that do not make it invalid.
    pub warnings: Vec<Problem>,
    /// The keys of files, secrets and variables that this host lacks. Only if [`load_for_other_host`](super::load_for_other_host)
    /// loaded it; its settings then have placeholders.
    pub absent: Vec<String>,
    /// The files that the configuration names, with their keys.
    pub files: Vec<(String, PathBuf)>,
    /// The main file, if there is one, and the included files.
    pub sources: Vec<PathBuf>,
    pub(super) values: Values,
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

impl Loaded {
    /// Returns every value in force, with its key and its origin, ordered by key.
    pub fn effective(&self) -> Vec<EffectiveValue> {
        self.values.effective()
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Loaded");
        debug.field("settings", &self.settings).field("warnings", &self.warnings);
        debug.field("effective", &self.effective()).finish_non_exhaustive()
    }
}

/// The values of all files, with the types of their keys.
pub(super) struct Values {
    tree: Tree,
    /// The values of the main file.
    main: Value,
    /// The values to display instead of those in the files.
    displayed: Vec<(String, serde_json::Value)>,
    schema: Arc<IncludedSchema>,
}

impl Values {
    pub(super) fn new(
        tree: Tree,
        main: Value,
        displayed: Vec<(String, serde_json::Value)>,
        schema: Arc<IncludedSchema>,
    ) -> Self {
        Self { tree, main, displayed, schema }
    }

    fn effective(&self) -> Vec<EffectiveValue> {
        let included: Vec<(Merged, Value)> = self
            .tree
            .fragments()
            .iter()
            .map(|fragment| {
                let (merged, Checked { root, .. }) = fragment.checked(&self.schema);
                (merged, root)
            })
            .collect();
        let files: Vec<(&Merged, &Value)> = included.iter().map(|(merged, root)| (merged, root)).collect();
        let files: Vec<(&Merged, &Value)> = files.into_iter().chain([(self.tree.main(), &self.main)]).collect();
        let keys = files.iter().filter_map(|(_, root)| root.as_dict()).flat_map(|dict| dict.keys());
        let tables: BTreeSet<&String> = keys.collect();
        let mut leaves = Vec::new();
        for table in tables {
            let mut entries: BTreeMap<&String, (&Merged, &Value)> = BTreeMap::new();
            let mut items = 0;
            for (merged, root) in &files {
                match find(root, std::slice::from_ref(table)) {
                    Some(Value::Dict(_, dict)) if !dict.is_empty() => {
                        entries.extend(dict.iter().map(|(name, value)| (name, (*merged, value))));
                    }
                    Some(Value::Array(_, list)) if has_tables(list) => {
                        for (index, value) in list.iter().enumerate() {
                            let (path, shown) = ([table.clone(), index.to_string()], format!("{table}.{items}"));
                            Collect { merged, leaves: &mut leaves }.collect(value, &mut path.to_vec(), &shown);
                            items += 1;
                        }
                    }
                    Some(value) => {
                        Collect { merged, leaves: &mut leaves }.collect(value, &mut vec![table.clone()], table);
                    }
                    None => {}
                }
            }
            for (name, (merged, value)) in entries {
                let mut path = vec![table.clone(), name.clone()];
                Collect { merged, leaves: &mut leaves }.collect(value, &mut path, &format!("{table}.{name}"));
            }
        }
        let displayed: BTreeMap<&str, &serde_json::Value> =
            self.displayed.iter().map(|(key, value)| (key.as_str(), value)).collect();
        for leaf in &mut leaves {
            if let Some(value) = displayed.get(leaf.key.as_str()) {
                leaf.value.clone_from(value);
            }
        }
        leaves
    }
}

fn has_tables(items: &[Value]) -> bool {
    items.iter().any(|item| item.as_dict().is_some())
}

/// Collects the values of one file.
struct Collect<'a> {
    merged: &'a Merged,
    leaves: &'a mut Vec<EffectiveValue>,
}

impl Collect<'_> {
    /// Collects the values at and below `path`. `shown` is the path through all files.
    fn collect(&mut self, value: &Value, path: &mut Vec<String>, shown: &str) {
        match value {
            Value::Dict(_, dict) if !dict.is_empty() => {
                for (key, value) in dict {
                    path.push(key.clone());
                    self.collect(value, path, &format!("{shown}.{key}"));
                    path.pop();
                }
            }
            Value::Array(_, items) if has_tables(items) => {
                for (index, value) in items.iter().enumerate() {
                    path.push(index.to_string());
                    self.collect(value, path, &format!("{shown}.{index}"));
                    path.pop();
                }
            }
            Value::Dict(..)
            | Value::Array(..)
            | Value::String(..)
            | Value::Char(..)
            | Value::Bool(..)
            | Value::Num(..)
            | Value::Empty(..) => self.leaves.push(EffectiveValue {
                key: shown.to_owned(),
                value: serde_json::to_value(value).unwrap_or_default(),
                origin: self.merged.origin(path, value),
            }),
        }
    }
}

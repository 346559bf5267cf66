//! The context of lowering: the origins of values, the environment, and the problems found.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::value::Value;

use crate::config::problem::{Origin, Problem};
use crate::config::sources::Merged;
use crate::redact;

/// The path of a value.
pub(super) type Key = Vec<String>;

/// The inputs of lowering other than the file, and the problems found.
pub(in crate::config) struct Context<'a> {
    pub(super) merged: &'a Merged,
    pub(super) environment: &'a BTreeMap<String, String>,
    folder: PathBuf,
    /// The paths of invalid values, which are already reported.
    invalid: Vec<Key>,
    pub(in crate::config) problems: Vec<Problem>,
    /// The problems that do not make the configuration invalid.
    pub(in crate::config) warnings: Vec<Problem>,
    /// The values to display instead of those in the file, because others are in force or because they may contain secrets.
    pub(in crate::config) displayed_values: Vec<(String, serde_json::Value)>,
}

impl<'a> Context<'a> {
    pub(in crate::config) fn new(
        merged: &'a Merged,
        invalid: Vec<Key>,
        environment: &'a BTreeMap<String, String>,
        folder: PathBuf,
    ) -> Self {
        let (problems, warnings, displayed_values) = (Vec::new(), Vec::new(), Vec::new());
        Self { merged, environment, folder, invalid, problems, warnings, displayed_values }
    }

    /// Returns whether the value of a key, or a table that contains it, is a placeholder.
    pub(super) fn is_invalid(&self, key: &[String]) -> bool {
        self.invalid.iter().any(|invalid| key.starts_with(invalid))
    }

    /// Returns whether a key, a table that contains it, or a key below it is invalid. Its value is not the intended one then.
    pub(super) fn is_incomplete(&self, key: &[String]) -> bool {
        self.is_invalid(key) || self.invalid.iter().any(|invalid| invalid.starts_with(key))
    }

    /// Returns the origin of the value of a key, or else of the nearest table that contains it.
    pub(super) fn origin_of(&self, key: &[String]) -> Option<Origin> {
        (0..=key.len()).rev().find_map(|length| {
            let path = key.get(..length)?;
            let value = find(&self.merged.root, path)?;
            self.merged.origin(key, value)
        })
    }

    fn make_problem(&self, key: &[String], fact: impl Into<String>, fix: impl Into<String>) -> Problem {
        let mut fact = fact.into();
        // Operators may paste a secret where its id or its source belongs.
        if key.first().is_some_and(|table| table == "credentials") {
            fact = redact::message(&fact);
        }
        Problem { key: key.join("."), fact, origin: self.origin_of(key), fix: fix.into() }
    }

    /// Reports a problem of a key, unless its value is a placeholder.
    pub(super) fn problem(&mut self, key: &[String], fact: impl Into<String>, fix: impl Into<String>) {
        if !self.is_invalid(key) {
            let problem = self.make_problem(key, fact, fix);
            self.problems.push(problem);
        }
    }

    /// Reports a warning about a key.
    pub(super) fn warning(&mut self, key: &[String], fact: impl Into<String>, fix: impl Into<String>) {
        let warning = self.make_problem(key, fact, fix);
        self.warnings.push(warning);
    }

    /// Resolves a path. A relative one in the file is relative to the file's folder.
    pub(super) fn path(&self, key: &[String], path: &Path) -> PathBuf {
        match self.origin_of(key) {
            Some(Origin::File(..)) => self.folder.join(path),
            Some(Origin::Variable(_) | Origin::Flag(_) | Origin::Default) | None => path.to_owned(),
        }
    }

    /// Returns the names in a table, including those of invalid entries, so that a reference to one is not reported.
    pub(super) fn names(&self, table: &str) -> Vec<String> {
        let dict = find(&self.merged.root, &[table.to_owned()]).and_then(Value::as_dict);
        dict.map(|dict| dict.keys().cloned().collect()).unwrap_or_default()
    }

    /// Returns whether a table has an entry with this name, valid or not. Does not copy names: there may be thousands of
    /// entries, each with references.
    pub(super) fn defines(&self, table: &str, name: &str) -> bool {
        let dict = find(&self.merged.root, &[table.to_owned()]).and_then(Value::as_dict);
        dict.is_some_and(|dict| dict.contains_key(name))
    }

    /// Returns the names of the routes in the file.
    pub(super) fn route_names(&self) -> Vec<String> {
        let routes = find(&self.merged.root, &key(&["routes"])).and_then(Value::as_array).unwrap_or_default();
        let names: Vec<_> =
            routes.iter().filter_map(|route| Some(route.as_dict()?.get("name")?.as_str()?.to_owned())).collect();
        // Without routes, the only one is called `default`.
        if names.is_empty() { vec!["default".to_owned()] } else { names }
    }
}

/// Returns the value at a path.
pub(super) fn find<'v>(root: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(root, |value, segment| match value {
        Value::Dict(_, dict) => dict.get(segment),
        Value::Array(_, items) => items.get(segment.parse::<usize>().ok()?),
        Value::String(..) | Value::Char(..) | Value::Bool(..) | Value::Num(..) | Value::Empty(..) => None,
    })
}

/// Returns the path of a key from its segments.
pub(super) fn key(segments: &[&str]) -> Key {
    segments.iter().map(|segment| (*segment).to_owned()).collect()
}

/// Returns the path of a key below a table.
pub(super) fn below(table: &[String], name: &str) -> Key {
    table.iter().cloned().chain([name.to_owned()]).collect()
}

//! What lowering needs beside the file: where values stand, what is around, and the list of problems.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use figment::value::Value;

use crate::config::problem::{Origin, Problem};
use crate::config::sources::Merged;
use crate::redact;

/// Names a value by its path.
pub(super) type Key = Vec<String>;

/// What lowering needs beside the file: where values stand, what is around, and the list of problems.
pub(in crate::config) struct Context<'a> {
    pub(super) merged: &'a Merged,
    pub(super) environment: &'a BTreeMap<String, String>,
    folder: PathBuf,
    /// Where the structure did not fit, which has been told.
    invalid: Vec<Key>,
    pub(in crate::config) problems: Vec<Problem>,
    /// What is worth saying and does not stop anything.
    pub(in crate::config) warnings: Vec<Problem>,
    /// What is in force, or may be shown, where that is not what stands there.
    pub(in crate::config) decided: Vec<(String, serde_json::Value)>,
}

impl<'a> Context<'a> {
    pub(in crate::config) fn new(
        merged: &'a Merged,
        invalid: Vec<Key>,
        environment: &'a BTreeMap<String, String>,
        folder: PathBuf,
    ) -> Self {
        let (problems, warnings, decided) = (Vec::new(), Vec::new(), Vec::new());
        Self { merged, environment, folder, invalid, problems, warnings, decided }
    }

    /// Whether what stands at a key, or around it, is a stand-in.
    pub(super) fn is_invalid(&self, key: &[String]) -> bool {
        self.invalid.iter().any(|invalid| key.starts_with(invalid))
    }

    /// Whether something at a key, around it or below it did not fit, so that it does not say what was meant.
    pub(super) fn is_incomplete(&self, key: &[String]) -> bool {
        self.is_invalid(key) || self.invalid.iter().any(|invalid| invalid.starts_with(key))
    }

    /// Returns where what stands at a key comes from, or at the nearest table around it.
    pub(super) fn origin_of(&self, key: &[String]) -> Option<Origin> {
        (0..=key.len()).rev().find_map(|length| {
            let path = key.get(..length)?;
            let value = find(&self.merged.root, path)?;
            // Below the value of a variable there are no keys of the file.
            self.merged.origin(key, value)
        })
    }

    fn note(&self, key: &[String], fact: impl Into<String>, fix: impl Into<String>) -> Problem {
        let mut fact = fact.into();
        // People put a secret where its id or its place belongs.
        if key.first().is_some_and(|table| table == "credentials") {
            fact = redact::message(&fact);
        }
        Problem { key: key.join("."), fact, origin: self.origin_of(key), fix: fix.into() }
    }

    pub(super) fn problem(&mut self, key: &[String], fact: impl Into<String>, fix: impl Into<String>) {
        if !self.is_invalid(key) {
            let problem = self.note(key, fact, fix);
            self.problems.push(problem);
        }
    }

    pub(super) fn warning(&mut self, key: &[String], fact: impl Into<String>, fix: impl Into<String>) {
        let warning = self.note(key, fact, fix);
        self.warnings.push(warning);
    }

    /// Returns a path as the process sees it: in the file, relative ones are relative to the file's folder.
    pub(super) fn path(&self, key: &[String], path: &Path) -> PathBuf {
        match self.origin_of(key) {
            Some(Origin::File(..)) => self.folder.join(path),
            Some(Origin::Variable(_) | Origin::Flag(_) | Origin::Default) | None => path.to_owned(),
        }
    }

    /// Returns the names that stand in a table, those whose entries were refused too: referring to them is no mistake.
    pub(super) fn names(&self, table: &str) -> Vec<String> {
        let dict = find(&self.merged.root, &[table.to_owned()]).and_then(Value::as_dict);
        dict.map(|dict| dict.keys().cloned().collect()).unwrap_or_default()
    }

    /// Returns the names of the routes, as written.
    pub(super) fn route_names(&self) -> Vec<String> {
        let routes = find(&self.merged.root, &key(&["routes"])).and_then(Value::as_array).unwrap_or_default();
        let names: Vec<_> =
            routes.iter().filter_map(|route| Some(route.as_dict()?.get("name")?.as_str()?.to_owned())).collect();
        // Without any, there is the one called `default`.
        if names.is_empty() { vec!["default".to_owned()] } else { names }
    }
}

/// Returns what stands at a path.
pub(super) fn find<'v>(root: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(root, |value, segment| match value {
        Value::Dict(_, dict) => dict.get(segment),
        Value::Array(_, items) => items.get(segment.parse::<usize>().ok()?),
        Value::String(..) | Value::Char(..) | Value::Bool(..) | Value::Num(..) | Value::Empty(..) => None,
    })
}

/// Makes the path of a key.
pub(super) fn key(segments: &[&str]) -> Key {
    segments.iter().map(|segment| (*segment).to_owned()).collect()
}

/// Returns the path of a key below a table.
pub(super) fn below(table: &[String], name: &str) -> Key {
    table.iter().cloned().chain([name.to_owned()]).collect()
}

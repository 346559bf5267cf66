//! The context of lowering: the origins of values, the environment, and the problems found.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::path::{Path, PathBuf};

use super::memo::Memo;
use crate::config::problem::{Origin, Problem, did_you_mean};
use crate::config::tree::Tree;
use crate::redact;

/// The maximum number of searches for the name that an unknown one may mean. Chosen: more than anybody reads.
const MAX_SUGGESTIONS: usize = 50;

/// The path of a value.
pub(super) type Key = Vec<String>;

/// The inputs of lowering other than the file, and the problems found.
pub(in crate::config) struct Context<'a> {
    pub(super) merged: &'a Tree,
    pub(super) environment: &'a BTreeMap<String, String>,
    folder: PathBuf,
    /// The paths of invalid values, which are already reported.
    invalid: BTreeSet<Key>,
    /// The results of the last load.
    pub(in crate::config) last: Memo,
    /// The results for the next load.
    pub(in crate::config) memo: Memo,
    /// The number of suggestions that may still be searched for.
    suggestions: usize,
    /// Whether this host may lack files, secrets and variables that the gateway's host has.
    allows_absent: bool,
    /// The keys of those that it lacks.
    pub(in crate::config) absent: Vec<String>,
    pub(in crate::config) problems: Vec<Problem>,
    /// The problems that do not make the configuration invalid.
    pub(in crate::config) warnings: Vec<Problem>,
    /// The files that the configuration names, with their keys. Sockets are none.
    pub(in crate::config) files: Vec<(String, PathBuf)>,
    /// The values to display instead of those in the file, because others are in force or because they may contain secrets.
    pub(in crate::config) displayed_values: Vec<(String, serde_json::Value)>,
}

impl<'a> Context<'a> {
    pub(in crate::config) fn new(
        merged: &'a Tree,
        invalid: BTreeSet<Key>,
        environment: &'a BTreeMap<String, String>,
        folder: PathBuf,
        last: Memo,
    ) -> Self {
        Self {
            merged,
            environment,
            folder,
            invalid,
            last,
            memo: Memo::default(),
            suggestions: MAX_SUGGESTIONS,
            allows_absent: false,
            absent: Vec::new(),
            problems: Vec::new(),
            warnings: Vec::new(),
            files: Vec::new(),
            displayed_values: Vec::new(),
        }
    }

    /// Makes everything that this host lacks a warning.
    pub(in crate::config) fn allow_absent(&mut self) {
        self.allows_absent = true;
    }

    /// Returns whether this host may lack what the gateway's host has.
    pub(super) fn allows_absent(&self) -> bool {
        self.allows_absent
    }

    /// Returns whether the value of a key, or a table that contains it, is a placeholder.
    pub(super) fn is_invalid(&self, key: &[String]) -> bool {
        !self.invalid.is_empty()
            && (0..=key.len()).any(|length| key.get(..length).is_some_and(|table| self.invalid.contains(table)))
    }

    /// Returns whether a key, a table that contains it, or a key below it is invalid. Its value is not the intended one then.
    pub(super) fn is_incomplete(&self, key: &[String]) -> bool {
        let mut from_here = self.invalid.range::<[String], _>((Bound::Included(key), Bound::Unbounded));
        self.is_invalid(key) || from_here.next().is_some_and(|invalid| invalid.starts_with(key))
    }

    /// Returns the origin of the value of a key, or else of the nearest table that contains it.
    pub(super) fn origin_of(&self, key: &[String]) -> Option<Origin> {
        self.merged.origin_of(key)
    }

    fn make_problem(&self, key: &[String], fact: impl Into<String>, fix: impl Into<String>) -> Problem {
        let mut fact = fact.into();
        // Operators may paste a secret where its id or its source belongs.
        let is_of_credential = |name: &String| ["tenant", "object_id"].contains(&name.as_str());
        if key.first().is_some_and(|table| table == "credentials") || key.last().is_some_and(is_of_credential) {
            fact = redact::message(&fact);
        }
        Problem { key: key.join("."), fact, origin: self.origin_of(key), fix: fix.into() }
    }

    /// Returns the number of problems and warnings so far.
    pub(super) fn reports(&self) -> (usize, usize) {
        (self.problems.len(), self.warnings.len())
    }

    /// Reports a problem of a key, unless its value is a placeholder.
    pub(super) fn problem(&mut self, key: &[String], fact: impl Into<String>, fix: impl Into<String>) {
        if !self.is_invalid(key) {
            let problem = self.make_problem(key, fact, fix);
            self.problems.push(problem);
        }
    }

    /// Reports a file, secret or variable that this host lacks.
    pub(super) fn absent(&mut self, key: &[String], fact: impl Into<String>, fix: impl Into<String>) {
        if !self.allows_absent {
            self.problem(key, fact, fix);
        } else if !self.is_invalid(key) {
            self.absent.push(key.join("."));
            self.warning(key, fact, fix);
        }
    }

    /// Returns whether the file, secret or variable of a key is reported as absent.
    pub(super) fn is_absent(&self, key: &[String]) -> bool {
        !self.absent.is_empty() && self.absent.contains(&key.join("."))
    }

    /// Reports a warning about a key.
    pub(super) fn warning(&mut self, key: &[String], fact: impl Into<String>, fix: impl Into<String>) {
        let warning = self.make_problem(key, fact, fix);
        self.warnings.push(warning);
    }

    /// Resolves a path. A relative one in the file is relative to the file's folder.
    pub(super) fn path(&mut self, key: &[String], path: &Path) -> PathBuf {
        let path = if self.merged.is_in_file(key) {
            self.folder.join(path)
        } else {
            std::path::absolute(path).unwrap_or_else(|_no_working_folder| path.to_owned())
        };
        if key.last().is_none_or(|last| last != "bind") {
            self.files.push((key.join("."), path.clone()));
        }
        path
    }

    /// Returns the names in a table, including those of invalid entries, so that a reference to one is not reported.
    pub(super) fn names(&self, table: &str) -> Vec<String> {
        self.merged.names(table)
    }

    /// Returns whether a table has an entry with this name, valid or not. Does not copy names: there may be thousands of
    /// entries, each with references.
    pub(super) fn defines(&self, table: &str, name: &str) -> bool {
        self.merged.defines(table, name)
    }

    /// Suggests the name in a table that is closest to an unknown one.
    pub(super) fn suggest_name(&mut self, table: &str, name: &str) -> Option<String> {
        // Each search compares all names.
        self.suggestions = self.suggestions.checked_sub(1)?;
        did_you_mean(name, self.names(table).iter().map(String::as_str))
    }
}

/// Returns the path of a key from its segments.
pub(super) fn key(segments: &[&str]) -> Key {
    segments.iter().map(|segment| (*segment).to_owned()).collect()
}

/// Returns the path of a key below a table.
pub(super) fn below(table: &[String], name: &str) -> Key {
    table.iter().cloned().chain([name.to_owned()]).collect()
}

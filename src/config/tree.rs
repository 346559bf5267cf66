//! The values of all files: the main one, and those that it includes.
//!
//! Routes and tests of included files stand before those of the main file, and are counted through all files.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;

use figment::value::Value;

use super::included::Fragment;
use super::merged::{Merged, find};
use super::problem::{Origin, Problem};

/// The tables whose entries have names that are unique through all files.
const TABLES: [&str; 2] = ["endpoints", "credentials"];
/// The lists that continue from file to file.
const LISTS: [&str; 2] = ["routes", "tests"];

/// The values of all files.
#[derive(Debug)]
pub(super) struct Tree {
    main: Merged,
    fragments: Vec<Arc<Fragment>>,
    /// The fragments that were parsed again for the origins of their values.
    parsed: Vec<OnceCell<Merged>>,
    /// The fragments that define the names in each of [`TABLES`].
    owners: [HashMap<Arc<str>, usize>; 2],
    /// For each of [`LISTS`], the index of the first item of each fragment, and then that of the main file.
    starts: [Vec<usize>; 2],
}

impl Tree {
    /// Puts files together. Returns the problems of names that are defined twice.
    pub(super) fn new(main: Merged, fragments: Vec<Arc<Fragment>>) -> (Self, Vec<Problem>) {
        let mut starts = [vec![0], vec![0]];
        for fragment in &fragments {
            for (starts, length) in starts.iter_mut().zip([fragment.file.routes.len(), fragment.file.tests.len()]) {
                starts.push(starts.last().copied().unwrap_or_default() + length);
            }
        }
        let parsed = std::iter::repeat_with(OnceCell::new).take(fragments.len()).collect();
        let mut tree = Self { main, fragments, parsed, owners: [HashMap::new(), HashMap::new()], starts };
        let mut problems = Vec::new();
        for (position, table) in TABLES.into_iter().enumerate() {
            let mut owners: HashMap<Arc<str>, usize> = HashMap::new();
            for (index, fragment) in tree.fragments.iter().enumerate() {
                for name in fragment.names.of_table(table) {
                    let key = [table.to_owned(), name.to_string()];
                    let other = if find(&tree.main.root, &key).is_some() {
                        tree.main.origin_of(&key)
                    } else if let Some(other) = owners.get(name) {
                        tree.parsed(*other).and_then(|other| other.origin_of(&key))
                    } else {
                        owners.insert(Arc::clone(name), index);
                        continue;
                    };
                    let place = other.map(|other| other.to_string()).unwrap_or_default();
                    problems.push(Problem {
                        key: key.join("."),
                        fact: format!("is defined at {place} as well"),
                        origin: tree.parsed(index).and_then(|this| this.origin_of(&key)),
                        fix: "rename one of the two, or remove it".to_owned(),
                    });
                }
            }
            if let Some(place) = tree.owners.get_mut(position) {
                *place = owners;
            }
        }
        (tree, problems)
    }

    /// Returns the included files.
    pub(super) fn fragments(&self) -> &[Arc<Fragment>] {
        &self.fragments
    }

    /// Returns the values of the main file.
    pub(super) fn main(&self) -> &Merged {
        &self.main
    }

    /// Returns whether there is a main file.
    pub(super) fn has_file(&self) -> bool {
        self.main.has_file()
    }

    /// Returns whether a file could not be read or parsed, so that not all names are known.
    pub(super) fn has_unknown_names(&self) -> bool {
        self.fragments.iter().any(|fragment| !fragment.is_parsed)
    }

    fn parsed(&self, index: usize) -> Option<&Merged> {
        let fragment = self.fragments.get(index)?;
        Some(self.parsed.get(index)?.get_or_init(|| fragment.merged()))
    }

    /// Returns the origin of the value of a key, or else of the nearest table that contains it.
    pub(super) fn origin_of(&self, key: &[String]) -> Option<Origin> {
        let (fragment, key) = self.locate(key);
        match fragment {
            Some(index) => self.parsed(index)?.origin_of(&key),
            None => self.main.origin_of(&key),
        }
    }

    /// Returns whether the value of a key is in a file.
    pub(super) fn is_in_file(&self, key: &[String]) -> bool {
        // Without overrides, the file need not be parsed again.
        let (fragment, _) = self.locate(key);
        let fragment = fragment.and_then(|index| self.fragments.get(index));
        fragment.is_some_and(|fragment| fragment.has_overrides(&[]))
            || matches!(self.origin_of(key), Some(Origin::File(..)))
    }

    /// Returns the fragment that a key is in, or `None` for the main file, and the key with the index within that file.
    fn locate(&self, key: &[String]) -> (Option<usize>, Vec<String>) {
        let mut key = key.to_vec();
        let [table, name, ..] = key.as_mut_slice() else { return (None, key) };
        if let Some(owners) = position(&TABLES, table).and_then(|position| self.owners.get(position)) {
            return (owners.get(name.as_str()).copied(), key);
        }
        let starts = position(&LISTS, table).and_then(|position| self.starts.get(position));
        let (Some(starts), Ok(index)) = (starts, name.parse::<usize>()) else { return (None, key) };
        let file = starts.partition_point(|start| *start <= index).saturating_sub(1);
        // Files without items have the start of the next one.
        *name = (index - starts.get(file).copied().unwrap_or_default()).to_string();
        ((file < self.fragments.len()).then_some(file), key)
    }

    /// Returns the index through all files of the first item of a list in a fragment, or in the main file.
    pub(super) fn start(&self, list: &str, fragment: Option<usize>) -> usize {
        let starts = position(&LISTS, list).and_then(|position| self.starts.get(position));
        let index = fragment.unwrap_or(self.fragments.len());
        starts.and_then(|starts| starts.get(index)).copied().unwrap_or_default()
    }

    /// Returns the names in a table, including those of invalid entries.
    pub(super) fn names(&self, table: &str) -> Vec<String> {
        let main = find(&self.main.root, &[table.to_owned()]).and_then(Value::as_dict);
        let mut names: Vec<String> = main.map(|dict| dict.keys().cloned().collect()).unwrap_or_default();
        let owners = position(&TABLES, table).and_then(|position| self.owners.get(position));
        names.extend(owners.into_iter().flat_map(HashMap::keys).map(ToString::to_string));
        names.sort_unstable();
        names
    }

    /// Returns whether a table has an entry with this name, valid or not.
    pub(super) fn defines(&self, table: &str, name: &str) -> bool {
        let main = find(&self.main.root, &[table.to_owned()]).and_then(Value::as_dict);
        let owners = position(&TABLES, table).and_then(|position| self.owners.get(position));
        main.is_some_and(|dict| dict.contains_key(name)) || owners.is_some_and(|owners| owners.contains_key(name))
    }

    /// Returns the number of items of a list in the main file, including invalid ones.
    pub(super) fn main_items(&self, list: &str) -> usize {
        find(&self.main.root, &[list.to_owned()]).and_then(|items| items.as_array()).map_or(0, <[_]>::len)
    }

    /// Converts a path within a file to one through all files.
    pub(super) fn global_path(&self, mut path: Vec<String>, fragment: Option<usize>) -> Vec<String> {
        if path.len() == 1 && fragment.is_some() {
            // The whole table of one file is invalid. Those of the others are not.
            path.push("-".to_owned());
        }
        if let [list, index, ..] = path.as_mut_slice()
            && let Ok(local) = index.parse::<usize>()
            && position(&LISTS, list).is_some()
        {
            *index = (local + self.start(list, fragment)).to_string();
        }
        path
    }

    /// Converts the key of a problem within a file to one through all files.
    pub(super) fn global_key(&self, key: &str, fragment: Option<usize>) -> String {
        let mut segments: Vec<String> = key.split('.').map(str::to_owned).collect();
        if segments.len() > 1 {
            segments = self.global_path(segments, fragment);
        }
        segments.join(".")
    }
}

fn position(tables: &[&str], table: &str) -> Option<usize> {
    tables.iter().position(|known| *known == table)
}

//! Reads a TOML file table by table and collects all its problems, each with its key and line.

use std::cell::{Cell, RefCell};
use std::ops::{Range, RangeInclusive};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use toml_edit::{ImDocument, Item, TableLike, Value};

/// The problems of a file, at least one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct FileError {
    /// The problems in line order, each with its key and line.
    pub problems: Vec<String>,
}

/// A file and its problems.
pub(super) struct Source {
    path: PathBuf,
    text: String,
    problems: RefCell<Vec<(usize, String)>>,
    /// Every key that was read, and whether the file has it.
    #[cfg(test)]
    keys: RefCell<std::collections::BTreeMap<String, bool>>,
}

/// A reader of one table. When dropped, it reports unknown keys: those that were not read.
pub(super) struct Reader<'a> {
    source: &'a Source,
    table: &'a dyn TableLike,
    name: String,
    /// The path of the table, such as `endpoints.east`. Empty for the root.
    path: String,
    /// The path, with `*` for each name.
    pattern: String,
    line: usize,
    read_keys: RefCell<Vec<&'static str>>,
    /// Whether every key is a name, so that none is unknown.
    keys_are_names: Cell<bool>,
}

impl FileError {
    fn text(&self) -> String {
        match self.problems.as_slice() {
            [only] => only.clone(),
            problems => format!("the file has {} problems\n{}", problems.len(), problems.join("\n")),
        }
    }

    /// Creates an error about the whole file.
    pub(super) fn of_file(path: &Path, fact: &str) -> Self {
        Self { problems: vec![format!("{fact} ({})", path.display())] }
    }
}

impl Source {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            problems: RefCell::default(),
            #[cfg(test)]
            keys: RefCell::default(),
        }
    }

    /// Parses the file. The parser reports only the first syntax error.
    pub(super) fn parse(&self) -> Result<ImDocument<&str>, FileError> {
        ImDocument::parse(self.text.as_str()).map_err(|err| {
            let line = err.span().map_or(1, |span| self.line(span.start));
            let fact = err.message().replace('\n', "; ");
            FileError { problems: vec![format!("the file is not valid TOML: {fact} ({}:{line})", self.path.display())] }
        })
    }

    /// Resolves a path relative to the folder of this file.
    pub(super) fn resolve(&self, path: &str) -> PathBuf {
        self.path.parent().map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }

    /// Returns the collected problems as an error, if there are any.
    pub(super) fn finish(&self) -> Result<(), FileError> {
        let mut problems = self.problems.take();
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort();
        Err(FileError { problems: problems.into_iter().map(|(_, problem)| problem).collect() })
    }

    /// Returns the keys that were read and that the file does not have.
    #[cfg(test)]
    pub(super) fn missing_keys(&self) -> Vec<String> {
        self.keys.borrow().iter().filter(|(_, present)| !**present).map(|(key, _)| key.clone()).collect()
    }

    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }

    fn add(&self, line: usize, key: &str, fact: &str) {
        self.problems.borrow_mut().push((line, format!("{key}: {fact} ({}:{line})", self.path.display())));
    }
}

impl<'a> Reader<'a> {
    /// Creates a reader of the root table.
    pub(super) fn root(source: &'a Source, table: &'a dyn TableLike) -> Self {
        Self {
            source,
            table,
            name: String::new(),
            path: String::new(),
            pattern: String::new(),
            line: 1,
            read_keys: RefCell::default(),
            keys_are_names: Cell::new(false),
        }
    }

    /// Returns the file.
    pub(super) const fn source(&self) -> &'a Source {
        self.source
    }

    /// Returns the last part of the table's path.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Reports a problem of a key.
    pub(super) fn problem(&self, key: &str, fact: &str) {
        let span = self.table.get_key_value(key).and_then(|(key, item)| key.span().or_else(|| item.span()));
        let line = span.map_or(self.line, |span| self.source.line(span.start));
        self.source.add(line, &self.key_path(key), fact);
    }

    /// Reports a problem of the whole table.
    pub(super) fn table_problem(&self, fact: &str) {
        self.source.add(self.line, &self.path, fact);
    }

    /// Reports that the value of a key is an unknown name. `what` is the kind of name.
    pub(super) fn unknown_name(&self, key: &str, name: &str, what: &str, known: &[&str]) {
        let hint = match closest(name, known) {
            Some(close) => format!("; did you mean `{close}`?"),
            None if known.is_empty() => String::new(),
            None => format!("; known names are {}", known.join(", ")),
        };
        self.problem(key, &format!("there is no {what} `{name}`{hint}"));
    }

    /// Whether the table has a key.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.item(key).is_some()
    }

    /// Reads a string.
    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        self.value(key, "a string", |value| value.as_str().map(str::to_owned))
    }

    /// Reads a required string. If it is missing or empty, reports that and returns an empty string.
    pub(super) fn required(&self, key: &'static str) -> String {
        if !self.table.contains_key(key) {
            self.problem(key, "is missing");
        } else if self.table.get(key).and_then(Item::as_str) == Some("") {
            self.problem(key, "is empty");
        }
        self.text(key).unwrap_or_default()
    }

    /// Reads a required GUID.
    pub(super) fn guid(&self, key: &'static str) -> String {
        let guid = self.required(key);
        if !guid.is_empty() && !crate::sandbox::crypto::ids::is_guid(&guid) {
            self.problem(key, &format!("`{guid}` is not a GUID"));
        }
        guid
    }

    /// Reads a list of strings.
    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        let read = |value: &Value| value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect();
        self.value(key, "a list of strings", read)
    }

    /// Reads a list of numbers and of ranges as text. Returns each as written, and as a range.
    pub(super) fn ranges(&self, key: &'static str, what: &str) -> Vec<(String, RangeInclusive<usize>)> {
        let range = |value: &Value| {
            if let Some(text) = value.as_str() {
                let (first, last) = text.split_once('-')?;
                return Some((text.to_owned(), first.parse().ok()?..=last.parse().ok()?));
            }
            let number = usize::try_from(value.as_integer()?).ok()?;
            Some((number.to_string(), number..=number))
        };
        self.value(key, what, |value| value.as_array()?.iter().map(range).collect()).unwrap_or_default()
    }

    /// Reads a boolean.
    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        self.value(key, "true or false", Value::as_bool).unwrap_or(default)
    }

    /// Reads an integer.
    pub(super) fn number(&self, key: &'static str) -> Option<i64> {
        self.value(key, "an integer", Value::as_integer)
    }

    /// Reads a port. The default is 0, which selects a free port.
    pub(super) fn port(&self, key: &'static str) -> u16 {
        let read = |value: &Value| u16::try_from(value.as_integer()?).ok();
        self.value(key, "a port from 0 to 65535", read).unwrap_or(0)
    }

    /// Reads a duration.
    pub(super) fn duration(&self, key: &'static str) -> Option<Duration> {
        let read = |value: &Value| humantime::parse_duration(value.as_str()?).ok();
        self.value(key, "a duration such as \"500ms\", \"90s\" or \"1h\"", read)
    }

    /// Reads a string that parses as another type.
    pub(super) fn parsed<T: std::str::FromStr>(&self, key: &'static str, what: &str) -> Option<T> {
        self.value(key, what, |value| value.as_str()?.parse().ok())
    }

    /// Deserializes these keys of the table through JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, keys: &[&'static str]) -> Result<T, serde_json::Error> {
        let fields = keys.iter().filter_map(|key| Some(((*key).to_owned(), item_to_json(self.item(key)?))));
        serde_json::from_value(serde_json::Value::Object(fields.collect()))
    }

    /// Reads a nested table.
    pub(super) fn table(&self, key: &'static str) -> Option<Reader<'a>> {
        let item = self.item(key)?;
        let Some(table) = item.as_table_like() else {
            self.problem(key, "must be a table");
            return None;
        };
        Some(self.child(key, key, table, item))
    }

    /// Reads a table whose keys are names and whose values are tables.
    pub(super) fn named_tables(&self, key: &'static str) -> Vec<Reader<'a>> {
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        self.named_tables_with_rule(key, is_name, "a name has letters, digits, `-` and `_`")
    }

    /// Reads a table whose keys are names that follow a rule and whose values are tables.
    pub(super) fn named_tables_with_rule(
        &self,
        key: &'static str,
        is_name: impl Fn(&str) -> bool,
        rule: &str,
    ) -> Vec<Reader<'a>> {
        let Some(parent) = self.table(key) else { return Vec::new() };
        let mut found = Vec::new();
        for (name, item) in parent.table.iter() {
            if !is_name(name) {
                parent.problem(name, rule);
            }
            match item.as_table_like() {
                Some(table) => found.push(parent.child(name, "*", table, item)),
                None => parent.problem(name, "must be a table"),
            }
        }
        parent.keys_are_names.set(true);
        found
    }

    /// Reads a list of tables: an array of tables, or an array of inline tables.
    pub(super) fn tables(&self, key: &'static str) -> Vec<Reader<'a>> {
        match self.item(key) {
            None => Vec::new(),
            Some(Item::ArrayOfTables(tables)) => {
                let tables = tables.iter().enumerate();
                tables.map(|(index, table)| self.at(&format!("{key}[{index}]"), key, table, table.span())).collect()
            }
            Some(Item::Value(Value::Array(values))) if values.iter().all(Value::is_inline_table) => {
                let tables = values.iter().enumerate();
                let at = |(index, value): (usize, &'a Value)| {
                    Some(self.at(&format!("{key}[{index}]"), key, value.as_inline_table()?, value.span()))
                };
                tables.filter_map(at).collect()
            }
            Some(_) => {
                self.problem(key, "must be a list of tables");
                Vec::new()
            }
        }
    }

    /// Reads a table whose keys are names and whose values are lists of strings. `what` describes an expected value.
    pub(super) fn string_lists(&self, what: &str) -> Vec<(&'a str, Vec<&'a str>)> {
        self.keys_are_names.set(true);
        let mut lists = Vec::new();
        for (name, item) in self.table.iter() {
            let list = item.as_array().map(|list| list.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
            match list {
                Some(Some(list)) => lists.push((name, list)),
                Some(None) | None => self.problem(name, &format!("must be {what}")),
            }
        }
        lists
    }

    fn value<T>(&self, key: &'static str, what: &str, read: impl Fn(&Value) -> Option<T>) -> Option<T> {
        let item = self.item(key)?;
        let found = item.as_value().and_then(read);
        if found.is_none() {
            self.problem(key, &format!("must be {what}"));
        }
        found
    }

    fn item(&self, key: &'static str) -> Option<&'a Item> {
        let item = self.table.get(key);
        self.read_keys.borrow_mut().push(key);
        #[cfg(test)]
        {
            let pattern = if self.pattern.is_empty() { key.to_owned() } else { format!("{}.{key}", self.pattern) };
            *self.source.keys.borrow_mut().entry(pattern).or_default() |= item.is_some();
        }
        item
    }

    fn child(&self, name: &str, pattern: &str, table: &'a dyn TableLike, item: &Item) -> Reader<'a> {
        let key = self.table.get_key_value(name).and_then(|(key, _)| key.span());
        self.at(name, pattern, table, item.span().or(key))
    }

    fn at(&self, name: &str, pattern: &str, table: &'a dyn TableLike, span: Option<Range<usize>>) -> Reader<'a> {
        Reader {
            source: self.source,
            table,
            name: name.to_owned(),
            path: self.key_path(name),
            pattern: if self.pattern.is_empty() { pattern.to_owned() } else { format!("{}.{pattern}", self.pattern) },
            line: span.map_or(self.line, |span| self.source.line(span.start)),
            read_keys: RefCell::default(),
            keys_are_names: Cell::new(false),
        }
    }

    fn key_path(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let read_keys = self.read_keys.borrow();
        for (key, _) in self.table.iter().filter(|(key, _)| !self.keys_are_names.get() && !read_keys.contains(key)) {
            let hint = closest(key, &read_keys).map(|close| format!("; did you mean `{close}`?")).unwrap_or_default();
            self.problem(key, &format!("there is no such key{hint}"));
        }
    }
}

fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let similar = known.iter().map(|known| (strsim::jaro_winkler(word, known), *known));
    let similar = similar.filter(|(similarity, _)| *similarity > 0.8);
    similar.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, known)| known)
}

fn item_to_json(item: &Item) -> serde_json::Value {
    match item {
        Item::None => serde_json::Value::Null,
        Item::Value(value) => value_to_json(value),
        Item::Table(table) => table_to_json(table),
        Item::ArrayOfTables(tables) => tables.iter().map(|table| table_to_json(table)).collect(),
    }
}

fn value_to_json(value: &Value) -> serde_json::Value {
    match value {
        Value::String(text) => text.value().as_str().into(),
        Value::Integer(number) => (*number.value()).into(),
        Value::Float(number) => (*number.value()).into(),
        Value::Boolean(flag) => (*flag.value()).into(),
        Value::Datetime(date) => date.value().to_string().into(),
        Value::Array(values) => values.iter().map(value_to_json).collect(),
        Value::InlineTable(table) => table_to_json(table),
    }
}

fn table_to_json(table: &dyn TableLike) -> serde_json::Value {
    serde_json::Value::Object(table.iter().map(|(key, item)| (key.to_owned(), item_to_json(item))).collect())
}

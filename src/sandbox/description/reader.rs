//! Reads a TOML file table by table and notes everything that is wrong with it, each with its key and its line. Knows
//! no key.

use std::cell::{Cell, RefCell};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use toml_edit::{ImDocument, Item, TableLike, Value};

/// Everything that is wrong with a file. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", self.text())]
pub struct FileError {
    /// The problems, in the order of their lines: each with its key and where it stands.
    pub problems: Vec<String>,
}

/// What is noted while a file is read.
pub(super) struct Notes {
    path: PathBuf,
    text: String,
    problems: RefCell<Vec<(usize, String)>>,
    /// Every key that can be written, and whether it was.
    #[cfg(test)]
    keys: RefCell<std::collections::BTreeMap<String, bool>>,
}

/// One table. Dropped, it notes the keys that nobody asked for.
pub(super) struct Reader<'a> {
    notes: &'a Notes,
    table: &'a dyn TableLike,
    name: String,
    /// The key that leads to it, such as `endpoints.east`; empty for the file as a whole.
    path: String,
    /// As `path`, with `*` for names.
    kind: String,
    line: usize,
    asked: RefCell<Vec<&'static str>>,
    /// Whether every key is good.
    open: Cell<bool>,
}

impl FileError {
    fn text(&self) -> String {
        match self.problems.as_slice() {
            [only] => only.clone(),
            problems => format!("the file has {} problems\n{}", problems.len(), problems.join("\n")),
        }
    }

    /// The file as a whole is no use.
    pub(super) fn whole(path: &Path, fact: &str) -> Self {
        Self { problems: vec![format!("{fact} ({})", path.display())] }
    }
}

impl Notes {
    pub(super) fn new(path: &Path, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            problems: RefCell::default(),
            #[cfg(test)]
            keys: RefCell::default(),
        }
    }

    /// Parses the file. One problem alone can be told of what is no TOML.
    pub(super) fn parse(&self) -> Result<ImDocument<&str>, FileError> {
        ImDocument::parse(self.text.as_str()).map_err(|err| {
            let line = err.span().map_or(1, |span| self.line(span.start));
            let fact = err.message().replace('\n', "; ");
            FileError { problems: vec![format!("the file is not valid TOML: {fact} ({}:{line})", self.path.display())] }
        })
    }

    /// A file that this one names, which is relative to its folder.
    pub(super) fn beside(&self, path: &str) -> PathBuf {
        self.path.parent().map_or_else(|| PathBuf::from(path), |folder| folder.join(path))
    }

    /// What was noted.
    pub(super) fn end(&self) -> Result<(), FileError> {
        let mut problems = self.problems.take();
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort();
        Err(FileError { problems: problems.into_iter().map(|(_, problem)| problem).collect() })
    }

    /// The keys that could have been written and were not.
    #[cfg(test)]
    pub(super) fn unwritten(&self) -> Vec<String> {
        self.keys.borrow().iter().filter(|(_, written)| !**written).map(|(key, _)| key.clone()).collect()
    }

    fn line(&self, offset: usize) -> usize {
        self.text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }

    fn add(&self, line: usize, key: &str, fact: &str) {
        self.problems.borrow_mut().push((line, format!("{key}: {fact} ({}:{line})", self.path.display())));
    }
}

impl<'a> Reader<'a> {
    /// The whole file.
    pub(super) fn root(notes: &'a Notes, table: &'a dyn TableLike) -> Self {
        Self {
            notes,
            table,
            name: String::new(),
            path: String::new(),
            kind: String::new(),
            line: 1,
            asked: RefCell::default(),
            open: Cell::new(false),
        }
    }

    /// The notes of the file.
    pub(super) const fn notes(&self) -> &'a Notes {
        self.notes
    }

    /// The name of the table: the last part of its key.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Notes a problem with a key.
    pub(super) fn problem(&self, key: &str, fact: &str) {
        let span = self.table.get_key_value(key).and_then(|(key, item)| key.span().or_else(|| item.span()));
        let line = span.map_or(self.line, |span| self.notes.line(span.start));
        self.notes.add(line, &self.key(key), fact);
    }

    /// Notes a problem with the table.
    pub(super) fn problem_here(&self, fact: &str) {
        self.notes.add(self.line, &self.path, fact);
    }

    /// Notes that a name is not among those there are.
    pub(super) fn unknown(&self, key: &str, name: &str, what: &str, known: &[&str]) {
        let hint = match closest(name, known) {
            Some(close) => format!("; did you mean `{close}`?"),
            None if known.is_empty() => String::new(),
            None => format!("; there is {}", known.join(", ")),
        };
        self.problem(key, &format!("there is no {what} `{name}`{hint}"));
    }

    /// Whether a key is written.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.item(key).is_some()
    }

    /// Text.
    pub(super) fn text(&self, key: &'static str) -> Option<String> {
        self.value(key, "text", |value| value.as_str().map(str::to_owned))
    }

    /// Text that must be there. Empty if it is not, which is noted.
    pub(super) fn needed(&self, key: &'static str) -> String {
        if !self.table.contains_key(key) {
            self.problem(key, "is missing");
        } else if self.table.get(key).and_then(Item::as_str) == Some("") {
            self.problem(key, "is empty");
        }
        self.text(key).unwrap_or_default()
    }

    /// A GUID that must be there.
    pub(super) fn guid(&self, key: &'static str) -> String {
        let guid = self.needed(key);
        if !guid.is_empty() && !crate::sandbox::crypto::ids::is_guid(&guid) {
            self.problem(key, &format!("`{guid}` is not a GUID"));
        }
        guid
    }

    /// A list of texts.
    pub(super) fn texts(&self, key: &'static str) -> Option<Vec<String>> {
        let read = |value: &Value| value.as_array()?.iter().map(|item| item.as_str().map(str::to_owned)).collect();
        self.value(key, "a list of texts", read)
    }

    /// A truth value.
    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        self.value(key, "true or false", Value::as_bool).unwrap_or(default)
    }

    /// A whole number.
    pub(super) fn number(&self, key: &'static str) -> Option<i64> {
        self.value(key, "a whole number", Value::as_integer)
    }

    /// A port; 0, a free one, if it is not there.
    pub(super) fn port(&self, key: &'static str) -> u16 {
        let read = |value: &Value| u16::try_from(value.as_integer()?).ok();
        self.value(key, "a port from 0 to 65535", read).unwrap_or(0)
    }

    /// A duration.
    pub(super) fn duration(&self, key: &'static str) -> Option<Duration> {
        let read = |value: &Value| humantime::parse_duration(value.as_str()?).ok();
        self.value(key, "a duration such as \"500ms\", \"90s\" or \"1h\"", read)
    }

    /// Text that reads as something else.
    pub(super) fn parsed<T: std::str::FromStr>(&self, key: &'static str, what: &str) -> Option<T> {
        self.value(key, what, |value| value.as_str()?.parse().ok())
    }

    /// All of this table, as what can be read of JSON.
    pub(super) fn json<T: DeserializeOwned>(&self, keys: &[&'static str]) -> Result<T, serde_json::Error> {
        let fields = keys.iter().filter_map(|key| Some(((*key).to_owned(), item_to_json(self.item(key)?))));
        serde_json::from_value(serde_json::Value::Object(fields.collect()))
    }

    /// A table inside this one.
    pub(super) fn table(&self, key: &'static str) -> Option<Reader<'a>> {
        let item = self.item(key)?;
        let Some(table) = item.as_table_like() else {
            self.problem(key, "must be a table");
            return None;
        };
        Some(self.inner(key, key, table, item))
    }

    /// The tables inside a table, each by a name that its author chose.
    pub(super) fn named(&self, key: &'static str) -> Vec<Reader<'a>> {
        let is_name = |name: &str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        self.named_as(key, is_name, "a name has letters, digits, `-` and `_`")
    }

    /// As [`Self::named`], by names that keep to a rule of their own.
    pub(super) fn named_as(&self, key: &'static str, is_name: impl Fn(&str) -> bool, rule: &str) -> Vec<Reader<'a>> {
        let Some(around) = self.table(key) else {
            // Asked for all the same, so that what it may have in it is known.
            return Vec::new();
        };
        let mut found = Vec::new();
        for (name, item) in around.table.iter() {
            if !is_name(name) {
                around.problem(name, rule);
            }
            match item.as_table_like() {
                Some(table) => found.push(around.inner(name, "*", table, item)),
                None => around.problem(name, "must be a table"),
            }
        }
        around.open.set(true);
        found
    }

    /// A list of tables, written either way.
    pub(super) fn list(&self, key: &'static str) -> Vec<Reader<'a>> {
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

    /// The table as it stands, whose keys are names, each with a list of texts: `what` they are is told of others.
    pub(super) fn lists(&self, what: &str) -> Vec<(&'a str, Vec<&'a str>)> {
        self.open.set(true);
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
        self.asked.borrow_mut().push(key);
        #[cfg(test)]
        {
            let kind = if self.kind.is_empty() { key.to_owned() } else { format!("{}.{key}", self.kind) };
            *self.notes.keys.borrow_mut().entry(kind).or_default() |= item.is_some();
        }
        item
    }

    fn inner(&self, name: &str, kind: &str, table: &'a dyn TableLike, item: &Item) -> Reader<'a> {
        let key = self.table.get_key_value(name).and_then(|(key, _)| key.span());
        self.at(name, kind, table, item.span().or(key))
    }

    fn at(&self, name: &str, kind: &str, table: &'a dyn TableLike, span: Option<Range<usize>>) -> Reader<'a> {
        Reader {
            notes: self.notes,
            table,
            name: name.to_owned(),
            path: self.key(name),
            kind: if self.kind.is_empty() { kind.to_owned() } else { format!("{}.{kind}", self.kind) },
            line: span.map_or(self.line, |span| self.notes.line(span.start)),
            asked: RefCell::default(),
            open: Cell::new(false),
        }
    }

    fn key(&self, key: &str) -> String {
        if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        let asked = self.asked.borrow();
        for (key, _) in self.table.iter().filter(|(key, _)| !self.open.get() && !asked.contains(key)) {
            let hint = closest(key, &asked).map(|close| format!(", did you mean `{close}`?")).unwrap_or_default();
            self.problem(key, &format!("there is no such key{hint}"));
        }
    }
}

fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let likeness = known.iter().map(|known| (strsim::jaro_winkler(word, known), *known));
    let close = likeness.filter(|(likeness, _)| *likeness > 0.8);
    close.max_by(|(one, _), (other, _)| one.total_cmp(other)).map(|(_, known)| known)
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

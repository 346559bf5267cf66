//! One parsed TOML file: its values, and the line of each key.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use figment::value::{Dict, Value};
use toml_edit::{Array, ArrayOfTables, ImDocument, Item, Table, TableLike};

use super::problem::Problem;
use super::syntax;

/// A parsed file.
#[derive(Debug)]
pub(super) struct Document {
    path: PathBuf,
    parsed: ImDocument<Arc<str>>,
    /// The offset of each line break.
    line_breaks: Vec<usize>,
}

impl Document {
    /// Parses a file.
    ///
    /// # Errors
    /// The first syntax error. The parser does not continue after one.
    pub(super) fn parse(path: &Path, text: String) -> Result<Self, Problem> {
        let bytes = text.bytes().enumerate();
        let line_breaks: Vec<usize> = bytes.filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset).collect();
        let text: Arc<str> = text.into();
        match ImDocument::parse(Arc::clone(&text)) {
            Ok(parsed) => Ok(Self { path: path.to_owned(), parsed, line_breaks }),
            Err(err) => Err(syntax::problem(path, &text, &err)),
        }
    }

    /// Returns the path of the file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the top-level table.
    pub(super) fn table(&self) -> &Table {
        self.parsed.as_table()
    }

    /// Converts the file to figment's values. Dates become text; no key takes one.
    pub(super) fn values(&self) -> Dict {
        dict(self.table())
    }

    /// Returns the line of a key, or of the nearest enclosing table.
    pub(super) fn line(&self, path: &[String]) -> Option<usize> {
        let mut node = Node::Table(self.table());
        let mut found = None;
        for segment in path {
            let Some((span, next)) = node.child(segment) else { break };
            found = span.or(found);
            node = next;
        }
        Some(line_at(&self.line_breaks, found?.start))
    }

    /// Returns the names of the variables that contain secrets.
    pub(super) fn secret_variables(&self) -> Vec<String> {
        let mut found = Vec::new();
        secret_variables(self.table(), &mut found);
        found
    }
}

/// Returns the number of the line that contains an offset.
fn line_at(line_breaks: &[usize], offset: usize) -> usize {
    line_breaks.partition_point(|line_break| *line_break < offset) + 1
}

fn dict(table: &dyn TableLike) -> Dict {
    table.iter().map(|(key, item)| (key.to_owned(), value(item))).collect()
}

fn value(item: &Item) -> Value {
    match item {
        Item::None => Value::from(Dict::new()),
        Item::Table(table) => Value::from(dict(table)),
        Item::ArrayOfTables(tables) => {
            Value::from(tables.iter().map(|table| Value::from(dict(table))).collect::<Vec<_>>())
        }
        Item::Value(value) => scalar(value),
    }
}

fn scalar(value: &toml_edit::Value) -> Value {
    match value {
        toml_edit::Value::String(text) => Value::from(text.value().as_str()),
        toml_edit::Value::Integer(number) => Value::from(*number.value()),
        toml_edit::Value::Float(number) => Value::from(*number.value()),
        toml_edit::Value::Boolean(flag) => Value::from(*flag.value()),
        toml_edit::Value::Datetime(date) => Value::from(date.value().to_string()),
        toml_edit::Value::Array(array) => Value::from(array.iter().map(scalar).collect::<Vec<_>>()),
        toml_edit::Value::InlineTable(table) => Value::from(dict(table)),
    }
}

fn secret_variables(table: &dyn TableLike, found: &mut Vec<String>) {
    for (key, item) in table.iter() {
        match item.as_table_like() {
            Some(table) => secret_variables(table, found),
            None if key == "env" => found.extend(item.as_str().map(str::to_owned)),
            None => {}
        }
    }
}

/// A node of the parsed file.
#[derive(Clone, Copy)]
enum Node<'d> {
    Table(&'d dyn TableLike),
    ArrayOfTables(&'d ArrayOfTables),
    List(&'d Array),
    Leaf,
}

impl<'d> Node<'d> {
    fn of_item(item: &'d Item) -> Self {
        match item {
            Item::Table(table) => Self::Table(table),
            Item::ArrayOfTables(tables) => Self::ArrayOfTables(tables),
            Item::Value(value) => Self::of_value(value),
            Item::None => Self::Leaf,
        }
    }

    fn of_value(value: &'d toml_edit::Value) -> Self {
        match value {
            toml_edit::Value::InlineTable(table) => Self::Table(table),
            toml_edit::Value::Array(list) => Self::List(list),
            toml_edit::Value::String(_)
            | toml_edit::Value::Integer(_)
            | toml_edit::Value::Float(_)
            | toml_edit::Value::Boolean(_)
            | toml_edit::Value::Datetime(_) => Self::Leaf,
        }
    }

    fn child(self, segment: &str) -> Option<(Option<Range<usize>>, Self)> {
        match self {
            Self::Table(table) => {
                let (key, item) = table.get_key_value(segment)?;
                Some((key.span().or_else(|| item.span()), Self::of_item(item)))
            }
            Self::ArrayOfTables(tables) => {
                let table = tables.get(segment.parse().ok()?)?;
                Some((table.span(), Self::Table(table)))
            }
            Self::List(list) => {
                let value = list.get(segment.parse().ok()?)?;
                Some((value.span(), Self::of_value(value)))
            }
            Self::Leaf => None,
        }
    }
}

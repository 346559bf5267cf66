//! The sources of a configuration: defaults, file, environment and flags, each of which overrides those before it. Merges them
//! and keeps the origin of each value.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};

use figment::providers::Serialized;
use figment::value::{Dict, Map, Value};
use figment::{Figment, Metadata, Profile, Provider};
use toml_edit::{Array, ArrayOfTables, ImDocument, Item, Table, TableLike};

use super::file::ConfigFile;
use super::problem::{ConfigError, Origin, Problem};
use crate::files::{self, FileError, MAX_FILE_BYTES};
use crate::redact;

/// The prefix of the environment variables that set configuration keys.
pub const PREFIX: &str = "SIGNALR_GATEWAY_";
/// The variables with the prefix that set no key.
const NOT_KEYS: [&str; 1] = ["SIGNALR_GATEWAY_CONFIG"];

/// The sources of a configuration.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// The TOML file.
    pub file: Option<PathBuf>,
    /// The whole environment. Variables with the prefix set keys; the others may contain secrets.
    pub environment: BTreeMap<String, String>,
    /// Flags: a key such as `limits.max_body` and a value.
    pub overrides: Vec<(String, String)>,
}

impl Sources {
    /// Returns the sources of this process: a file, its environment and its flags.
    pub fn of_process(file: Option<PathBuf>, overrides: Vec<(String, String)>) -> Self {
        // Skips variables that are not Unicode: no key is set by one.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { file, environment, overrides }
    }

    /// Returns the folder that relative paths in the file are relative to.
    pub(super) fn folder(&self) -> PathBuf {
        self.file.as_deref().and_then(Path::parent).map(Path::to_owned).unwrap_or_default()
    }

    /// Iterates over the variables that set keys, ordered by name.
    fn configuration_variables(&self, file: Option<&Table>) -> impl Iterator<Item = (&str, &str)> {
        let mut secrets = Vec::new();
        if let Some(table) = file {
            secret_variables(table, &mut secrets);
        }
        self.environment.iter().map(|(name, value)| (name.as_str(), value.as_str())).filter(move |(name, value)| {
            let is_ours = name.starts_with(PREFIX) && !NOT_KEYS.contains(name) && !is_service_link(name, value);
            is_ours && !secrets.iter().any(|secret| secret == name)
        })
    }

    /// Reads the file for the first time, if there is one. Waits for the writer if it is a pipe.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot be read.
    pub fn read(&self) -> Result<Option<String>, ConfigError> {
        let Some(path) = &self.file else { return Ok(None) };
        let text = files::read_blocking_or_pipe(path).map_err(|err| unreadable(path, err))?;
        Ok(Some(text.text.expose().to_owned()))
    }

    /// Reads the file again. Accepts only a regular file: opening anything else could block forever.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot be read.
    pub fn read_again(&self) -> Result<Option<String>, ConfigError> {
        let Some(path) = &self.file else { return Ok(None) };
        let text = files::read_blocking(path).map_err(|err| {
            if let FileError::NotAFile { kind, .. } = &err
                && *kind != "a folder"
            {
                let shown = path.display();
                let fact = format!(
                    "the configuration {shown} is not a regular file but {kind}, which was read once and cannot be reloaded"
                );
                return file_problem(fact, "put it into a regular file, or restart the gateway");
            }
            unreadable(path, err)
        })?;
        Ok(Some(text.text.expose().to_owned()))
    }

    /// Merges the sources; `text` is the content of the file.
    pub(super) fn merge(&self, text: Option<String>) -> Result<Merged, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(ConfigFile::default()));
        let mut document = None;
        if let (Some(path), Some(text)) = (&self.file, text) {
            let parsed = ImDocument::parse(text.clone()).map_err(|err| syntax_error(path, &text, &err))?;
            figment = figment.merge(ParsedValues {
                metadata: Metadata::from("file", path.as_path()),
                nested: dict(parsed.as_table()),
            });
            document = Some((path.clone(), parsed));
        }
        let table = document.as_ref().map(|(_, parsed)| parsed.as_table());
        for (name, value) in self.configuration_variables(table) {
            let key = key_of_variable(name.strip_prefix(PREFIX).unwrap_or(name), table);
            figment = figment.merge(ParsedValues::new(Metadata::from(ENVIRONMENT, name), &key, value));
        }
        for (key, value) in &self.overrides {
            figment = figment.merge(ParsedValues::new(Metadata::from(FLAG, key.as_str()), key, value));
        }
        let root = figment.find_value("").unwrap_or_else(|_empty| Value::from(Dict::new()));
        Ok(Merged { root, figment, document })
    }
}

const ENVIRONMENT: &str = "environment";
const FLAG: &str = "flag";

/// A figment provider of values that were already parsed.
struct ParsedValues {
    metadata: Metadata,
    nested: Dict,
}

impl ParsedValues {
    fn new(metadata: Metadata, key: &str, value: &str) -> Self {
        let nested = figment::util::nest(key, Value::from(value)).into_dict().unwrap_or_default();
        Self { metadata, nested }
    }
}

impl Provider for ParsedValues {
    fn metadata(&self) -> Metadata {
        self.metadata.clone()
    }

    fn data(&self) -> figment::Result<Map<Profile, Dict>> {
        Ok(Map::from([(Profile::Default, self.nested.clone())]))
    }
}

/// Converts a TOML table to figment's values. Dates become text; no key takes one.
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

/// Returns the problem of a configuration file that cannot be read.
fn unreadable(path: &Path, err: FileError) -> ConfigError {
    let shown = path.display();
    let fix = "give the path of a TOML file with --config";
    match err {
        FileError::Unreadable { source, .. } => {
            file_problem(format!("the configuration file {shown} cannot be read: {source}"), fix)
        }
        FileError::NotAFile { kind, .. } => {
            file_problem(format!("{shown} is {kind}, must be the configuration file"), fix)
        }
        FileError::TooLarge { .. } => file_problem(format!("{shown} is larger than {MAX_FILE_BYTES} bytes"), fix),
        FileError::NotText { .. } => file_problem(format!("{shown} is not UTF-8 text"), fix),
        FileError::Utf16 { .. } => file_problem(
            format!("{shown} is UTF-16, must be UTF-8"),
            "save it as UTF-8 in your editor, or with `iconv`",
        ),
        err @ FileError::Timeout { .. } => file_problem(err.to_string(), fix),
    }
}

/// Returns a problem of the whole file. The fact names the file.
fn file_problem(fact: String, fix: &str) -> ConfigError {
    ConfigError::single(Problem { key: String::new(), fact, origin: None, fix: fix.to_owned() })
}

fn syntax_error(path: &Path, text: &str, err: &toml_edit::TomlError) -> ConfigError {
    // The library's full message quotes the line, which may contain a secret.
    let message = redact::prose(&err.message().replace('\n', "; "), &redact::SentSecrets::default());
    let fact = format!("the file is not valid TOML: {message}");
    let line = err.span().and_then(|span| line_of(text, span.start));
    let (origin, fix) = (Some(Origin::File(path.to_owned(), line)), "correct the line".to_owned());
    ConfigError::single(Problem { key: String::new(), fact, origin, fix })
}

fn line_of(text: &str, offset: usize) -> Option<usize> {
    Some(text.get(..offset)?.bytes().filter(|byte| *byte == b'\n').count() + 1)
}

/// The merged values, and the origin of each.
pub(super) struct Merged {
    pub(super) root: Value,
    figment: Figment,
    document: Option<(PathBuf, ImDocument<String>)>,
}

impl Merged {
    /// Returns the origin of the value at `path`.
    pub(super) fn origin(&self, path: &[String], value: &Value) -> Option<Origin> {
        let metadata = self.figment.get_metadata(value.tag())?;
        Some(match &*metadata.name {
            ENVIRONMENT => Origin::Variable(metadata.source.as_ref()?.custom()?.to_owned()),
            FLAG => Origin::Flag(format!("--set {}", metadata.source.as_ref()?.custom()?)),
            "file" => {
                let (file, _) = self.document.as_ref()?;
                Origin::File(file.clone(), self.line(path))
            }
            _ => Origin::Default,
        })
    }

    /// Returns whether there is a file.
    pub(super) fn has_file(&self) -> bool {
        self.document.is_some()
    }

    /// Returns whether a value comes from a variable or a flag, whose values are untyped text.
    pub(super) fn is_untyped(&self, value: &Value) -> bool {
        let metadata = self.figment.get_metadata(value.tag());
        metadata.is_some_and(|metadata| [ENVIRONMENT, FLAG].contains(&&*metadata.name))
    }

    /// Returns the line of a key in the file, or of the nearest enclosing table.
    fn line(&self, path: &[String]) -> Option<usize> {
        let (_, document) = self.document.as_ref()?;
        let mut node = Node::Table(document.as_table());
        let mut found = None;
        for segment in path {
            let Some((span, next)) = node.child(segment) else { break };
            found = span.or(found);
            node = next;
        }
        line_of(document.raw(), found?.start)
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

/// Returns the key that a variable sets, in which `__` separates levels. Names that the file defines match in any case and with `_`
/// for `-`, because variables are upper case by convention and cannot contain `-`.
fn key_of_variable(name: &str, file: Option<&Table>) -> String {
    let mut table = file.map(|table| table as &dyn TableLike);
    let mut key = String::new();
    for segment in name.split("__") {
        let segment = segment.to_ascii_lowercase();
        let is_same = |known: &str| known.to_ascii_lowercase().replace('-', "_") == segment;
        let known = table.and_then(|table| table.iter().find(|(known, _)| is_same(known)));
        if !key.is_empty() {
            key.push('.');
        }
        key.push_str(known.map_or(segment.as_str(), |(known, _)| known));
        table = known.and_then(|(_, item)| item.as_table_like());
    }
    key
}

/// Collects the names of the variables that contain secrets.
fn secret_variables(table: &dyn TableLike, found: &mut Vec<String>) {
    for (key, item) in table.iter() {
        match item.as_table_like() {
            Some(table) => secret_variables(table, found),
            None if key == "env" => found.extend(item.as_str().map(str::to_owned)),
            None => {}
        }
    }
}

/// Returns whether Kubernetes sets a variable for a service whose name begins with `signalr-gateway`.
///
/// The forms are `…_SERVICE_HOST`, `…_SERVICE_PORT[_HTTP]`, `…_PORT=tcp://…` and `…_PORT_80_TCP[_ADDR]`. No variable that sets a
/// key has them.
///
/// Source: kubernetes.io, "Accessing the Service", environment variables.
fn is_service_link(name: &str, value: &str) -> bool {
    let is_port = |rest: &str| rest.split_once('_').is_some_and(|(port, _)| port.parse::<u16>().is_ok());
    name.ends_with("_SERVICE_HOST")
        || name.contains("_SERVICE_PORT")
        || (name.ends_with("_PORT") && value.contains("://"))
        || name.rsplit_once("_PORT_").is_some_and(|(_, rest)| is_port(rest))
}

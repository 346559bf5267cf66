//! The sources of a configuration: defaults, files, environment and flags, each of which overrides those before it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Component, Path, PathBuf};

use toml_edit::{Table, TableLike};

use super::merged::Override;
use super::problem::{ConfigError, Origin, Problem, is_stdin};
use crate::files::{self, FileError, Stamp};

/// The prefix of the environment variables that set configuration keys.
pub const PREFIX: &str = "SIGNALR_GATEWAY_";
/// The variables with the prefix that set no key.
const NOT_KEYS: [&str; 1] = ["SIGNALR_GATEWAY_CONFIG"];

/// The maximum size of a configuration file. Chosen: more than 10,000 endpoints with a route and a credential each.
const MAX_FILE_BYTES: usize = 64 * 1024 * 1024;

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

    /// Returns the absolute path of the file; `None` if there is none, or if it is standard input.
    pub(super) fn absolute_file(&self) -> Option<PathBuf> {
        let file = self.file.as_deref().filter(|file| !is_stdin(file))?;
        Some(std::path::absolute(file).unwrap_or_else(|_invalid| file.to_owned()))
    }

    /// Returns that folder in one spelling, so that equal configurations have equal hashes however `--config` is typed.
    pub(super) fn absolute_folder(&self) -> PathBuf {
        let folder = self.folder();
        let Ok(absolute) = std::path::absolute(Path::new(".").join(&folder)) else { return folder };
        if !absolute.components().any(|part| part == Component::ParentDir) {
            return absolute;
        }
        let mut plain = PathBuf::new();
        for part in absolute.components() {
            if part == Component::ParentDir {
                plain.pop();
            } else {
                plain.push(part);
            }
        }
        // `..` behind a symbolic link leads elsewhere. Links are kept where they can be: one may be replaced.
        match (plain.canonicalize(), absolute.canonicalize()) {
            (Ok(plain_target), Ok(target)) if plain_target == target => plain,
            (_, Ok(target)) => target,
            (_, Err(_)) => absolute,
        }
    }

    /// Returns the values that variables, ordered by name, and flags set. Each overrides those before it. `secrets` are the
    /// names of variables that contain secrets and therefore set no key.
    pub(super) fn overrides(
        &self,
        secrets: &HashSet<&str>,
        file: Option<&Table>,
        names: &IncludedNames<'_>,
    ) -> Overrides {
        let mut overrides = Overrides::default();
        for (name, value) in &self.environment {
            let Some(suffix) = name.strip_prefix(PREFIX) else { continue };
            if NOT_KEYS.contains(&name.as_str()) || is_service_link(name, value) || secrets.contains(name.as_str()) {
                continue;
            }
            let key = key_of_variable(suffix, file, names);
            let variable = Some(name.clone());
            overrides.add(&key, Override { key: key.join("."), value: value.clone(), variable }, file, names);
        }
        for (key, value) in &self.overrides {
            let segments: Vec<String> = key.split('.').map(str::to_owned).collect();
            overrides.add(&segments, Override { key: key.clone(), value: value.clone(), variable: None }, file, names);
        }
        overrides
    }

    /// Returns whether the file is stdin.
    pub(super) fn is_stdin(&self) -> bool {
        self.file.as_deref().is_some_and(is_stdin)
    }

    /// Reads the file for the first time, if there is one. Waits for the writer if it is a pipe or stdin.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot be read.
    pub fn read(&self) -> Result<Option<String>, ConfigError> {
        let Some(path) = &self.file else { return Ok(None) };
        let opened = if is_stdin(path) { Path::new("/dev/stdin") } else { path };
        let text = files::read_blocking_or_pipe(opened, MAX_FILE_BYTES).map_err(|err| unreadable(path, err))?;
        Ok(Some(text.text.expose().to_owned()))
    }

    /// Reads the file again. Accepts only a regular file: opening anything else could block forever.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot be read.
    pub fn read_again(&self) -> Result<Option<String>, ConfigError> {
        let Some(path) = &self.file else { return Ok(None) };
        if is_stdin(path) {
            let fact = "the configuration came from stdin, which was read once and cannot be reloaded".to_owned();
            return Err(file_problem(fact, "put it into a file, or restart the gateway"));
        }
        let text = files::read_blocking_up_to(path, MAX_FILE_BYTES).map_err(|err| {
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
}

/// The values that variables and flags set.
#[derive(Debug, Default)]
pub(super) struct Overrides {
    /// Those of keys of the main file.
    pub(super) main: Vec<Override>,
    /// Those of entries that an included file defines, by the index of the file.
    pub(super) included: HashMap<usize, Vec<Override>>,
}

impl Overrides {
    fn add(&mut self, key: &[String], value: Override, file: Option<&Table>, names: &IncludedNames<'_>) {
        let owner = match key {
            [table, name, _, ..] => {
                let in_main = file.and_then(|file| file.get(table)).and_then(|item| item.as_table_like());
                let is_in_main = in_main.is_some_and(|entries| entries.contains_key(name));
                names.of_table(table).get(name.as_str()).filter(|_| !is_in_main)
            }
            _ => None,
        };
        match owner {
            Some(index) => self.included.entry(*index).or_default().push(value),
            None => self.main.push(value),
        }
    }
}

/// Returns the problem of a configuration file that cannot be read.
fn unreadable(path: &Path, err: FileError) -> ConfigError {
    let shown = Origin::File(path.to_owned(), None);
    let fix = "give the path of a TOML file with --config";
    match err {
        FileError::Unreadable { source, .. } => {
            file_problem(format!("the configuration file {shown} cannot be read: {source}"), fix)
        }
        FileError::NotAFile { kind, .. } => {
            file_problem(format!("{shown} is {kind}, must be the configuration file"), fix)
        }
        FileError::TooLarge { limit, .. } => file_problem(format!("{shown} is larger than {limit} bytes"), fix),
        FileError::NotText { .. } => file_problem(format!("{shown} is not UTF-8 text"), fix),
        FileError::Utf16 { .. } => file_problem(
            format!("{shown} is UTF-16, must be UTF-8"),
            "save it as UTF-8 in your editor, or with `iconv`",
        ),
        err @ FileError::Timeout { .. } => file_problem(err.to_string(), fix),
    }
}

/// Reads an included file. Returns its text, and its metadata when it was opened.
///
/// # Errors
/// The reason why it cannot be read.
pub(super) fn read_included(path: &Path) -> Result<(String, Stamp), Problem> {
    let file = files::read_blocking_up_to(path, MAX_FILE_BYTES).map_err(|err| {
        let (fact, fix) = match err {
            FileError::Unreadable { source, .. } => (
                format!("the included file cannot be read: {source}"),
                "check that it exists and that the gateway's user may read it",
            ),
            FileError::NotAFile { kind, .. } => {
                (format!("is {kind}, must be a file"), "remove it, or change `include`")
            }
            FileError::TooLarge { limit, .. } => {
                (format!("is larger than {limit} bytes"), "split it, or change `include`")
            }
            FileError::NotText { .. } => ("is not UTF-8 text".to_owned(), "save it as UTF-8, or change `include`"),
            FileError::Utf16 { .. } => ("is UTF-16, must be UTF-8".to_owned(), "save it as UTF-8"),
            err @ FileError::Timeout { .. } => (err.to_string(), "check the file system"),
        };
        Problem { key: String::new(), fact, origin: Some(Origin::File(path.to_owned(), None)), fix: fix.to_owned() }
    })?;
    Ok((file.text.expose().to_owned(), file.stamp))
}

/// Returns a problem of the whole file. The fact names the file.
fn file_problem(fact: String, fix: &str) -> ConfigError {
    ConfigError::single(Problem { key: String::new(), fact, origin: None, fix: fix.to_owned() })
}

/// Returns the segments of the key that a variable sets, in which `__` separates levels. Names that the main file or an included
/// one defines match in any case and with `_` for `-`, because variables are upper case by convention and cannot contain `-`.
fn key_of_variable(name: &str, file: Option<&Table>, names: &IncludedNames<'_>) -> Vec<String> {
    let mut table = file.map(|table| table as &dyn TableLike);
    let mut key: Vec<String> = Vec::new();
    for segment in name.split("__") {
        let segment = segment.to_ascii_lowercase();
        let is_same = |known: &str| known.to_ascii_lowercase().replace('-', "_") == segment;
        let known = table.and_then(|table| table.iter().find(|(known, _)| is_same(known)));
        let included = match key.as_slice() {
            [table] if known.is_none() => names.of_table(table).keys().find(|known| is_same(known)),
            _ => None,
        };
        let known_name = known.map(|(known, _)| known).or(included.map(|known| &**known));
        key.push(known_name.unwrap_or(&segment).to_owned());
        table = known.and_then(|(_, item)| item.as_table_like());
    }
    key
}

/// The names that included files define, and the index of the file.
#[derive(Debug, Default)]
pub(super) struct IncludedNames<'n> {
    pub(super) endpoints: HashMap<&'n str, usize>,
    pub(super) credentials: HashMap<&'n str, usize>,
    /// For tables without names.
    pub(super) none: HashMap<&'n str, usize>,
}

impl<'n> IncludedNames<'n> {
    fn of_table(&self, table: &str) -> &HashMap<&'n str, usize> {
        match table {
            "endpoints" => &self.endpoints,
            "credentials" => &self.credentials,
            _ => &self.none,
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

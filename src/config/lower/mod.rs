//! From what the operator wrote to settings: reads durations, sizes and addresses, resolves names, checks what the
//! gateway would trip over later. Collects every problem instead of stopping at the first. Reads no secret.

mod credential;
mod endpoint;
mod listener;
mod route;
mod values;

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::value::Value;

use super::file::{AccessFile, ConfigFile, FormatFile, MessageRetryFile, RetryFile};
use super::problem::{Problem, did_you_mean};
use super::sources::Merged;
use crate::gateway::{LogFormat, LoggingSettings, Settings};
use crate::proxy::{AccessLog, MessageRetry, ProxySettings, RetrySettings};
use crate::serve::ServeSettings;

/// The most workers that make sense on any machine.
const MAX_WORKERS: u32 = 1024;
/// What the connection's read buffer leaves room for.
const MAX_HEADER: u64 = 64 * 1024;
/// A request body is kept until it is answered, so this bounds memory.
const MAX_BODY: u64 = 64 * 1024 * 1024;

/// More than anybody would wait for.
const MAX_ATTEMPTS: u32 = 10;

/// Names a value by its path.
type Key = Vec<String>;

/// What lowering needs beside the file: where values stand, what is around, and the list of problems.
pub(super) struct Context<'a> {
    merged: &'a Merged,
    environment: &'a BTreeMap<String, String>,
    folder: PathBuf,
    pub(super) problems: Vec<Problem>,
    /// What is worth saying and does not stop anything.
    pub(super) warnings: Vec<Problem>,
}

impl<'a> Context<'a> {
    pub(super) fn new(merged: &'a Merged, environment: &'a BTreeMap<String, String>, folder: PathBuf) -> Self {
        Self { merged, environment, folder, problems: Vec::new(), warnings: Vec::new() }
    }

    fn note(&self, key: &[String], fact: impl Into<String>, fix: Option<String>) -> Problem {
        // What stands at the key, or at the nearest table around it.
        let origin = (0..=key.len()).rev().find_map(|length| {
            let path = key.get(..length)?;
            let value = find(&self.merged.root, path)?;
            self.merged.origin(path, value)
        });
        Problem { key: key.join("."), fact: fact.into(), origin, fix }
    }

    fn problem(&mut self, key: &[String], fact: impl Into<String>, fix: Option<String>) {
        let problem = self.note(key, fact, fix);
        self.problems.push(problem);
    }

    /// Returns a path as the process sees it: relative ones are relative to the file's folder.
    fn path(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    /// Returns a path of a file that must be there.
    fn existing(&mut self, key: &[String], path: &Path) -> PathBuf {
        let path = self.path(path);
        if let Err(err) = std::fs::File::open(&path) {
            self.problem(key, format!("the file {} cannot be read: {err}", path.display()), None);
        }
        path
    }

    /// Returns the names that stand in a table, those whose entries were refused too: referring to them is no mistake.
    fn names(&self, table: &str) -> Vec<String> {
        let dict = find(&self.merged.root, &[table.to_owned()]).and_then(Value::as_dict);
        dict.map(|dict| dict.keys().cloned().collect()).unwrap_or_default()
    }

    /// Checks that `name` is one of a table's names.
    fn refers_to(&mut self, key: &[String], table: &str, name: &str) {
        let names = self.names(table);
        if !names.iter().any(|known| known == name) {
            let fix = did_you_mean(name, names.iter().map(String::as_str))
                .unwrap_or_else(|| format!("define it as [{table}.{name}], or name one that exists"));
            self.problem(key, format!("there is no `{name}` among the {table}"), Some(fix));
        }
    }

    /// Checks a name that becomes a metric label.
    fn is_name(&mut self, key: &[String], name: &str) {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if name.is_empty() || name.len() > 64 || !name.bytes().all(is_plain) {
            let fix = "names have 1 to 64 letters, digits, `-` and `_`".to_owned();
            self.problem(key, format!("`{name}` is not a name"), Some(fix));
        }
    }

    /// Reads a duration that must not be zero.
    fn duration(&mut self, key: &[String], text: &str) -> Duration {
        let duration = self.duration_or_zero(key, text);
        if duration.is_zero() && humantime::parse_duration(text).is_ok() {
            self.problem(key, "must be longer than nothing", None);
        }
        duration
    }

    fn duration_or_zero(&mut self, key: &[String], text: &str) -> Duration {
        match humantime::parse_duration(text) {
            Ok(duration) => duration,
            Err(_unreadable) => {
                let fix = "write a number and a unit, such as `500ms`, `10s` or `2m`".to_owned();
                self.problem(key, format!("`{text}` is not a duration"), Some(fix));
                Duration::ZERO
            }
        }
    }
}

/// Returns what stands at a path.
fn find<'v>(root: &'v Value, path: &[String]) -> Option<&'v Value> {
    path.iter().try_fold(root, |value, segment| match value {
        Value::Dict(_, dict) => dict.get(segment),
        Value::Array(_, items) => items.get(segment.parse::<usize>().ok()?),
        Value::String(..) | Value::Char(..) | Value::Bool(..) | Value::Num(..) | Value::Empty(..) => None,
    })
}

/// Makes the path of a key.
fn key(segments: &[&str]) -> Key {
    segments.iter().map(|segment| (*segment).to_owned()).collect()
}

/// Lowers a file. The settings are complete only if `context.problems` is empty.
pub(super) fn lower(file: &ConfigFile, context: &mut Context<'_>) -> Settings {
    let listeners = listener::lower(file, context);
    let admin = listener::lower_admin(&file.admin, context);
    let credentials = credential::lower(file, context);
    let endpoints = endpoint::lower(file, context);
    let routes = route::lower(file, context);
    let proxy = proxy(file, context);
    let serve = serve(file, context);
    let logging = logging(file, context);
    let mut settings =
        Settings { listeners, admin, credentials, endpoints, routes, proxy, serve, logging, hash: String::new() };
    settings.hash = hash(&settings);
    settings
}

fn proxy(file: &ConfigFile, context: &mut Context<'_>) -> ProxySettings {
    let (limits, timeouts) = (&file.limits, &file.timeouts);
    let request_timeout = context.duration(&key(&["timeouts", "request"]), &timeouts.request);
    let try_timeout = context.duration(&key(&["timeouts", "try"]), &timeouts.attempt);
    if try_timeout > request_timeout && !request_timeout.is_zero() {
        let fact = format!("`{}` is longer than timeouts.request (`{}`)", timeouts.attempt, timeouts.request);
        context.problem(&key(&["timeouts", "try"]), fact, Some("an attempt is part of a request".to_owned()));
    }
    let max_header = context.size(&key(&["limits", "max_header"]), &limits.max_header, MAX_HEADER);
    ProxySettings {
        max_body_bytes: context.size(&key(&["limits", "max_body"]), &limits.max_body, MAX_BODY),
        max_header_bytes: usize::try_from(max_header).unwrap_or(usize::MAX),
        request_timeout,
        try_timeout,
        retry: retry(file, context),
        forward_client_address: file.forwarding.client_address,
        access_log: match file.logging.access {
            AccessFile::All => AccessLog::All,
            AccessFile::Failures => AccessLog::Failures,
            AccessFile::Off => AccessLog::Off,
        },
    }
}

fn retry(file: &ConfigFile, context: &mut Context<'_>) -> RetrySettings {
    let RetryFile { messages, attempts, budget_percent } = file.retry;
    if !(1..=MAX_ATTEMPTS).contains(&attempts) {
        let fix = "1 means that nothing is repeated".to_owned();
        context.problem(&key(&["retry", "attempts"]), format!("is {attempts}, must be 1 to {MAX_ATTEMPTS}"), Some(fix));
    }
    if budget_percent > 100 {
        context.problem(&key(&["retry", "budget_percent"]), format!("is {budget_percent}, must be 100 at most"), None);
    }
    RetrySettings {
        messages: match messages {
            MessageRetryFile::Never => MessageRetry::Never,
            MessageRetryFile::Sdk => MessageRetry::Sdk,
        },
        attempts,
        // At most 100, so exact.
        budget: f32::from(u16::try_from(budget_percent).unwrap_or(u16::MAX)) / 100.0,
    }
}

fn serve(file: &ConfigFile, context: &mut Context<'_>) -> ServeSettings {
    if file.limits.max_connections == 0 {
        context.problem(&key(&["limits", "max_connections"]), "is 0, must be 1 or more", None);
    }
    if file.process.workers > MAX_WORKERS {
        let fact = format!("is {}, must be {MAX_WORKERS} at most", file.process.workers);
        context.problem(&key(&["process", "workers"]), fact, Some("0 means one per core".to_owned()));
    }
    let workers = match file.process.workers {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        configured => configured as usize,
    };
    ServeSettings {
        workers,
        max_connections: file.limits.max_connections as usize,
        header_read_timeout: context.duration(&key(&["timeouts", "idle"]), &file.timeouts.idle),
        drain_delay: context.duration_or_zero(&key(&["shutdown", "delay"]), &file.shutdown.delay),
        drain_timeout: context.duration(&key(&["shutdown", "timeout"]), &file.shutdown.timeout),
    }
}

fn logging(file: &ConfigFile, context: &mut Context<'_>) -> LoggingSettings {
    let logging = &file.logging;
    if let Err(err) = logging.filter.parse::<tracing_subscriber::filter::targets::Targets>() {
        let fix =
            "write a level (`error`, `warn`, `info`, `debug`, `trace`) or `info,signalr_gateway=debug`".to_owned();
        context.problem(
            &key(&["logging", "filter"]),
            format!("`{}` is not a filter: {err}", logging.filter),
            Some(fix),
        );
    }
    LoggingSettings {
        filter: logging.filter.clone(),
        format: match logging.format {
            FormatFile::Auto => LogFormat::Auto,
            FormatFile::Text => LogFormat::Text,
            FormatFile::Json => LogFormat::Json,
        },
    }
}

/// Names the effective settings. It tells replicas with different configurations apart; it is no checksum. Secrets are
/// not part of the settings, so changing one changes nothing here.
fn hash(settings: &Settings) -> String {
    let mut hasher = DefaultHasher::new();
    format!("{settings:?}").hash(&mut hasher);
    format!("{:08x}", hasher.finish() & 0xffff_ffff)
}

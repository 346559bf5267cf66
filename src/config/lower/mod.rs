//! From what the operator wrote to settings: reads durations, sizes and addresses, resolves names, checks what the
//! gateway would trip over later. Collects every problem instead of stopping at the first. Reads no secret.

mod advice;
mod assertion;
mod credential;
mod endpoint;
mod identity;
mod listener;
mod route;
mod test;
mod values;

use std::collections::BTreeMap;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::value::Value;

use super::file::{AccessFile, ConfigFile, FormatFile, IdempotencyFile, LoggingFile, MessageRetryFile, RetryFile};
use super::problem::{Origin, Problem, did_you_mean};
use super::sources::Merged;
use crate::delivery::{DeliverySettings, IdempotencySettings, MessageRetry, RetrySettings};
use crate::files::{self, FileError};
use crate::gateway::{LogFormat, LoggingSettings, Settings, short_hash};
use crate::limits::QueueSettings;
use crate::proxy::{AccessLog, ProxySettings};
use crate::redact;
use crate::serve::ServeSettings;

/// Longer deadlines are mistakes.
const MAX_DURATION: Duration = Duration::from_secs(24 * 60 * 60);
/// The most workers that make sense on any machine.
const MAX_WORKERS: u32 = 1024;
/// What the connection's read buffer leaves room for.
const MAX_HEADER: u64 = 64 * 1024;
/// Source: Azure SignalR Service, REST API reference: a message has 1 MB at most.
const SERVICE_MAX_BODY: u64 = 1024 * 1024;
/// A request body is kept until it is answered, so this bounds memory.
const MAX_BODY: u64 = 64 * 1024 * 1024;

/// More than any machine has.
const MAX_BODY_MEMORY: u64 = 1 << 40;

/// More than anybody would wait for.
const MAX_ATTEMPTS: u32 = 10;

/// Bounds memory.
const MAX_KEYS: u32 = 1_000_000;

/// Names a value by its path.
type Key = Vec<String>;

/// What lowering needs beside the file: where values stand, what is around, and the list of problems.
pub(super) struct Context<'a> {
    merged: &'a Merged,
    environment: &'a BTreeMap<String, String>,
    folder: PathBuf,
    /// Where the structure did not fit, which has been told.
    spoiled: Vec<Key>,
    pub(super) problems: Vec<Problem>,
    /// What is worth saying and does not stop anything.
    pub(super) warnings: Vec<Problem>,
    /// What is in force, or may be shown, where that is not what stands there.
    pub(super) decided: Vec<(String, serde_json::Value)>,
}

impl<'a> Context<'a> {
    pub(super) fn new(
        merged: &'a Merged,
        spoiled: Vec<Key>,
        environment: &'a BTreeMap<String, String>,
        folder: PathBuf,
    ) -> Self {
        let (problems, warnings, decided) = (Vec::new(), Vec::new(), Vec::new());
        Self { merged, environment, folder, spoiled, problems, warnings, decided }
    }

    /// Whether what stands at a key, or around it, is a stand-in.
    fn is_spoiled(&self, key: &[String]) -> bool {
        self.spoiled.iter().any(|spoiled| key.starts_with(spoiled))
    }

    /// Whether something at a key, around it or below it did not fit, so that it does not say what was meant.
    fn is_incomplete(&self, key: &[String]) -> bool {
        self.is_spoiled(key) || self.spoiled.iter().any(|spoiled| spoiled.starts_with(key))
    }

    /// Returns where what stands at a key comes from, or at the nearest table around it.
    fn origin_of(&self, key: &[String]) -> Option<Origin> {
        (0..=key.len()).rev().find_map(|length| {
            let path = key.get(..length)?;
            let value = find(&self.merged.root, path)?;
            // Below the value of a variable there are no keys of the file.
            self.merged.origin(key, value)
        })
    }

    fn note(&self, key: &[String], fact: impl Into<String>, fix: Option<String>) -> Problem {
        let mut fact = fact.into();
        // People put a secret where its id or its place belongs.
        if key.first().is_some_and(|table| table == "credentials") {
            fact = redact::message(&fact);
        }
        Problem { key: key.join("."), fact, origin: self.origin_of(key), fix }
    }

    fn problem(&mut self, key: &[String], fact: impl Into<String>, fix: Option<String>) {
        if !self.is_spoiled(key) {
            let problem = self.note(key, fact, fix);
            self.problems.push(problem);
        }
    }

    fn warning(&mut self, key: &[String], fact: impl Into<String>, fix: Option<String>) {
        let warning = self.note(key, fact, fix);
        self.warnings.push(warning);
    }

    /// Returns a path as the process sees it: in the file, relative ones are relative to the file's folder.
    fn path(&self, key: &[String], path: &Path) -> PathBuf {
        match self.origin_of(key) {
            Some(Origin::File(..)) => self.folder.join(path),
            Some(Origin::Variable(_) | Origin::Flag(_) | Origin::Default) | None => path.to_owned(),
        }
    }

    /// Returns the path of a file that must be there. Does not look at what is in it.
    fn existing(&mut self, key: &[String], path: &Path) -> PathBuf {
        if is_content(path) {
            let fix = "put it into a file of its own and write the file's path".to_owned();
            self.problem(key, "is the content of a file, must be its path", Some(fix));
            return path.to_owned();
        }
        let path = self.path(key, path);
        let shown = path.display();
        match files::exists(&path) {
            Err(FileError::Unreadable { source, .. }) => {
                self.problem(key, format!("the file {shown} cannot be read: {source}"), None);
            }
            Err(FileError::NotAFile { kind, .. }) => {
                self.problem(key, format!("{shown} is {kind}, must be a file"), None);
            }
            Err(err) => self.problem(key, err.to_string(), None),
            Ok(None) => self.problem(key, format!("the file {shown} is empty"), None),
            Ok(Some(())) => {}
        }
        path
    }

    /// Returns the names that stand in a table, those whose entries were refused too: referring to them is no mistake.
    fn names(&self, table: &str) -> Vec<String> {
        let dict = find(&self.merged.root, &[table.to_owned()]).and_then(Value::as_dict);
        dict.map(|dict| dict.keys().cloned().collect()).unwrap_or_default()
    }

    /// Returns the names of the routes, as written.
    fn route_names(&self) -> Vec<String> {
        let routes = find(&self.merged.root, &key(&["routes"])).and_then(Value::as_array).unwrap_or_default();
        let names: Vec<_> =
            routes.iter().filter_map(|route| Some(route.as_dict()?.get("name")?.as_str()?.to_owned())).collect();
        // Without any, there is the one called `default`.
        if names.is_empty() { vec!["default".to_owned()] } else { names }
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
        // Labels that begin with `_` are the gateway's own, such as `_none`.
        if name.is_empty() || name.len() > 64 || name.starts_with('_') || !name.bytes().all(is_plain) {
            let fix = "names have 1 to 64 letters, digits, `-` and `_`, and do not begin with `_`".to_owned();
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
        let fix = || Some("write a number and a unit, such as `500ms`, `10s` or `2m`".to_owned());
        match humantime::parse_duration(text) {
            Ok(duration) if duration > MAX_DURATION => {
                self.problem(key, format!("`{text}` is longer than a day"), fix());
                MAX_DURATION
            }
            Ok(duration) => duration,
            Err(_unreadable) => {
                self.problem(key, format!("`{text}` is not a duration"), fix());
                Duration::ZERO
            }
        }
    }
}

/// Whether a path is what should stand in a file: a key or certificate in PEM, or a token. It must not be shown then.
fn is_content(path: &Path) -> bool {
    let text = path.to_string_lossy();
    text.contains(['\n', '\r']) || text.contains("-----BEGIN") || text.starts_with("eyJ")
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

/// Returns the key below a table.
fn below(at: &Key, name: &str) -> Key {
    at.iter().cloned().chain([name.to_owned()]).collect()
}

pub(super) use test::{Test, run as run_tests};
pub(super) use values::parse_host;

/// Lowers a file. The settings are complete only if `context.problems` is empty, and the tests are run after that.
pub(super) fn lower(file: &ConfigFile, context: &mut Context<'_>) -> (Settings, Vec<Test>) {
    let listeners = listener::lower(file, context);
    let admin = listener::lower_admin(&file.admin, &listeners, context);
    let credentials = credential::lower(file, context);
    let endpoints = endpoint::lower(file, context);
    let routes = route::lower(file, context);
    let tests = test::lower(file, context);
    let proxy = proxy(file, context);
    let serve = serve(file, context);
    let logging = logging(file, context);
    let mut settings =
        Settings { listeners, admin, credentials, endpoints, routes, proxy, serve, logging, hash: String::new() };
    settings.hash = hash(&settings);
    advice::advise(file, &settings, context);
    // Not part of the hash: replicas on different machines have one configuration.
    if settings.serve.workers == 0 {
        settings.serve.workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    }
    (settings, tests)
}

fn proxy(file: &ConfigFile, context: &mut Context<'_>) -> ProxySettings {
    let (limits, timeouts) = (&file.limits, &file.timeouts);
    let (request_key, try_key) = (key(&["timeouts", "request"]), key(&["timeouts", "try"]));
    let request_timeout = context.duration(&request_key, &timeouts.request);
    let mut try_timeout = context.duration(&try_key, &timeouts.attempt);
    if try_timeout > request_timeout && !request_timeout.is_zero() && !context.is_spoiled(&request_key) {
        if context.origin_of(&try_key) == Some(Origin::Default) {
            try_timeout = request_timeout;
            context.decided.push((try_key.join("."), timeouts.request.clone().into()));
        } else {
            let fact = format!("`{}` is longer than timeouts.request (`{}`)", timeouts.attempt, timeouts.request);
            context.problem(&try_key, fact, Some("an attempt is part of a request".to_owned()));
        }
    }
    let max_header = context.size(&key(&["limits", "max_header"]), &limits.max_header, MAX_HEADER);
    let max_body_bytes = context.size(&key(&["limits", "max_body"]), &limits.max_body, MAX_BODY);
    if max_body_bytes > SERVICE_MAX_BODY {
        context.warning(&key(&["limits", "max_body"]), "the service itself refuses bodies over 1 MiB", None);
    }
    let body_memory = context.size(&key(&["limits", "body_memory"]), &limits.body_memory, MAX_BODY_MEMORY);
    if body_memory < max_body_bytes {
        let fact = format!("is {body_memory} bytes, must be at least limits.max_body ({max_body_bytes})");
        context.problem(
            &key(&["limits", "body_memory"]),
            fact,
            Some("else the largest body could never be kept".to_owned()),
        );
    }
    ProxySettings {
        max_body_bytes,
        body_memory,
        request_timeout,
        delivery: DeliverySettings {
            max_header_bytes: usize::try_from(max_header).unwrap_or(usize::MAX),
            try_timeout,
            queue: QueueSettings {
                length: limits.queue as usize,
                time: context.duration(&key(&["limits", "queue_time"]), &limits.queue_time),
            },
            retry: retry(file, context),
            idempotency: idempotency(&file.idempotency, context),
        },
        forward_client_address: file.forwarding.client_address,
        access_log: access_log(file, context),
    }
}

fn access_log(file: &ConfigFile, context: &mut Context<'_>) -> AccessLog {
    let LoggingFile { access, access_percent, .. } = file.logging;
    if access_percent > 100 {
        let fact = format!("is {access_percent}, must be 100 at most");
        context.problem(&key(&["logging", "access_percent"]), fact, Some("100 logs each request".to_owned()));
    }
    match access {
        AccessFile::All => AccessLog::Sampled { percent: access_percent },
        AccessFile::Failures => AccessLog::Failures,
        AccessFile::Off => AccessLog::Off,
    }
}

fn idempotency(file: &IdempotencyFile, context: &mut Context<'_>) -> IdempotencySettings {
    if !(1..=MAX_KEYS).contains(&file.keys) {
        let fact = format!("is {}, must be 1 to {MAX_KEYS}", file.keys);
        context.problem(&key(&["idempotency", "keys"]), fact, None);
    }
    IdempotencySettings { keep: context.duration(&key(&["idempotency", "keep"]), &file.keep), keys: file.keys as usize }
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
    ServeSettings {
        workers: file.process.workers as usize,
        max_connections: file.limits.max_connections as usize,
        header_read_timeout: context.duration(&key(&["timeouts", "idle"]), &file.timeouts.idle),
        write_timeout: context.duration(&key(&["timeouts", "write"]), &file.timeouts.write),
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
        failures_per_second: logging.failures_per_second,
    }
}

/// Names the effective settings. It tells replicas with different configurations apart. Secrets are not part of the
/// settings, so changing one changes nothing here.
fn hash(settings: &Settings) -> String {
    short_hash(&format!("{settings:?}"))
}

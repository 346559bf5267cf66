//! Lowers the settings of the process: workers, caller connections, shutdown, logs.

use super::context::{Context, key};
use super::values;
use crate::config::file::{ConfigFile, FormatFile};
use crate::config::problem::did_you_mean;
use crate::gateway::{LogFilter, LogFilterError, LogFormat, LoggingSettings, MetricsSettings};
use crate::serve::ServeSettings;

/// Chosen: more workers than any machine has cores.
const MAX_WORKERS: u32 = 1024;
/// As many as there may be endpoints.
const MAX_LABELS: u32 = 10_000;

pub(super) fn lower_serve(file: &ConfigFile, context: &mut Context<'_>) -> ServeSettings {
    if file.limits.max_connections == 0 {
        context.problem(&key(&["limits", "max_connections"]), "is 0, must be 1 or more", "write 1 or more");
    }
    if file.process.workers > MAX_WORKERS {
        let fact = format!("is {}, must be {MAX_WORKERS} at most", file.process.workers);
        context.problem(&key(&["process", "workers"]), fact, "0 means one per core");
    }
    ServeSettings {
        workers: file.process.workers as usize,
        max_connections: file.limits.max_connections as usize,
        header_read_timeout: values::duration(&key(&["timeouts", "idle"]), &file.timeouts.idle, context),
        connection_age: values::age(
            &key(&["timeouts", "connection_age"]),
            file.timeouts.connection_age.as_deref(),
            context,
        ),
        write_timeout: values::duration(&key(&["timeouts", "write"]), &file.timeouts.write, context),
        drain_delay: values::duration_or_zero(&key(&["shutdown", "delay"]), &file.shutdown.delay, context),
        drain_timeout: values::duration(&key(&["shutdown", "timeout"]), &file.shutdown.timeout, context),
    }
}

pub(super) fn lower_metrics(file: &ConfigFile, context: &mut Context<'_>) -> MetricsSettings {
    let file = &file.metrics;
    let mut limit = |name: &str, value: u32| {
        if value > MAX_LABELS {
            let fact = format!("is {value}, must be {MAX_LABELS} at most");
            context.problem(
                &key(&["metrics", name]),
                fact,
                "write a number that your Prometheus can keep, such as 500",
            );
        }
        value as usize
    };
    MetricsSettings {
        max_endpoints: limit("max_endpoints", file.max_endpoints),
        max_routes: limit("max_routes", file.max_routes),
        max_credentials: limit("max_credentials", file.max_credentials),
        max_callers: limit("max_callers", file.max_callers),
    }
}

pub(super) fn lower_logging(file: &ConfigFile, context: &mut Context<'_>) -> LoggingSettings {
    let logging = &file.logging;
    let filter = LogFilter::parse(&logging.filter).unwrap_or_else(|err| {
        report_filter(&logging.filter, &err, context);
        LogFilter::default()
    });
    LoggingSettings {
        filter,
        format: match logging.format {
            FormatFile::Auto => LogFormat::Auto,
            FormatFile::Text => LogFormat::Text,
            FormatFile::Json => LogFormat::Json,
        },
        failures_per_second: logging.failures_per_second,
    }
}

fn report_filter(filter: &str, err: &LogFilterError, context: &mut Context<'_>) {
    let meant = err.unknown_word().and_then(|(word, known)| did_you_mean(word, known.iter().map(String::as_str)));
    let fix = "write a level (`error`, `warn`, `info`, `debug`, `trace`), or levels by target such as \
               `info,signalr_gateway::credential=debug`";
    let fix = meant.map_or_else(|| fix.to_owned(), |meant| format!("{meant} {fix}"));
    context.problem(&key(&["logging", "filter"]), format!("`{filter}` is not a filter: {err}"), fix);
}

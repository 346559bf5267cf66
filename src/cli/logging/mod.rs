//! Logs: to stderr, text on a terminal and JSON otherwise. Whoever reads them slowly, or not at all, holds nothing up.

mod throttle;
mod writer;

use std::io::{IsTerminal, stderr};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::gateway::{LogFormat, LoggingSettings};
use throttle::{Throttle, ThrottleLayer};

/// What the identity libraries say of each acquisition is said better by us.
const QUIET: &str = "azure_identity=warn,azure_core=warn,typespec_client_core=warn";
/// How long the last lines may take to be written.
pub(super) const LAST_LINES: Duration = Duration::from_secs(1);

/// What [`finish`] ends.
static OPEN: Mutex<Option<(WorkerGuard, Arc<Throttle>)>> = Mutex::new(None);

/// Sets up logging for the whole process, panics included. [`finish`] writes what is left at the end.
pub(super) fn init(settings: &LoggingSettings) -> anyhow::Result<()> {
    let filter: Targets = format!("{QUIET},{}", settings.filter).parse().context("`logging.filter` is not a filter")?;
    let is_text = match settings.format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let throttle = Arc::new(Throttle::new(settings.failures_per_second));
    let (writer, guard) = writer::start(is_text, &throttle).context("stderr cannot be written to")?;
    // A line that cannot be formatted must not be reported past the writer.
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    let layer = if is_text {
        layer.with_ansi(stderr().is_terminal()).boxed()
    } else {
        layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    };
    let subscriber = tracing_subscriber::registry().with(layer).with(filter).with(ThrottleLayer(Arc::clone(&throttle)));
    subscriber.try_init().context("logging cannot be set up")?;
    *OPEN.lock().unwrap_or_else(PoisonError::into_inner) = Some((guard, throttle));
    log_panics();
    Ok(())
}

/// Writes the lines that are left, for a second at most. Later ones are lost.
pub(super) fn finish() {
    let open = OPEN.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((guard, throttle)) = open else { return };
    throttle.report_dropped();
    throttle.report();
    // The guard waits for the thread that writes, and complains on stdout when that is stuck. Neither may last.
    within(LAST_LINES, move || drop(guard));
}

/// Does something that may block for ever, such as writing to a pipe that nobody reads, and waits for it only so long.
pub(super) fn within(time: Duration, act: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let acting = std::thread::Builder::new().spawn(move || {
        act();
        let _nobody_waits_any_more = done.send(());
    });
    if acting.is_ok() {
        let _in_time = is_done.recv_timeout(time);
    }
}

/// Has panics logged. The standard library writes them to stderr itself, and the thread that panicked would hang there.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let text = payload.downcast_ref::<&str>().copied();
        let message = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let backtrace = std::backtrace::Backtrace::capture();
        let is_captured = backtrace.status() == std::backtrace::BacktraceStatus::Captured;
        tracing::error!(
            target: throttle::PANICS,
            cause = message,
            location = panic.location().map(tracing::field::display),
            thread = std::thread::current().name(),
            backtrace = is_captured.then(|| backtrace.to_string()),
            "a thread panicked"
        );
    }));
}

//! Logging to stderr: text on a terminal, JSON otherwise. A slow or stalled reader of stderr blocks no other thread.

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

/// The levels of the identity libraries, which log each token acquisition as the gateway does.
const LIBRARY_LEVELS: &str = "azure_identity=warn,azure_core=warn,typespec_client_core=warn";
/// The timeout for writing the remaining lines when the process ends.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The running logger, until [`finish`] stops it.
static RUNNING: Mutex<Option<(WorkerGuard, Arc<Throttle>)>> = Mutex::new(None);

/// Sets up logging for the process, including panics. [`finish`] writes the remaining lines.
pub(super) fn init(settings: &LoggingSettings) -> anyhow::Result<()> {
    let filter: Targets =
        format!("{LIBRARY_LEVELS},{}", settings.filter).parse().context("`logging.filter` is not a filter")?;
    let is_text = match settings.format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let throttle = Arc::new(Throttle::new(settings.failures_per_second));
    let (writer, guard) = writer::start(is_text, &throttle).context("cannot write to stderr")?;
    // By default, the layer prints formatting errors to stderr, bypassing the writer.
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    let layer = if is_text {
        layer.with_ansi(stderr().is_terminal()).boxed()
    } else {
        layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    };
    let subscriber = tracing_subscriber::registry().with(layer).with(filter).with(ThrottleLayer(Arc::clone(&throttle)));
    subscriber.try_init().context("cannot set up logging")?;
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = Some((guard, throttle));
    log_panics();
    Ok(())
}

/// Writes the remaining lines, for at most a second. Later lines are lost.
pub(super) fn finish() {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some((guard, throttle)) = running else { return };
    throttle.report_dropped();
    throttle.report();
    // The guard waits for the writing thread, and prints to stdout if that thread hangs. Both may block.
    run_with_timeout(FLUSH_TIMEOUT, move || drop(guard));
}

/// Runs work that may block forever, such as a write to a full pipe, on its own thread. Waits for it at most `time`.
pub(super) fn run_with_timeout(time: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let started = std::thread::Builder::new().spawn(move || {
        work();
        let _receiver_gone = done.send(());
    });
    if started.is_ok() {
        let _in_time = finished.recv_timeout(time);
    }
}

/// Logs panics. The default hook writes to stderr, which could block the panicking thread.
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

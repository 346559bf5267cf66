//! Logging to stderr: text on a terminal, JSON otherwise. A slow or stalled reader of stderr blocks no other thread.

pub(super) mod debug_signal;
mod filter;
mod throttle;
mod writer;

use std::io::{IsTerminal, stderr};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::Layer;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::gateway::{LogFormat, LoggingSettings};
use crate::runbook::{Condition, Section};
use filter::FilterInForce;
use throttle::{LOG, Throttle, ThrottleLayer};

/// The timeout for writing the remaining lines when the process ends.
pub(super) const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);

/// The running logger, until [`finish`] stops it.
static RUNNING: Mutex<Option<Logger>> = Mutex::new(None);

struct Logger {
    writer: WorkerGuard,
    throttle: Arc<Throttle>,
    filter: FilterInForce,
}

/// Sets up logging for the process, including panics. [`finish`] writes the remaining lines.
pub(super) fn init(settings: &LoggingSettings) -> anyhow::Result<()> {
    let is_text = match settings.format {
        LogFormat::Auto => stderr().is_terminal(),
        LogFormat::Text => true,
        LogFormat::Json => false,
    };
    let filter = FilterInForce::new(settings.filter.clone());
    let throttle = Arc::new(Throttle::new(settings.failures_per_second));
    let (writer, guard) = writer::start(is_text, &throttle).context("cannot write to stderr")?;
    // By default, the layer prints formatting errors to stderr, bypassing the writer.
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).log_internal_errors(false);
    let layer = if is_text {
        layer.with_ansi(stderr().is_terminal()).boxed()
    } else {
        layer.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
    };
    let subscriber =
        tracing_subscriber::registry().with(layer).with(filter.clone()).with(ThrottleLayer(Arc::clone(&throttle)));
    subscriber.try_init().context("cannot set up logging")?;
    *RUNNING.lock().unwrap_or_else(PoisonError::into_inner) = Some(Logger { writer: guard, throttle, filter });
    log_panics();
    Ok(())
}

/// Puts the settings of a reload in force. The format stays: it may change only at a restart.
pub(super) fn reload(settings: &LoggingSettings) {
    if let Some(logger) = &*RUNNING.lock().unwrap_or_else(PoisonError::into_inner) {
        logger.filter.configure(&settings.filter);
        logger.throttle.set_rate(settings.failures_per_second);
    }
}

/// Turns debug lines on for some time, or off if `time` is `None`. The log says so, whatever its filter.
fn set_debug(time: Option<Duration>) {
    let filter = RUNNING.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|logger| logger.filter.clone());
    let Some(filter) = filter else { return };
    if let Some(time) = time {
        filter.set_debug(true);
        let time = humantime::format_duration(time);
        tracing::info!(target: LOG, "debug lines are on for {time}, since SIGUSR1 was received; another one turns them off");
    } else {
        tracing::info!(target: LOG, "debug lines are off; `logging.filter` is in force again");
        filter.set_debug(false);
    }
}

/// Writes the remaining lines, for at most a second. Later lines are lost.
pub(super) fn finish() {
    let running = RUNNING.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Logger { writer, throttle, .. }) = running else { return };
    throttle.report_dropped();
    throttle.report();
    // The guard waits for the writing thread, and prints to stdout if that thread hangs. Both may block.
    run_with_timeout(FLUSH_TIMEOUT, move || drop(writer));
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
        let section = Section::Condition(Condition::WorkerFailed);
        tracing::error!(
            target: throttle::PANICS,
            cause = message,
            side = "gateway",
            remedy = section.remedy(),
            runbook = %section,
            location = panic.location().map(tracing::field::display),
            thread = std::thread::current().name(),
            backtrace = is_captured.then(|| backtrace.to_string()),
            "a thread panicked"
        );
    }));
}

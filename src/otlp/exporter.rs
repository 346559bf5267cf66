//! The task that exports spans, on the control runtime.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use super::collector::{Collector, Rejected};
use super::error::ExportError;
use super::settings::OtlpSettings;
use crate::credential::{NoResponse, in_one_line};
use crate::runbook::{Condition, Section};
use crate::trace::{Batch, SpanQueue, Tracer};

/// How long spans wait for others before they are exported. Chosen: a trace is complete within a second or two, and a collector gets
/// one request per second.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long one export may take. Source: the default of OTLP exporters.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The pause after the first failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// The longest pause.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// How often the same spans are sent. Chosen: a minute of outage loses nothing that the queue can hold.
const MAX_TRIES: u32 = 6;
/// How long the gateway waits for the last export when it stops.
const LAST_EXPORT: Duration = Duration::from_secs(1);
/// The section of the runbook about a collector that fails.
const COLLECTOR: Section = Section::Condition(Condition::TraceCollector);

/// Exports the spans of a gateway as its configuration says.
#[derive(Debug)]
pub struct Exporter {
    queue: Arc<SpanQueue>,
    control: Handle,
    running: Option<Running>,
}

/// A running task.
#[derive(Debug)]
struct Running {
    settings: OtlpSettings,
    task: JoinHandle<()>,
    /// Dropping it has the task export what waits, and end.
    stop: oneshot::Sender<()>,
}

impl Exporter {
    /// Creates an exporter of nothing. Its task will run on `control`.
    pub fn new(queue: &Arc<SpanQueue>, control: &Handle) -> Self {
        Self { queue: Arc::clone(queue), control: control.clone(), running: None }
    }

    /// Returns the tracer of a configuration, if it exports traces.
    pub fn tracer(queue: &Arc<SpanQueue>, settings: Option<&OtlpSettings>) -> Option<Tracer> {
        settings.map(|settings| Tracer::new(queue, settings.sample))
    }

    /// Exports with these settings from now on, or not at all. Does nothing if they did not change.
    pub fn set(&mut self, settings: Option<&OtlpSettings>) {
        if self.running.as_ref().map(|running| &running.settings) == settings {
            return;
        }
        if let Some(former) = self.running.take() {
            former.task.abort();
        }
        self.queue.set_exported(settings.is_some());
        self.running = settings.map(|settings| {
            let (stop, stopped) = oneshot::channel();
            let task = Task {
                queue: Arc::clone(&self.queue),
                collector: Collector::new(settings.clone()),
                failures: 0,
                has_failed: false,
            };
            Running { settings: settings.clone(), task: self.control.spawn(task.run(stopped)), stop }
        });
    }

    /// Exports what waits, for at most a second, and stops.
    pub async fn stop(&mut self) {
        let Some(Running { mut task, stop, .. }) = self.running.take() else { return };
        drop(stop);
        if timeout(LAST_EXPORT, &mut task).await.is_err() {
            task.abort();
        }
        self.queue.set_exported(false);
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        if let Some(running) = &self.running {
            running.task.abort();
        }
    }
}

struct Task {
    queue: Arc<SpanQueue>,
    collector: Collector,
    /// The number of failures since the last success.
    failures: u32,
    /// Whether the last export failed, or was rejected in part.
    has_failed: bool,
}

impl Task {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            let is_stopping = tokio::select! {
                _ = &mut stopped => true,
                () = sleep(INTERVAL) => false,
                () = self.queue.has_batch() => false,
            };
            while let Some(batch) = self.queue.take() {
                if !self.export(batch, is_stopping, &mut stopped).await {
                    return;
                }
            }
            if is_stopping {
                return;
            }
        }
    }

    /// Exports spans, and tries again after pauses. Returns whether to go on: not if the gateway stops while the collector fails.
    async fn export(&mut self, batch: Batch, is_stopping: bool, stopped: &mut oneshot::Receiver<()>) -> bool {
        for attempt in 1..=MAX_TRIES {
            let exported = timeout(TIMEOUT, self.collector.export(&batch)).await;
            let err = match exported.unwrap_or(Err(ExportError::NoResponse(NoResponse::Timeout(TIMEOUT)))) {
                Ok(rejected) => {
                    self.succeeded(&rejected);
                    batch.exported(rejected.spans);
                    return true;
                }
                Err(err) => err,
            };
            let pause = self.failed(&err);
            if is_stopping {
                return false;
            }
            tokio::select! {
                _ = &mut *stopped => return false,
                () = sleep(pause) => {}
            }
            if !err.is_retryable() || attempt == MAX_TRIES {
                break;
            }
        }
        true
    }

    fn succeeded(&mut self, rejected: &Rejected) {
        self.failures = 0;
        let is_rejected = rejected.spans > 0;
        if is_rejected && !self.has_failed {
            tracing::warn!(
                collector = %self.collector.url(),
                rejected = rejected.spans,
                error = rejected.message,
                remedy = COLLECTOR.remedy(),
                runbook = %COLLECTOR,
                "the trace collector rejects spans; calls are not affected"
            );
        } else if self.has_failed && !is_rejected {
            tracing::info!(collector = %self.collector.url(), "the trace collector accepts spans again");
        }
        self.has_failed = is_rejected;
    }

    /// Logs the first failure. Returns the pause before the next export.
    fn failed(&mut self, err: &ExportError) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10));
        let pause = err.retry_after().unwrap_or(doubled).clamp(FIRST_PAUSE, MAX_PAUSE);
        self.failures = self.failures.saturating_add(1);
        let (collector, error) = (self.collector.url(), in_one_line(err));
        if std::mem::replace(&mut self.has_failed, true) {
            tracing::debug!(%collector, error, failures = self.failures, "spans could not be exported");
        } else {
            tracing::warn!(
                %collector,
                error,
                remedy = err.remedy(),
                runbook = %COLLECTOR,
                "spans cannot be exported to the trace collector; calls are not affected"
            );
        }
        // At least half of it, so that replicas do not come back at the same time.
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

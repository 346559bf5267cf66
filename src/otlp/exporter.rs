//! The task that exports spans, on the control runtime.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};

use super::collector::{Collector, Rejected};
use super::error::{ExportError, SEE_ITS_LOG};
use super::settings::OtlpSettings;
use super::status::{Change, ExportMonitor};
use crate::credential::NoResponse;
use crate::redact::in_one_line;
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
/// How long no span must have found the queue full before the next one that does is logged.
const OVERFLOW_PAUSE: Duration = Duration::from_secs(10 * 60);
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
    monitor: Arc<ExportMonitor>,
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

    /// Returns the status of the export, if there is one.
    pub fn monitor(&self) -> Option<&Arc<ExportMonitor>> {
        self.running.as_ref().map(|running| &running.monitor)
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
            let monitor = ExportMonitor::new(settings, self.queue.metrics());
            let task = Task {
                queue: Arc::clone(&self.queue),
                collector: Collector::new(settings.clone()),
                monitor: Arc::clone(&monitor),
                failures: 0,
                overflowed: None,
            };
            Running { settings: settings.clone(), monitor, task: self.control.spawn(task.run(stopped)), stop }
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
    monitor: Arc<ExportMonitor>,
    /// The number of failures since the last success.
    failures: u32,
    /// When spans last found the queue full while the collector accepted others.
    overflowed: Option<Instant>,
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
            self.report_overflow();
            if is_stopping {
                return;
            }
        }
    }

    /// Logs that spans found the queue full, unless the collector fails, which is logged already.
    fn report_overflow(&mut self) {
        let lost = self.queue.take_overflow();
        if lost == 0 || self.failures > 0 {
            return;
        }
        let now = Instant::now();
        if self.overflowed.replace(now).is_none_or(|before| now.duration_since(before) > OVERFLOW_PAUSE) {
            tracing::warn!(
                collector = %self.collector.url(),
                lost,
                remedy = "lower `tracing.sample`, or give the collector more capacity",
                runbook = %COLLECTOR,
                "spans are lost: more are recorded than the trace collector takes; calls are not affected"
            );
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
        let outcome = match rejected.spans {
            0 => Ok(()),
            spans => {
                Err((format!("the collector rejected {spans} spans; its message: {:?}", rejected.message), SEE_ITS_LOG))
            }
        };
        match self.monitor.record(outcome, SystemTime::now()) {
            Change::Failed => tracing::warn!(
                collector = %self.collector.url(),
                rejected = rejected.spans,
                error = rejected.message,
                remedy = SEE_ITS_LOG,
                runbook = %COLLECTOR,
                "the trace collector rejects spans; calls are not affected"
            ),
            Change::Recovered => {
                tracing::info!(collector = %self.collector.url(), "the trace collector accepts spans again");
            }
            Change::None => {}
        }
    }

    /// Logs the first failure. Returns the pause before the next export.
    fn failed(&mut self, err: &ExportError) -> Duration {
        let doubled = FIRST_PAUSE.saturating_mul(1 << self.failures.min(10));
        let pause = err.retry_after().unwrap_or(doubled).clamp(FIRST_PAUSE, MAX_PAUSE);
        self.failures = self.failures.saturating_add(1);
        self.monitor.metrics().export_failed();
        let (collector, error) = (self.collector.url(), in_one_line(err));
        match self.monitor.record(Err((error.clone(), err.remedy())), SystemTime::now()) {
            Change::Failed => tracing::warn!(
                %collector,
                error,
                remedy = err.remedy(),
                runbook = %COLLECTOR,
                "spans cannot be exported to the trace collector; calls are not affected"
            ),
            Change::None | Change::Recovered => {
                tracing::debug!(%collector, error, failures = self.failures, "spans could not be exported");
            }
        }
        // At least half of it, so that replicas do not come back at the same time.
        pause.mul_f64(0.5 + fastrand::f64() / 2.0)
    }
}

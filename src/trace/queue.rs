//! The queue of spans that wait for export.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::span::Span;
use crate::metrics::TraceMetrics;

/// The maximum number of spans that wait. Source: the default of OpenTelemetry's batch processor; at about 600 bytes each, 1.2 MiB.
const MAX_SPANS: usize = 2048;
/// The number of spans that are exported at once, and after which an export begins early. Source: as above.
const BATCH: usize = 512;

/// The queue of spans that wait for export. It is bounded; spans that find it full are dropped and counted.
#[derive(Debug)]
pub struct SpanQueue {
    spans: Mutex<VecDeque<Span>>,
    is_exported: AtomicBool,
    has_batch: Notify,
    /// The number of spans that found it full, since it was last asked.
    overflow: AtomicUsize,
    metrics: TraceMetrics,
}

/// Spans that are being exported. Those that it still has when it is dropped are counted as dropped.
#[derive(Debug)]
pub struct Batch {
    spans: Vec<Span>,
    metrics: TraceMetrics,
}

impl SpanQueue {
    /// Creates a queue that accepts no spans until it [is exported](Self::set_exported).
    pub fn new(metrics: &TraceMetrics) -> Arc<Self> {
        Arc::new(Self {
            spans: Mutex::default(),
            is_exported: AtomicBool::new(false),
            has_batch: Notify::new(),
            overflow: AtomicUsize::new(0),
            metrics: metrics.clone(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<Span>> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets whether spans are exported. If not, those that wait are dropped, and no more are accepted.
    pub fn set_exported(&self, is_exported: bool) {
        let mut spans = self.lock();
        self.is_exported.store(is_exported, Ordering::Relaxed);
        if !is_exported {
            self.metrics.dropped(spans.len());
            *spans = VecDeque::new();
        }
    }

    /// Returns whether spans are exported.
    pub fn is_exported(&self) -> bool {
        self.is_exported.load(Ordering::Relaxed)
    }

    /// Returns the metrics of the export.
    pub fn metrics(&self) -> &TraceMetrics {
        &self.metrics
    }

    /// Adds spans. Those for which there is no room are dropped.
    pub fn add(&self, mut added: Vec<Span>) {
        let mut spans = self.lock();
        if !self.is_exported() {
            return;
        }
        let room = MAX_SPANS.saturating_sub(spans.len());
        if let Some(lost) = added.len().checked_sub(room).filter(|lost| *lost > 0) {
            self.metrics.dropped(lost);
            self.overflow.fetch_add(lost, Ordering::Relaxed);
            added.truncate(room);
        }
        spans.extend(added);
        if spans.len() >= BATCH {
            self.has_batch.notify_one();
        }
    }

    /// Waits until an export should begin early.
    ///
    /// # Cancel safety
    /// Safe.
    pub async fn has_batch(&self) {
        self.has_batch.notified().await;
    }

    /// Returns how many spans found the queue full since the last call.
    pub fn take_overflow(&self) -> usize {
        self.overflow.swap(0, Ordering::Relaxed)
    }

    /// Takes the oldest spans, at most 512; `None` if there are none.
    pub fn take(&self) -> Option<Batch> {
        let mut waiting = self.lock();
        let size = waiting.len().min(BATCH);
        let spans: Vec<Span> = waiting.drain(..size).collect();
        drop(waiting);
        (!spans.is_empty()).then(|| Batch { spans, metrics: self.metrics.clone() })
    }
}

impl Batch {
    /// Returns the spans.
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// Counts the spans as exported, except as many as the collector rejected.
    pub fn exported(mut self, rejected: usize) {
        let rejected = rejected.min(self.spans.len());
        self.metrics.exported(self.spans.len() - rejected);
        self.spans.truncate(rejected);
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        self.metrics.dropped(self.spans.len());
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::metrics::MetricRegistry;
    use crate::trace::{SpanId, SpanKind, SpanStatus, TraceId};

    fn span(name: usize) -> Span {
        Span {
            trace: TraceId::with_low(1),
            id: SpanId::random(),
            flags: 1,
            parent: None,
            has_remote_parent: false,
            state: None,
            kind: SpanKind::Client,
            name: name.to_string().into(),
            began: SystemTime::UNIX_EPOCH,
            ended: SystemTime::UNIX_EPOCH,
            attributes: Vec::new(),
            status: SpanStatus::Unset,
        }
    }

    #[test]
    fn spans_beyond_the_bound_are_dropped_and_counted_and_the_oldest_are_exported_first() {
        let metrics = TraceMetrics::register(&mut MetricRegistry::default()).unwrap();
        let queue = SpanQueue::new(&metrics);
        queue.add(vec![span(0)]);
        assert!(queue.take().is_none(), "nothing is exported yet");
        queue.set_exported(true);
        (0..1024).for_each(|number| queue.add(vec![span(2 * number), span(2 * number + 1)]));
        queue.add(vec![span(2048), span(2049), span(2050)]);
        assert_eq!(metrics.counts(), (0, 3));
        assert_eq!((queue.take_overflow(), queue.take_overflow()), (3, 0));
        let batch = queue.take().unwrap();
        assert_eq!((batch.spans().len(), &*batch.spans()[0].name), (512, "0"));
        batch.exported(12);
        assert_eq!(metrics.counts(), (500, 15));
        // A batch that was never exported.
        drop(queue.take());
        assert_eq!(metrics.counts(), (500, 527));
        queue.set_exported(false);
        assert!(queue.take().is_none());
        assert_eq!(metrics.counts(), (500, 527 + 1024));
    }
}

//! Decides which calls are recorded.

use std::sync::Arc;

use http::HeaderValue;

use super::call::CallTrace;
use super::context::TraceParent;
use super::queue::SpanQueue;
use crate::metrics::TraceId;

/// Decides which calls are recorded, under one configuration.
#[derive(Clone, Debug)]
pub struct Tracer {
    queue: Arc<SpanQueue>,
    /// Calls without a parent are recorded if the low bits of their trace id are below this.
    threshold: u128,
}

impl Tracer {
    /// Creates a tracer that records this share of the calls without a parent, from 0 to 1.
    pub fn new(queue: &Arc<SpanQueue>, sample: f64) -> Self {
        Self { queue: Arc::clone(queue), threshold: threshold(sample) }
    }

    /// Returns the trace of a call, if it is recorded: its caller's trace is, or it has none and chance decides so. `parent` is the
    /// caller's `traceparent`, `state` its `tracestate`.
    pub fn begin<'h>(
        &self,
        parent: Option<&HeaderValue>,
        state: impl FnOnce() -> Option<&'h HeaderValue>,
    ) -> Option<Box<CallTrace>> {
        if let Some(parent) = parent.and_then(TraceParent::parse) {
            return parent.is_sampled().then(|| Box::new(CallTrace::child(&self.queue, parent, state())));
        }
        let low = fastrand::u64(..);
        (u128::from(low) < self.threshold).then(|| Box::new(CallTrace::root(&self.queue, TraceId::with_low(low))))
    }
}

/// Returns how many of the 2^64 values of the low bits of a trace id are recorded.
fn threshold(sample: f64) -> u128 {
    // Parts per 2^32: exact enough, and an integer.
    let scaled = (sample.clamp(0.0, 1.0) * f64::from(u32::MAX)).round();
    match sample {
        1.0.. => 1 << 64,
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 0 to u32::MAX")]
        _ => u128::from(scaled as u32) << 32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{MetricRegistry, TraceMetrics};

    fn tracer(sample: f64) -> Tracer {
        let metrics = TraceMetrics::register(&mut MetricRegistry::default()).unwrap();
        Tracer::new(&SpanQueue::new(&metrics), sample)
    }

    #[test]
    fn the_flag_of_the_caller_decides_and_without_one_the_sample() {
        let parent = |flags| {
            let text = format!("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-{flags}");
            HeaderValue::try_from(text).unwrap()
        };
        let none = || None;
        for sample in [0.0, 1.0] {
            let tracer = tracer(sample);
            assert!(tracer.begin(Some(&parent("01")), none).is_some());
            assert!(tracer.begin(Some(&parent("00")), none).is_none());
            let invalid = HeaderValue::from_static("00-x");
            for parent in [None, Some(&invalid)] {
                assert_eq!(tracer.begin(parent, none).is_some(), sample > 0.5);
            }
        }
    }

    #[test]
    fn about_as_many_calls_are_recorded_as_the_sample_says() {
        fastrand::seed(1);
        let tracer = tracer(0.1);
        let recorded = (0..10_000).filter(|_| tracer.begin(None, || None).is_some()).count();
        assert!((800..1200).contains(&recorded), "{recorded}");
    }
}

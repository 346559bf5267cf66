//! The spans of token acquisitions.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use super::context::{SpanId, TraceParent};
use super::queue::SpanQueue;
use super::span::{Span, SpanKind, SpanStatus};
use crate::metrics::{Acquisition, AcquisitionObserver, TraceId};

/// Records each token acquisition as a trace of its own while traces are exported. There are few: each token needs about one an
/// hour.
#[derive(Debug)]
pub struct TokenSpans(Arc<SpanQueue>);

impl TokenSpans {
    /// Creates the recorder.
    pub fn new(queue: &Arc<SpanQueue>) -> Arc<Self> {
        Arc::new(Self(Arc::clone(queue)))
    }
}

impl AcquisitionObserver for TokenSpans {
    fn acquisition_ended(&self, acquisition: &Acquisition<'_>) {
        let Self(queue) = self;
        if !queue.is_exported() {
            return;
        }
        let Acquisition { credential, took, reason } = *acquisition;
        let outcome = if reason.is_none() { "ok" } else { "failed" };
        let mut attributes = vec![
            ("signalr_gateway.credential", credential.to_owned().into()),
            ("signalr_gateway.outcome", outcome.into()),
        ];
        attributes.extend(reason.map(|reason| ("error.type", reason.label().into())));
        let position = TraceParent::first(TraceId::with_low(fastrand::u64(..)), SpanId::random());
        let ended = SystemTime::now();
        queue.add(vec![Span {
            trace: position.trace,
            id: position.span,
            flags: position.flags(),
            parent: None,
            has_remote_parent: false,
            state: None,
            kind: SpanKind::Client,
            name: "token".into(),
            began: ended.checked_sub(took).unwrap_or(ended),
            ended,
            attributes,
            status: reason.map_or(SpanStatus::Unset, |reason| SpanStatus::Error(Cow::Borrowed(reason.label()))),
        }]);
    }
}

//! Traces: which calls are recorded, their spans, and the context that goes on to endpoints.
//!
//! The decision is made once, when a call begins: as its caller's `traceparent` says, or for calls without one by chance. A
//! call that is not recorded costs this decision and nothing else. The spans of a recorded call are built when it ends, from its
//! record; until then it keeps its ids and the times of its attempts. They go into a bounded queue, from which
//! [`crate::otlp`] exports them. A full queue drops them.
//!
//! Sources: W3C Trace Context; OpenTelemetry, "Semantic conventions for HTTP spans".

mod call;
mod context;
mod queue;
mod span;
mod token;
mod tracer;

pub use call::{CallTrace, EndedAttempt, EndedCall};
pub use context::{SpanId, TRACE_PARENT, TRACE_STATE, TraceParent};

pub use crate::metrics::TraceId;
pub use queue::{Batch, SpanQueue};
pub use span::{Attribute, Span, SpanKind, SpanStatus, Value};
pub use token::TokenSpans;
pub use tracer::Tracer;

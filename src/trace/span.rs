//! A span: what is exported of one step of a call or of a token acquisition.

use std::borrow::Cow;
use std::time::SystemTime;

use super::context::SpanId;
use crate::metrics::TraceId;

/// A span that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    /// Its trace.
    pub trace: TraceId,
    /// Its id.
    pub id: SpanId,
    /// The flags of its trace, as in a `traceparent`.
    pub flags: u8,
    /// The span that caused it.
    pub parent: Option<SpanId>,
    /// Whether that span is another process's.
    pub has_remote_parent: bool,
    /// The caller's `tracestate`.
    pub state: Option<Box<str>>,
    /// Its kind.
    pub kind: SpanKind,
    /// Its name, one of few.
    pub name: Cow<'static, str>,
    /// When it began.
    pub began: SystemTime,
    /// When it ended.
    pub ended: SystemTime,
    /// What happened.
    pub attributes: Vec<Attribute>,
    /// Whether it failed.
    pub status: SpanStatus,
}

/// The name and value of an attribute.
pub type Attribute = (&'static str, Value);

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A text.
    Text(Cow<'static, str>),
    /// A number.
    Number(u64),
}

/// The side of a request that a span is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanKind {
    /// It received the request.
    Server,
    /// It sent the request.
    Client,
}

/// Whether a span failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SpanStatus {
    /// It did not.
    Unset,
    /// It failed, for this reason, which may be empty.
    Error(Cow<'static, str>),
}

impl From<&'static str> for Value {
    fn from(text: &'static str) -> Self {
        Self::Text(Cow::Borrowed(text))
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(Cow::Owned(text))
    }
}

impl From<u16> for Value {
    fn from(number: u16) -> Self {
        Self::Number(number.into())
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

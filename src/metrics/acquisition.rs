//! Reports token acquisitions to an observer besides the metrics.

use std::fmt;
use std::time::Duration;

use super::labels::TokenErrorReason;

/// A token acquisition that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Acquisition<'a> {
    /// The names of the credentials that share the token.
    pub credential: &'a str,
    /// How long it took.
    pub took: Duration,
    /// Why it failed, if it did.
    pub reason: Option<TokenErrorReason>,
}

/// Observes the token acquisitions of a gateway.
pub trait AcquisitionObserver: fmt::Debug + Send + Sync {
    /// Called when an acquisition has ended. Must not block.
    fn acquisition_ended(&self, acquisition: &Acquisition<'_>);
}

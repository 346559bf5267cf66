//! Digests of settings, which replicas with different configurations are found by.

use std::fmt::{self, Debug, Write};

use aws_lc_rs::digest;

/// The digest of a part of the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Digest(u64);

impl Digest {
    /// Returns the digest of a part. Does not allocate its text.
    pub(super) fn of(part: &impl Debug) -> Self {
        let mut sink = Sink(digest::Context::new(&digest::SHA256));
        // Fails only if a part cannot be formatted, which is a bug that the tests of the hash find.
        let _infallible = write!(sink, "{part:?}");
        let bytes = sink.0.finish();
        Self(bytes.as_ref().iter().take(8).fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }
}

/// Hashes what is written.
struct Sink(digest::Context);

impl Write for Sink {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.update(text.as_bytes());
        Ok(())
    }
}

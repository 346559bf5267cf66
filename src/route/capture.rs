//! The part of a pattern that names the endpoint.

use super::case::Case;

/// Marks the part of a pattern that names the endpoint.
const MARK: &str = "{endpoint}";

/// The part of a pattern that names the endpoint: `{endpoint}`. It matches like `*`. The name ends at the first occurrence of
/// the text after it, so a name with that text cannot be captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Capture {
    /// The length of the text before the name.
    start: usize,
    /// The text after the name, up to the next `*` or the end of the pattern. If it is empty, the name ends the pattern.
    end: String,
    /// Whether the pattern ends with `end`.
    is_last: bool,
}

/// Error of a pattern whose `{endpoint}` could stand for several names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CaptureError {
    /// There is more than one.
    #[error("has more than one `{MARK}`")]
    Repeated,
    /// A `*` comes before it.
    #[error("has a `*` before `{MARK}`, so it is not clear where the name begins")]
    AfterStar,
    /// A `*` follows immediately.
    #[error("has a `*` right after `{MARK}`, so it is not clear where the name ends")]
    BeforeStar,
}

impl Capture {
    /// Parses a configured pattern. Returns the pattern with `*` in place of the capture, and the capture. `None` if there is
    /// no capture.
    pub(super) fn parse(text: &str, case: Case) -> Result<Option<(String, Self)>, CaptureError> {
        let Some((before, after)) = text.split_once(MARK) else { return Ok(None) };
        if after.contains(MARK) {
            return Err(CaptureError::Repeated);
        }
        if before.contains('*') {
            return Err(CaptureError::AfterStar);
        }
        if after.starts_with('*') {
            return Err(CaptureError::BeforeStar);
        }
        let end = after.split('*').next().unwrap_or_default();
        let capture = Self { start: before.len(), end: case.fold(end), is_last: end.len() == after.len() };
        Ok(Some((format!("{before}*{after}"), capture)))
    }

    /// Returns the configured form of a pattern that has `*` in place of the capture.
    pub(super) fn restore(&self, text: &str) -> String {
        let (before, after) = text.split_at_checked(self.start).unwrap_or_default();
        format!("{before}{MARK}{}", after.strip_prefix('*').unwrap_or(after))
    }

    /// Returns the text that ends the name, folded. Empty if the name ends the pattern.
    pub(super) fn end(&self) -> &str {
        &self.end
    }

    /// Returns the length of the text before the name.
    pub(super) fn start(&self) -> usize {
        self.start
    }

    /// Returns the part of `text` that names the endpoint. `text` matches the pattern. `None` if the text after the name occurs
    /// in the name.
    pub(super) fn find<'t>(&self, text: &'t str, case: Case) -> Option<&'t str> {
        let rest = text.get(self.start..)?;
        if self.end.is_empty() {
            return Some(rest);
        }
        let end = self.end.as_bytes();
        let position = rest.as_bytes().windows(end.len()).position(|window| case.is_same(end, window))?;
        if self.is_last && position + end.len() != rest.len() {
            return None;
        }
        rest.get(..position)
    }
}

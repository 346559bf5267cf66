//! Files that the main file includes: which ones there are, and the content of each.
//!
//! An included file is read, parsed and validated on its own, so a reload repeats this only for files that changed. What
//! depends on other files (references, names that are taken, the order of routes) is checked once all files are known.

mod fragment;
mod pattern;

pub(super) use fragment::{Draft, Fragment, IncludedSchema};
pub(super) use pattern::{FilePattern, Scan};

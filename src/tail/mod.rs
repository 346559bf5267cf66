//! Live summaries of requests for a few readers, from the admin listener (`/tail`).
//!
//! Lossy: each reader has a bounded queue. A line that finds it full is dropped and counted, and the reader is told how many.
//! Requests wait for no reader. While there is none, a request costs one relaxed load of an atomic.

mod filter;
mod lines;
mod readers;
mod summary;

pub use filter::{Filter, InvalidFilter};
pub use lines::Lines;
pub use readers::{MAX_READERS, Tail};
pub use summary::Summary;

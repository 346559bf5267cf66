//! Noticing that a file changed: how it looks from outside, every second.
//!
//! Polled, since notification does not work on every mount (network file systems, some container volumes), and files that
//! are replaced through a symbolic link (Kubernetes secrets, Nix) are followed for free. Does not read the files.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::files::{Stamp, stamps};

/// How often files are looked at. Chosen: an operator who corrects a file waits no longer than a page takes to load, and a
/// look costs microseconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// Files and how they looked when they were last read.
#[derive(Debug)]
pub(crate) struct FileWatch {
    paths: Vec<PathBuf>,
    seen: Vec<Option<Stamp>>,
}

impl FileWatch {
    /// Watches files; nothing is looked at yet.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, seen: Vec::new() }
    }

    /// Remembers how the files look now. To be called before they are read, so that a change meanwhile is noticed.
    pub(crate) async fn remember(&mut self) {
        // A file system that hangs must not keep the token from being refreshed.
        if let Ok(stamps) = timeout(INTERVAL, stamps(&self.paths)).await {
            self.seen = stamps;
        }
    }

    /// Waits until a file looks otherwise than remembered. Never ends when there are no files.
    ///
    /// # Cancel safety
    /// Safe: nothing is remembered here.
    pub(crate) async fn changed(&self) {
        if self.paths.is_empty() {
            return std::future::pending().await;
        }
        loop {
            sleep(INTERVAL).await;
            if stamps(&self.paths).await != self.seen {
                return;
            }
        }
    }
}

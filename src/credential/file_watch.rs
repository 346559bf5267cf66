//! Detects changes of files by their metadata, once a second.
//!
//! It polls because change notification does not work on every mount (network file systems, some container volumes). Polling
//! also detects files that are replaced through a symbolic link (Kubernetes secrets, Nix).

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::files::{Stamp, stamps};

/// The interval of the checks. Chosen: a corrected file takes effect within about a second, and a check costs microseconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// Files, and their metadata when they were last read.
#[derive(Debug)]
pub(crate) struct FileWatch {
    paths: Vec<PathBuf>,
    recorded: Vec<Option<Stamp>>,
}

impl FileWatch {
    /// Creates a watch. Does no I/O.
    pub(crate) fn new(paths: Vec<PathBuf>) -> Self {
        Self { paths, recorded: Vec::new() }
    }

    /// Records the metadata of the files. Must be called before the files are read, so that a change during the read is
    /// detected.
    pub(crate) async fn update(&mut self) {
        // A file system that hangs must not prevent the acquisition.
        if let Ok(stamps) = timeout(INTERVAL, stamps(&self.paths)).await {
            self.recorded = stamps;
        }
    }

    /// Waits until the metadata of a file differs from the recorded one. Never returns if there are no files.
    ///
    /// # Cancel safety
    /// Safe: records nothing.
    pub(crate) async fn changed(&self) {
        if self.paths.is_empty() {
            return std::future::pending().await;
        }
        loop {
            sleep(INTERVAL).await;
            if stamps(&self.paths).await != self.recorded {
                return;
            }
        }
    }
}

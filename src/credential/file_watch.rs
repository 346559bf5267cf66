//! Detects changes of files by their metadata, once a second.
//!
//! It polls because change notification does not work on every mount (network file systems, some container volumes). Polling
//! also detects files that are replaced through a symbolic link (Kubernetes secrets, Nix). The tenants of an app read the same
//! files, so they share one check: one of those that wait makes it and passes the result on.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use crate::files::{Stamp, stamps};

/// The interval of the checks. Chosen: a corrected file takes effect within about a second, and a check costs microseconds.
const INTERVAL: Duration = Duration::from_secs(1);

/// The metadata of files, in their order. `None` for a missing file.
type Stamps = Vec<Option<Stamp>>;

/// The checks of a gateway's files, by the files.
#[derive(Debug, Default)]
pub(crate) struct FileChecks(Mutex<HashMap<Vec<PathBuf>, Weak<FileCheck>>>);

/// The check of files that several token lives read.
#[derive(Debug)]
struct FileCheck {
    paths: Vec<PathBuf>,
    /// When the next check is due. Locked by the one that makes it.
    due: tokio::sync::Mutex<Instant>,
    /// The result of the last check.
    found: watch::Sender<Stamps>,
}

/// Files, and their metadata when they were last read.
#[derive(Debug)]
pub(crate) struct FileWatch {
    /// `None` if there are no files.
    check: Option<Arc<FileCheck>>,
    recorded: Option<Recorded>,
}

#[derive(Debug)]
struct Recorded {
    stamps: Stamps,
    /// The results of checks that began after `stamps` were recorded are new to it.
    found: watch::Receiver<Stamps>,
}

impl FileChecks {
    /// Creates a watch. Does no I/O.
    pub(crate) fn watch(&self, paths: Vec<PathBuf>) -> FileWatch {
        if paths.is_empty() {
            return FileWatch { check: None, recorded: None };
        }
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(check) = known.get(&paths).and_then(Weak::upgrade) {
            return FileWatch { check: Some(check), recorded: None };
        }
        known.retain(|_, check| check.strong_count() > 0);
        let due = tokio::sync::Mutex::new(Instant::now());
        let check = Arc::new(FileCheck { paths: paths.clone(), due, found: watch::Sender::new(Stamps::new()) });
        known.insert(paths, Arc::downgrade(&check));
        FileWatch { check: Some(check), recorded: None }
    }
}

impl FileCheck {
    /// Makes a check each second. Ends with a result that differs from `recorded`.
    ///
    /// # Cancel safety
    /// Safe: another one that waits makes the next check.
    async fn run(&self, recorded: &Stamps) {
        let mut due = self.due.lock().await;
        loop {
            sleep_until(*due).await;
            // Before the check, so that one that hangs is repeated no sooner by the next one that waits.
            *due = Instant::now() + INTERVAL;
            let found = stamps(&self.paths).await;
            self.found.send_if_modified(|last| {
                let changed = *last != found;
                last.clone_from(&found);
                changed
            });
            if found != *recorded {
                return;
            }
        }
    }
}

impl FileWatch {
    /// Records the metadata of the files. Must be called before the files are read, so that a change during the read is
    /// detected.
    pub(crate) async fn update(&mut self) {
        let Some(check) = &self.check else { return };
        // Before the metadata is read, so that no result of a later check is missed.
        let found = check.found.subscribe();
        // A file system that hangs must not prevent the acquisition.
        if let Ok(stamps) = timeout(INTERVAL, stamps(&check.paths)).await {
            self.recorded = Some(Recorded { stamps, found });
        }
    }

    /// Returns the metadata of the files when they were last read.
    pub(crate) fn recorded(&self) -> Option<&[Option<Stamp>]> {
        self.recorded.as_ref().map(|recorded| recorded.stamps.as_slice())
    }

    /// Waits until the metadata of a file differs from the recorded one. Never returns if there are no files.
    ///
    /// # Cancel safety
    /// Safe: records nothing.
    pub(crate) async fn changed(&self) {
        let (Some(check), Some(recorded)) = (&self.check, &self.recorded) else {
            return std::future::pending().await;
        };
        let mut found = recorded.found.clone();
        let found_by_another = async {
            // The sender lives as long as `check`.
            while found.changed().await.is_ok() {
                if *found.borrow_and_update() != recorded.stamps {
                    return;
                }
            }
        };
        tokio::select! {
            () = check.run(&recorded.stamps) => {}
            () = found_by_another => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use tokio::task::JoinSet;
    use tokio::time::sleep;

    use super::*;

    async fn watch(checks: &FileChecks, path: &Path) -> FileWatch {
        let mut watch = checks.watch(vec![path.to_owned()]);
        watch.update().await;
        watch
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_ends_all_waits_of_those_that_share_its_check() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "wrong").unwrap();
        let checks = FileChecks::default();
        let mut waits = JoinSet::new();
        for _ in 0..100 {
            let watch = watch(&checks, &path).await;
            waits.spawn(async move { watch.changed().await });
        }
        assert_eq!(checks.0.lock().unwrap().len(), 1);
        sleep(10 * INTERVAL).await;
        assert_eq!(waits.len(), 100);
        assert!(waits.try_join_next().is_none());
        std::fs::write(&path, "right").unwrap();
        let started = Instant::now();
        while let Some(ended) = waits.join_next().await {
            ended.unwrap();
        }
        assert!(started.elapsed() <= 2 * INTERVAL, "{:?}", started.elapsed());
        // What was read after the change is not reported as another one.
        let after = watch(&checks, &path).await;
        timeout(10 * INTERVAL, after.changed()).await.unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn a_wait_continues_when_the_one_that_makes_the_check_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let checks = FileChecks::default();
        let (first, second) = (watch(&checks, &path).await, watch(&checks, &path).await);
        timeout(2 * INTERVAL, async { tokio::join!(first.changed(), second.changed()) }).await.unwrap_err();
        let waits = tokio::spawn(async move { second.changed().await });
        timeout(3 * INTERVAL, first.changed()).await.unwrap_err();
        std::fs::write(&path, "now it exists").unwrap();
        timeout(2 * INTERVAL, waits).await.unwrap().unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_between_the_read_and_the_wait_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, "wrong").unwrap();
        let checks = FileChecks::default();
        let (early, late) = (watch(&checks, &path).await, watch(&checks, &path).await);
        std::fs::write(&path, "right").unwrap();
        // This wait makes the check and ends before the other one begins.
        timeout(2 * INTERVAL, early.changed()).await.unwrap();
        timeout(2 * INTERVAL, late.changed()).await.unwrap();
    }
}

//! Detects a changed file by its metadata, without reading the file.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// The metadata of a file that differs after a change. The inode and the change time distinguish files with the same length and
/// modification time, such as those in a Nix store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    device: u64,
    inode: u64,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    /// Returns the stamp of a file with this metadata.
    pub fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Returns whether the file changed less than `time` ago. A time in the future, of a host whose clock
    /// differs, does not count.
    pub fn changed_within(&self, time: Duration) -> bool {
        let changed = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(self.changed.0).unwrap_or_default());
        // The whole second may have been about to end.
        SystemTime::now().duration_since(changed).is_ok_and(|age| age < time + Duration::from_secs(1))
    }
}

/// Returns the stamps of files. Follows symbolic links. The stamp of a missing file is `None`.
///
/// # Cancel safety
/// Safe: a call that hangs continues on its own thread.
pub async fn stamps(paths: &[PathBuf]) -> Vec<Option<Stamp>> {
    let mut stamps = Vec::with_capacity(paths.len());
    for path in paths {
        stamps.push(tokio::fs::metadata(path).await.ok().as_ref().map(Stamp::of));
    }
    stamps
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::SystemTime;

    use super::*;

    #[tokio::test]
    async fn detects_that_a_link_points_to_another_file_of_the_same_time_and_length() {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in [("one", "first"), ("two", "other")] {
            std::fs::write(folder.path().join(name), content).unwrap();
            File::options()
                .write(true)
                .open(folder.path().join(name))
                .unwrap()
                .set_modified(SystemTime::UNIX_EPOCH)
                .unwrap();
        }
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("one", &link).unwrap();
        let paths = [link.clone()];
        let before = stamps(&paths).await;
        assert_eq!(before, stamps(&paths).await);
        std::fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink("two", &link).unwrap();
        assert_ne!(before, stamps(&paths).await);
        assert_eq!(stamps(&[folder.path().join("none")]).await, [None]);
    }
}

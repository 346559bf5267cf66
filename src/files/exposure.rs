//! Warnings about files that other users of this host can read or write.
//!
//! A file that every user can write always causes a warning. A secret that every user can read causes one unless it is mounted
//! or belongs to another user: Kubernetes and container runtimes mount secrets with mode 0644 or 0444 by default, in a file
//! system that only the container can access.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::warning::FileWarning;

const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;

/// The folders in which container runtimes mount secrets.
const MOUNTS: [&str; 2] = ["/run/secrets", "/var/run/secrets"];

/// Returns the warning about the mode of a file, if there is one. Symbolic links in `path` must be resolved.
pub(super) fn check(metadata: &Metadata, path: &Path, holds_secret: bool) -> Option<FileWarning> {
    let mode = metadata.mode() & 0o777;
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
    check_mode(mode, is_own, path, holds_secret)
}

fn check_mode(mode: u32, is_own: bool, path: &Path, holds_secret: bool) -> Option<FileWarning> {
    if mode & OTHERS_WRITE != 0 {
        return Some(FileWarning::WritableByAll { mode });
    }
    // Kubernetes mounts files in folders such as `..2026_11_26_17_03_30.1`.
    let is_kubernetes_mount = path.iter().any(|part| part.to_string_lossy().starts_with("..") && part.len() > 2);
    let is_mount = is_kubernetes_mount || MOUNTS.iter().any(|mount| path.starts_with(mount));
    let is_relevant = holds_secret && is_own && !is_mount;
    (is_relevant && mode & OTHERS_READ != 0).then_some(FileWarning::ReadableByAll { mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_about_files_whose_mode_the_gateways_user_can_change() {
        let plain = Path::new("/etc/gateway/secret");
        let mounted = Path::new("/etc/gateway/..2026_11_26_17_03_30.1/secret");
        for (mode, is_own, path, holds_secret, expected) in [
            (0o600, true, plain, true, None),
            (0o640, true, plain, true, None),
            (0o644, true, plain, true, Some(FileWarning::ReadableByAll { mode: 0o644 })),
            (0o644, false, plain, true, None),
            (0o644, true, plain, false, None),
            (0o644, true, mounted, true, None),
            (0o444, true, Path::new("/run/secrets/key"), true, None),
            (0o666, false, mounted, true, Some(FileWarning::WritableByAll { mode: 0o666 })),
            (0o666, true, plain, false, Some(FileWarning::WritableByAll { mode: 0o666 })),
        ] {
            assert_eq!(check_mode(mode, is_own, path, holds_secret), expected, "{mode:o} {}", path.display());
        }
    }
}

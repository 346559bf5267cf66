//! Who else on this host can read or write a file.
//!
//! What anybody may write is said always. What anybody may read is said only where the gateway's user could have prevented
//! it: Kubernetes and container runtimes mount secrets with mode 0644 or 0444 by default, in a file system of the container
//! alone, and a warning about each would hide the others.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::remark::Remark;

const OTHERS_READ: u32 = 0o004;
const OTHERS_WRITE: u32 = 0o002;

/// Where container runtimes mount secrets.
const MOUNTS: [&str; 2] = ["/run/secrets", "/var/run/secrets"];

/// Returns what is to be said about a file's mode. `path` has its links resolved.
pub(super) fn of(metadata: &Metadata, path: &Path, holds_secret: bool) -> Option<Remark> {
    let mode = metadata.mode() & 0o777;
    let is_own = metadata.uid() == rustix::process::geteuid().as_raw();
    judge(mode, is_own, path, holds_secret)
}

fn judge(mode: u32, is_own: bool, path: &Path, holds_secret: bool) -> Option<Remark> {
    if mode & OTHERS_WRITE != 0 {
        return Some(Remark::WritableByAll { mode });
    }
    // Kubernetes keeps what it mounts in folders such as `..2026_11_26_17_03_30.1`.
    let of_kubernetes = path.iter().any(|part| part.to_string_lossy().starts_with("..") && part.len() > 2);
    let is_mount = of_kubernetes || MOUNTS.iter().any(|mount| path.starts_with(mount));
    let is_said = holds_secret && is_own && !is_mount;
    (is_said && mode & OTHERS_READ != 0).then_some(Remark::ReadableByAll { mode })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_the_operator_can_change_and_not_what_every_mount_has() {
        let plain = Path::new("/etc/gateway/secret");
        let mounted = Path::new("/etc/gateway/..2026_11_26_17_03_30.1/secret");
        for (mode, is_own, path, holds_secret, expected) in [
            (0o600, true, plain, true, None),
            (0o640, true, plain, true, None),
            (0o644, true, plain, true, Some(Remark::ReadableByAll { mode: 0o644 })),
            (0o644, false, plain, true, None),
            (0o644, true, plain, false, None),
            (0o644, true, mounted, true, None),
            (0o444, true, Path::new("/run/secrets/key"), true, None),
            (0o666, false, mounted, true, Some(Remark::WritableByAll { mode: 0o666 })),
            (0o666, true, plain, false, Some(Remark::WritableByAll { mode: 0o666 })),
        ] {
            assert_eq!(judge(mode, is_own, path, holds_secret), expected, "{mode:o} {}", path.display());
        }
    }
}

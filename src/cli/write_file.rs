//! Writes files for other programs: completely or not at all, and never through a symbolic link.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The mode of a new file. It holds addresses and paths, and no secrets but those of an emulator.
const MODE: u32 = 0o644;

/// Checks that a file can be written at `path`. Called at start, so that a wrong path is an error there.
///
/// # Errors
/// If `path` exists and is not a regular file, or its folder does not exist.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => {
            bail!("{} is a symbolic link: give the path of its target", path.display())
        }
        Ok(found) if !found.is_file() => {
            bail!("{} exists and is not a regular file: choose another path", path.display())
        }
        Ok(_) => Ok(()),
        Err(err) if err.kind() == io::ErrorKind::NotFound && folder(path).is_dir() => Ok(()),
        Err(err) => Err(err).with_context(|| format!("{} cannot be written: its folder must exist", path.display())),
    }
}

/// Writes a file atomically, so that readers see the old or the new content. Keeps the mode of an existing file.
///
/// # Errors
/// As [`check`], or if it cannot be written.
pub(super) fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    check(path)?;
    let mode = std::fs::symlink_metadata(path).ok().map(|file| file.permissions().mode() & 0o777);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder(path).join(format!(".{name}.{}-{:08x}", std::process::id(), fastrand::u32(..)));
    let written = || -> io::Result<()> {
        // Fails if the name exists, even as a symbolic link.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&temporary)?;
        if let Some(mode) = mode {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        file.write_all(content)?;
        std::fs::rename(&temporary, path)
    };
    written().with_context(|| {
        let _may_not_exist = std::fs::remove_file(&temporary);
        format!("cannot write {}", path.display())
    })
}

/// Returns the folder of a file.
fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replaces_a_file_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready.json");
        write(&path, b"one").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o133, 0);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "leaves no temporary file");
    }

    #[test]
    fn follows_no_link_and_replaces_only_regular_files() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, path) = (dir.path().join("victim"), dir.path().join("ready.json"));
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        assert!(write(&path, b"x").unwrap_err().to_string().contains("is a symbolic link"));
        // A symbolic link at the temporary name that an earlier version used.
        std::os::unix::fs::symlink(&victim, dir.path().join("other.json.part")).unwrap();
        write(&dir.path().join("other.json"), b"x").unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        assert!(write(dir.path(), b"x").unwrap_err().to_string().contains("not a regular file"));
        assert!(
            check(&dir.path().join("nowhere/ready.json")).unwrap_err().to_string().contains("its folder must exist")
        );
    }
}

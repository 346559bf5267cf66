//! Files that a command writes for another program: whole or not at all, and never through a symbolic link.

use std::fs::{OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

/// The mode of a file that was not there. It holds addresses and paths, no secrets.
const MODE: u32 = 0o644;

/// Looks whether a file can be written at `path`, so that a mistake ends the start and not the wait for the file.
///
/// # Errors
/// If something is there that must not be replaced, or the folder is not there.
pub(super) fn check(path: &Path) -> anyhow::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.is_symlink() => {
            bail!("{} is a symbolic link, must be a file: give its target", path.display())
        }
        Ok(found) if !found.is_file() => {
            bail!("{} is there and not a regular file: choose another path", path.display())
        }
        Ok(_) => Ok(()),
        Err(err) if err.kind() == io::ErrorKind::NotFound && folder(path).is_dir() => Ok(()),
        Err(err) => Err(err).with_context(|| format!("{} cannot be written: its folder must exist", path.display())),
    }
}

/// Writes a file in one step, so that nobody reads half of it. Keeps the mode of one that is there.
///
/// # Errors
/// As [`check`], or if it cannot be written.
pub(super) fn write(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    check(path)?;
    let mode = std::fs::symlink_metadata(path).ok().map(|file| file.permissions().mode() & 0o777);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = folder(path).join(format!(".{name}.{}-{:08x}", std::process::id(), fastrand::u32(..)));
    let written = || -> io::Result<()> {
        // A name that is taken, by a link too, is an error.
        let mut file = OpenOptions::new().write(true).create_new(true).mode(MODE).open(&temporary)?;
        if let Some(mode) = mode {
            file.set_permissions(Permissions::from_mode(mode))?;
        }
        file.write_all(content)?;
        std::fs::rename(&temporary, path)
    };
    written().with_context(|| {
        let _if_it_was_made = std::fs::remove_file(&temporary);
        format!("cannot write {}", path.display())
    })
}

/// The folder that a file is in.
fn folder(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_is_replaced_whole_and_keeps_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ready.json");
        write(&path, b"one").unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o133, 0);
        std::fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        write(&path, b"two").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"two");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn link_is_not_followed_and_what_is_no_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, path) = (dir.path().join("victim"), dir.path().join("ready.json"));
        std::fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        assert!(write(&path, b"x").unwrap_err().to_string().contains("is a symbolic link"));
        // The name that an earlier version wrote to first.
        std::os::unix::fs::symlink(&victim, dir.path().join("other.json.part")).unwrap();
        write(&dir.path().join("other.json"), b"x").unwrap();
        assert_eq!(std::fs::read(&victim).unwrap(), b"precious");
        assert!(write(dir.path(), b"x").unwrap_err().to_string().contains("not a regular file"));
        assert!(
            check(&dir.path().join("nowhere/ready.json")).unwrap_err().to_string().contains("its folder must exist")
        );
    }
}

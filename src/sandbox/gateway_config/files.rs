//! Writes the files of a sandbox.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::sandbox::error::SandboxError;

/// The name of the program that prints an assertion.
pub(crate) const ASSERTION_COMMAND: &str = "get-assertion";

/// The program. It prints the assertion file in its own folder.
pub(crate) const ASSERTION_SCRIPT: &str = "#!/bin/sh\nexec cat \"${0%/*}/assertion.jwt\"\n";

/// The paths of the files of a sandbox with the built-in scenario.
#[derive(Clone, Debug)]
pub struct Files {
    /// The configuration.
    pub config: PathBuf,
    /// The certificate of the certificate authority.
    pub ca: PathBuf,
    /// The secret of the app registration.
    pub secret: PathBuf,
    /// The certificate of the app registration, with its key.
    pub certificate: PathBuf,
    /// An assertion of the external issuer.
    pub assertion: PathBuf,
}

/// The paths of the files of a sandbox with a [`DescribedDirectory`](crate::sandbox::DescribedDirectory).
#[derive(Clone, Debug)]
pub struct DescribedFiles {
    /// The gateway's configuration, if there is a gateway.
    pub config: Option<PathBuf>,
    /// The certificate of the certificate authority.
    pub ca: PathBuf,
}

/// A writer of files into one folder.
pub(crate) struct FileWriter<'a>(&'a Path);

impl<'a> FileWriter<'a> {
    /// Creates a writer, and the folder if it does not exist.
    pub(crate) fn new(folder: &'a Path) -> Result<Self, SandboxError> {
        fs::create_dir_all(folder).map_err(|source| SandboxError::Write { path: folder.to_owned(), source })?;
        Ok(Self(folder))
    }

    /// Writes a file that only its owner can read.
    pub(crate) fn file(&self, name: &str, content: &str) -> Result<PathBuf, SandboxError> {
        self.write(name, content, 0o600)
    }

    /// Writes a file that every user can read: clients in other containers run as other users.
    pub(crate) fn public_file(&self, name: &str, content: &str) -> Result<PathBuf, SandboxError> {
        self.write(name, content, 0o644)
    }

    /// Writes a program that only its owner can execute.
    pub(crate) fn executable(&self, name: &str, content: &str) -> Result<PathBuf, SandboxError> {
        self.write(name, content, 0o700)
    }

    fn write(&self, name: &str, content: &str, mode: u32) -> Result<PathBuf, SandboxError> {
        let path = self.0.join(name);
        match write(&path, content, mode) {
            Ok(()) => Ok(path),
            Err(source) => Err(SandboxError::Write { path, source }),
        }
    }
}

/// Writes a file atomically and with this mode. Replaces an existing file or symbolic link.
#[cfg(unix)]
fn write(path: &Path, content: &str, mode: u32) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}.{}-{:08x}", std::process::id(), fastrand::u32(..)));
    let written = || {
        let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        // The umask may have removed bits.
        file.set_permissions(fs::Permissions::from_mode(mode))?;
        file.write_all(content.as_bytes())?;
        fs::rename(&temporary, path)
    };
    written().inspect_err(|_| drop(fs::remove_file(&temporary)))
}

#[cfg(not(unix))]
fn write(path: &Path, content: &str, _mode: u32) -> io::Result<()> {
    fs::write(path, content)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn sets_the_mode_and_replaces_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let (victim, path) = (dir.path().join("victim"), dir.path().join("client-secret"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, &path).unwrap();
        write(&path, "secret", 0o600).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        write(&path, "another", 0o600).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&path).unwrap(), "another");
        assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 2, "no temporary file remains");
    }
}

//! The user that the service runs as: files that root can read and that user cannot let the next start fail.

use std::path::{Path, PathBuf};

use anyhow::anyhow;
use clap::Args;

use super::output::{FileReport, usage};
use crate::config::Loaded;
use crate::files::User;

/// The user that the packages create.
const PACKAGED: &str = "signalr-gateway";

/// The option that names the user of the service.
#[derive(Debug, Args)]
pub(super) struct UserOption {
    /// Warn about files that this user cannot read. Default, if run as root: signalr-gateway, if this host has that user.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

impl UserOption {
    /// Returns the files of a configuration that the service's user cannot read.
    ///
    /// # Errors
    /// The user that the command line names does not exist.
    pub(super) fn unreadable_files(&self, loaded: &Loaded) -> anyhow::Result<Vec<FileReport>> {
        let user = match &self.user {
            Some(name) => {
                let unknown = || usage(anyhow!("this host has no user `{name}` in /etc/passwd; correct --user"));
                User::find(name).ok_or_else(unknown)?
            }
            None if !rustix::process::geteuid().is_root() => return Ok(Vec::new()),
            None => match User::find(PACKAGED) {
                Some(user) => user,
                None => return Ok(Vec::new()),
            },
        };
        let mut files: Vec<(String, &Path)> = Vec::new();
        files.extend(loaded.sources.iter().map(|path| (path.display().to_string(), path.as_path())));
        files.extend(loaded.files.iter().map(|(key, path): &(String, PathBuf)| (key.clone(), path.as_path())));
        let unreadable = files.into_iter().filter_map(|(key, path)| {
            let fact = user.cannot_read(path)?.to_string();
            Some(FileReport { key, fact })
        });
        Ok(unreadable.collect())
    }
}

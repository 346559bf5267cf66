//! Runs a program and returns its output. The program has no shell, no input and only selected environment variables. Its time
//! and output are limited. Cancelling kills the program and its children.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::files::Secret;
use crate::redact::{self, SentSecrets};

/// The largest stdout. Tokens are below 10 kB.
const MAX_STDOUT: usize = 64 * 1024;

/// The number of bytes of stderr that are kept and shown. They are the last ones, which usually name the error.
const MAX_STDERR: usize = 600;

/// A program to run.
pub(crate) struct Program<'a> {
    /// A path, or a name to find in `PATH`.
    pub(crate) path: &'a Path,
    pub(crate) arguments: Vec<&'a str>,
    /// The variables that it inherits from the gateway; no others.
    pub(crate) environment: Vec<&'a str>,
    /// Its deadline.
    pub(crate) timeout: Duration,
}

/// Why a program printed no usable token.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("{} cannot be started: check that it is installed, executable and in PATH", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// Its output could not be read.
    #[error("cannot read the output of {}", program.display())]
    Read {
        /// The program.
        program: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// It did not end with exit code 0.
    #[error("{} failed with {status}{}", program.display(), stderr_suffix(stderr))]
    Failed {
        /// The program.
        program: PathBuf,
        /// Its exit code, or the signal that ended it.
        status: ExitStatus,
        /// The end of its stderr, in one line.
        stderr: String,
    },
    /// It exceeded its deadline and was killed.
    #[error("{} did not end within {} and was killed", program.display(), humantime::format_duration(*after))]
    Timeout {
        /// The program.
        program: PathBuf,
        /// The deadline.
        after: Duration,
    },
    /// Its stdout is larger than any token, and it was killed.
    #[error("{} printed more than {MAX_STDOUT} bytes: it must print only the token", program.display())]
    OutputTooLarge {
        /// The program.
        program: PathBuf,
    },
    /// Its output is not a token.
    #[error("{} printed no token: it must print what the reference configuration describes and nothing else", program.display())]
    NotAToken {
        /// The program.
        program: PathBuf,
    },
    /// The token it printed has expired.
    #[error("the token that {} printed expired at {}: the program returned an old token, or this host's clock is wrong", program.display(), humantime::format_rfc3339_seconds(*expired))]
    Expired {
        /// The program.
        program: PathBuf,
        /// When.
        expired: SystemTime,
    },
}

impl CommandError {
    /// Returns whether the next run may succeed although nothing is changed.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Start { source, .. } => {
                !matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
            }
            Self::Read { .. } | Self::Failed { .. } | Self::Timeout { .. } => true,
            Self::OutputTooLarge { .. } | Self::NotAToken { .. } | Self::Expired { .. } => false,
        }
    }
}

fn stderr_suffix(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {stderr}") }
}

impl Program<'_> {
    /// Runs the program and returns its stdout.
    ///
    /// # Cancel safety
    /// Safe: kills the program and its children.
    pub(crate) async fn run(&self) -> Result<Secret, CommandError> {
        match timeout(self.timeout, self.run_without_deadline()).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(CommandError::Timeout { program: self.path.to_owned(), after: self.timeout }),
        }
    }

    async fn run_without_deadline(&self) -> Result<Secret, CommandError> {
        let program = || self.path.to_owned();
        let read = |source| CommandError::Read { program: program(), source };
        let mut running = self.start().map_err(|source| CommandError::Start { program: program(), source })?;
        let (stdout, stderr) = (running.0.stdout.take(), running.0.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(read(io::Error::other("the program has no output pipes")));
        };
        // `wait` comes after both pipes have ended: until then, the id of the process group cannot be reused and the group can
        // be killed.
        let printed = async {
            let printed = read_limited(stdout).await.map_err(read)?;
            printed.ok_or_else(|| CommandError::OutputTooLarge { program: program() })
        };
        let failed = async { read_tail(stderr).await.map_err(read) };
        let (printed, errors) = tokio::try_join!(printed, failed)?;
        let status = running.0.wait().await.map_err(read)?;
        if !status.success() {
            return Err(CommandError::Failed { program: program(), status, stderr: mask_stderr(&errors, &printed) });
        }
        let printed = std::str::from_utf8(&printed).map_err(|_err| CommandError::NotAToken { program: program() })?;
        Ok(Secret::new(printed.to_owned()))
    }

    fn start(&self) -> io::Result<RunningProgram> {
        let mut command = Command::new(self.path);
        command.args(&self.arguments).env_clear().kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        for name in &self.environment {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        #[cfg(unix)]
        command.process_group(0);
        command.spawn().map(RunningProgram)
    }
}

/// A running program. Dropping it kills the program and its children.
struct RunningProgram(Child);

#[cfg(unix)]
impl Drop for RunningProgram {
    fn drop(&mut self) {
        // `id` is `None` after `wait`, because another process may have the id by then.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(group) = id {
            let _already_ended = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Reads to the end. Returns `None` if there are more than [`MAX_STDOUT`] bytes.
async fn read_limited(from: impl AsyncRead + Unpin) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
    let limit = u64::try_from(MAX_STDOUT).unwrap_or(u64::MAX) + 1;
    let length = from.take(limit).read_to_end(&mut bytes).await?;
    Ok((length <= MAX_STDOUT).then_some(bytes))
}

/// Reads to the end and keeps the last [`MAX_STDERR`] bytes.
async fn read_tail(mut from: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    while from.read_buf(&mut kept).await? > 0 {
        let excess = kept.len().saturating_sub(MAX_STDERR);
        kept.drain(..excess);
    }
    Ok(kept)
}

/// Formats stderr in one line. Masks everything that looks like a token or was also printed to stdout.
fn mask_stderr(stderr: &[u8], stdout: &[u8]) -> String {
    let mut sent = SentSecrets::default();
    String::from_utf8_lossy(stdout).split_whitespace().for_each(|word| sent.add(word));
    let text = String::from_utf8_lossy(stderr);
    // Drops the first word: it may be the end of a longer one that would have been masked.
    let text = if stderr.len() < MAX_STDERR {
        &text
    } else {
        text.split_once(char::is_whitespace).map_or("", |(_, rest)| rest)
    };
    redact::prose(text, &sent)
}

#[cfg(all(test, unix))]
mod tests;

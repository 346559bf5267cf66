//! Running a program for what it prints: no shell, no input, a short list of variables, a time and a size, and nothing of
//! it left behind when it is no longer waited for. Does not know what it prints.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, SystemTime};

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::files::Secret;
use crate::redact::{self, Sent};

/// The most that is read of what a program prints. Tokens are below 10 kB.
const MAX_STDOUT: usize = 64 * 1024;

/// The most of a program's complaints that is kept and shown, in bytes: the last ones, which say most.
const MAX_STDERR: usize = 600;

/// A program to run.
pub(crate) struct Program<'a> {
    /// A path, or a name that is looked for in `PATH`.
    pub(crate) path: &'a Path,
    pub(crate) arguments: Vec<&'a str>,
    /// The variables that it sees, where the gateway has them; no others.
    pub(crate) environment: Vec<&'a str>,
    /// How long it may take.
    pub(crate) timeout: Duration,
}

/// A program did not give a token.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// It could not be started.
    #[error("{} cannot be started: check that it is installed, may be executed and is found in PATH", program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// What it prints could not be read.
    #[error("what {} prints cannot be read", program.display())]
    Read {
        /// The program.
        program: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It ended otherwise than with exit code 0.
    #[error("{} failed with {status}{}", program.display(), said(stderr))]
    Failed {
        /// The program.
        program: PathBuf,
        /// Its exit code, or the signal that ended it.
        status: ExitStatus,
        /// The end of what it wrote to stderr, in one line.
        stderr: String,
    },
    /// It took too long and was killed.
    #[error("{} did not end within {} and was killed", program.display(), humantime::format_duration(*after))]
    TooSlow {
        /// The program.
        program: PathBuf,
        /// How long it had.
        after: Duration,
    },
    /// It prints more than a token, and was killed.
    #[error("{} prints more than {MAX_STDOUT} bytes: it must print the token alone", program.display())]
    TooMuch {
        /// The program.
        program: PathBuf,
    },
    /// What it prints is not a token.
    #[error("{} does not print a token: it must print what is wanted of it and nothing else, see its entry in the reference configuration", program.display())]
    NotAToken {
        /// The program.
        program: PathBuf,
    },
    /// What it prints has expired.
    #[error("the token that {} prints expired at {}: it hands out an old one, or this host's clock is wrong", program.display(), humantime::format_rfc3339_seconds(*expired))]
    Expired {
        /// The program.
        program: PathBuf,
        /// When.
        expired: SystemTime,
    },
}

impl CommandError {
    /// Whether the next run may well do better.
    pub(crate) fn may_pass(&self) -> bool {
        match self {
            Self::Start { source, .. } => {
                !matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied)
            }
            Self::Read { .. } | Self::Failed { .. } | Self::TooSlow { .. } => true,
            Self::TooMuch { .. } | Self::NotAToken { .. } | Self::Expired { .. } => false,
        }
    }
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {stderr}") }
}

impl Program<'_> {
    /// Runs the program to its end and returns what it printed.
    ///
    /// # Cancel safety
    /// Safe: the program and what it started are killed.
    pub(crate) async fn run(&self) -> Result<Secret, CommandError> {
        match timeout(self.timeout, self.run_to_its_end()).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(CommandError::TooSlow { program: self.path.to_owned(), after: self.timeout }),
        }
    }

    async fn run_to_its_end(&self) -> Result<Secret, CommandError> {
        let program = || self.path.to_owned();
        let read = |source| CommandError::Read { program: program(), source };
        let mut running = self.start().map_err(|source| CommandError::Start { program: program(), source })?;
        let (stdout, stderr) = (running.0.stdout.take(), running.0.stderr.take());
        let (Some(stdout), Some(stderr)) = (stdout, stderr) else {
            return Err(read(io::Error::other("it has no output")));
        };
        // Both to their ends before it is waited for: until then its process group is known to be its own.
        let printed = async {
            let printed = first(stdout).await.map_err(read)?;
            printed.ok_or_else(|| CommandError::TooMuch { program: program() })
        };
        let complained = async { last(stderr).await.map_err(read) };
        let (printed, complaints) = tokio::try_join!(printed, complained)?;
        let status = running.0.wait().await.map_err(read)?;
        if !status.success() {
            return Err(CommandError::Failed { program: program(), status, stderr: shown(&complaints, &printed) });
        }
        let printed = std::str::from_utf8(&printed).map_err(|_err| CommandError::NotAToken { program: program() })?;
        Ok(Secret::new(printed.to_owned()))
    }

    fn start(&self) -> io::Result<Running> {
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
        command.spawn().map(Running)
    }
}

/// A program that runs. When this is dropped before its end, it is killed with everything that it started.
struct Running(Child);

#[cfg(unix)]
impl Drop for Running {
    fn drop(&mut self) {
        // There is no id any more once it was waited for: another process may have it by then.
        let id = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
        if let Some(group) = id {
            let _ended_by_itself = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
    }
}

/// Reads everything; `None` when it is more than a token.
async fn first(from: impl AsyncRead + Unpin) -> io::Result<Option<Zeroizing<Vec<u8>>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
    let limit = u64::try_from(MAX_STDOUT).unwrap_or(u64::MAX) + 1;
    let length = from.take(limit).read_to_end(&mut bytes).await?;
    Ok((length <= MAX_STDOUT).then_some(bytes))
}

/// Reads everything and keeps the end.
async fn last(mut from: impl AsyncRead + Unpin) -> io::Result<Vec<u8>> {
    let mut kept = Vec::new();
    while from.read_buf(&mut kept).await? > 0 {
        let excess = kept.len().saturating_sub(MAX_STDERR);
        kept.drain(..excess);
    }
    Ok(kept)
}

/// What may be shown of stderr: in one line, without anything that looks like a token or was printed to stdout as well.
fn shown(stderr: &[u8], stdout: &[u8]) -> String {
    let mut sent = Sent::default();
    String::from_utf8_lossy(stdout).split_whitespace().for_each(|word| sent.add(word));
    let text = String::from_utf8_lossy(stderr);
    // The first word may be the end of a longer one, which would have been left out whole.
    let text = if stderr.len() < MAX_STDERR {
        &text
    } else {
        text.split_once(char::is_whitespace).map_or("", |(_, rest)| rest)
    };
    redact::prose(text, &sent)
}

#[cfg(all(test, unix))]
mod tests;

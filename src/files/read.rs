//! Reads small UTF-8 text files with a limit on size and time, and removes a byte order mark.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::exposure;
use super::secret::Secret;
use super::stamp::Stamp;
use super::warning::FileWarning;

/// The maximum size of a file, in bytes. Chosen: a system's CA bundle has 220 kB, and a wrong path, such as that of a log, must
/// not exhaust the memory.
const MAX_FILE_BYTES: usize = 1024 * 1024;

/// The timeout of one read. Chosen: local files take microseconds, a slow network mount less than a second. After a timeout, a
/// fifth of an acquisition's deadline has passed.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum number of concurrent reads. Each uses a thread, which is lost if its file system hangs. Chosen: four times the
/// maximum number of credentials.
const MAX_ACTIVE_READS: usize = 128;

static ACTIVE_READS: AtomicUsize = AtomicUsize::new(0);

/// Why a file cannot be read, without any part of its content.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened or read.
    #[error("cannot read {}: check that it exists and that the gateway's user may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// It is not a regular file.
    #[error("{} is {kind}, must be a file: it is read each time it is used", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It is too large.
    #[error("{} is larger than {limit} bytes: check the path", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The maximum size, in bytes.
        limit: usize,
    },
    /// It is UTF-16.
    #[error("{path} is UTF-16, must be UTF-8: convert it with `iconv -f UTF-16 -t UTF-8 {path} > {path}.utf8`, and use the new file", path = path.display())]
    Utf16 {
        /// The file.
        path: PathBuf,
    },
    /// It is not text.
    #[error("{} is not UTF-8 text: check the path", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// Its file system does not respond.
    #[error("{} could not be read within {}: its file system does not respond", path.display(), humantime::format_duration(READ_TIMEOUT))]
    Timeout {
        /// The file.
        path: PathBuf,
    },
}

impl FileError {
    /// Returns the file.
    pub fn path(&self) -> &Path {
        match self {
            Self::Unreadable { path, .. }
            | Self::NotAFile { path, .. }
            | Self::TooLarge { path, .. }
            | Self::Utf16 { path }
            | Self::NotText { path }
            | Self::Timeout { path } => path,
        }
    }
}

/// The text of a file.
#[derive(Debug)]
pub struct TextFile {
    /// The text, without a byte order mark.
    pub text: Secret,
    /// Its metadata when it was opened.
    pub stamp: Stamp,
    metadata: Metadata,
    path: PathBuf,
}

impl TextFile {
    /// Returns a warning if other users can access the file.
    pub fn exposure_warning(&self, holds_secret: bool) -> Option<FileWarning> {
        let real_path = self.path.canonicalize().unwrap_or_else(|_gone| self.path.clone());
        exposure::check(&self.metadata, &real_path, holds_secret)
    }
}

/// Reads a file on another thread, so that a file system that hangs cannot block the runtime.
///
/// # Errors
/// [`FileError`] if it cannot be read as text.
///
/// # Cancel safety
/// Safe: a read that hangs continues on its own thread.
pub async fn read(path: &Path) -> Result<TextFile, FileError> {
    let timeout = || FileError::Timeout { path: path.to_owned() };
    let Some(permit) = ReadPermit::take() else { return Err(timeout()) };
    let file = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let _permit = permit;
        read_blocking(&file)
    });
    match tokio::time::timeout(READ_TIMEOUT, reading).await {
        Ok(Ok(outcome)) => outcome,
        // The message of a panic is on stderr.
        Ok(Err(_)) | Err(_) => Err(timeout()),
    }
}

/// Reads a file from synchronous code. Blocks no longer than the timeout.
///
/// # Errors
/// Like [`read`].
pub fn read_with_timeout(path: &Path) -> Result<TextFile, FileError> {
    read_with_timeout_up_to(path, MAX_FILE_BYTES)
}

/// Reads a file of at most `limit` bytes from synchronous code. Blocks no longer than the timeout.
///
/// # Errors
/// Like [`read`].
pub fn read_with_timeout_up_to(path: &Path, limit: usize) -> Result<TextFile, FileError> {
    let file = path.to_owned();
    let outcome = run_with_timeout(move || read_blocking_up_to(&file, limit));
    outcome.unwrap_or_else(|| Err(FileError::Timeout { path: path.to_owned() }))
}

/// Returns whether a file is empty.
///
/// # Errors
/// [`FileError`] if the file does not exist or cannot be opened.
pub fn is_empty(path: &Path) -> Result<bool, FileError> {
    let file = path.to_owned();
    let outcome = run_with_timeout(move || open(&file).map(|(_, metadata)| metadata.len() == 0));
    outcome.unwrap_or_else(|| Err(FileError::Timeout { path: path.to_owned() }))
}

/// Runs `work` on a new thread. Returns `None` after the timeout.
fn run_with_timeout<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let permit = ReadPermit::take()?;
    let (done, outcome) = mpsc::sync_channel(1);
    let spawned = std::thread::Builder::new().name("file".to_owned()).spawn(move || {
        let _permit = permit;
        // The receiver is dropped after the timeout.
        let _too_late = done.send(work());
    });
    spawned.ok()?;
    outcome.recv_timeout(READ_TIMEOUT).ok()
}

/// A permit for one read.
struct ReadPermit;

impl ReadPermit {
    fn take() -> Option<Self> {
        let taken = ACTIVE_READS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |reads| {
            (reads < MAX_ACTIVE_READS).then_some(reads + 1)
        });
        taken.is_ok().then_some(Self)
    }
}

impl Drop for ReadPermit {
    fn drop(&mut self) {
        ACTIVE_READS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads a regular file on the calling thread, without a timeout.
fn read_blocking(path: &Path) -> Result<TextFile, FileError> {
    read_blocking_up_to(path, MAX_FILE_BYTES)
}

/// Reads a regular file of at most `limit` bytes on the calling thread, without a timeout.
///
/// # Errors
/// Like [`read`], except for the timeout.
pub fn read_blocking_up_to(path: &Path, limit: usize) -> Result<TextFile, FileError> {
    let (file, metadata) = open(path)?;
    read_to_end(path, file, metadata, limit)
}

/// Reads a regular file or a pipe of at most `limit` bytes on the calling thread. Waits for the writer of the pipe.
///
/// # Errors
/// Like [`read`], except for the timeout.
pub fn read_blocking_or_pipe(path: &Path, limit: usize) -> Result<TextFile, FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(FileError::NotAFile { path: path.to_owned(), kind: describe_kind(&metadata) });
    }
    read_to_end(path, file, metadata, limit)
}

fn open(path: &Path) -> Result<(File, Metadata), FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    // Without `O_NONBLOCK`, opening a FIFO waits for a writer.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_file() {
        return Ok((file, metadata));
    }
    Err(FileError::NotAFile { path: path.to_owned(), kind: describe_kind(&metadata) })
}

/// Returns the kind of something that is not a regular file.
fn describe_kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "a special file",
    }
}

fn read_to_end(path: &Path, file: File, metadata: Metadata, limit: usize) -> Result<TextFile, FileError> {
    // The buffer is allocated once: growing it would leave copies that are not wiped.
    let expected = usize::try_from(metadata.len()).unwrap_or(usize::MAX).min(limit) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected));
    let end = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    let length = file.take(end).read_to_end(&mut bytes);
    let length = length.map_err(|source| FileError::Unreadable { path: path.to_owned(), source })?;
    if length > limit {
        return Err(FileError::TooLarge { path: path.to_owned(), limit });
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(FileError::Utf16 { path: path.to_owned() });
    }
    let Ok(text) = std::str::from_utf8(&bytes) else { return Err(FileError::NotText { path: path.to_owned() }) };
    let text = Secret::new(text.trim_start_matches('\u{feff}').to_owned());
    Ok(TextFile { text, stamp: Stamp::of(&metadata), metadata, path: path.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_bytes(content: &[u8]) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, content).unwrap();
        let read = read_with_timeout(&path);
        read.map(|file| file.text.expose().to_owned()).map_err(|err| err.to_string())
    }

    #[test]
    fn strips_a_byte_order_mark() {
        assert_eq!(read_bytes(b"\xef\xbb\xbftext\n").unwrap(), "text\n");
        assert_eq!(read_bytes(b"text").unwrap(), "text");
    }

    #[test]
    fn errors_contain_no_part_of_the_file() {
        let utf16: Vec<u8> = [0xff, 0xfe].into_iter().chain("s3cret".bytes().flat_map(|byte| [byte, 0])).collect();
        for (content, expected) in [
            (utf16.as_slice(), "iconv -f UTF-16 -t UTF-8 "),
            (b"s3cret\xff".as_slice(), "is not UTF-8 text"),
            (&vec![b'x'; MAX_FILE_BYTES + 1], "is larger than 1048576 bytes"),
        ] {
            let text = read_bytes(content).unwrap_err();
            assert!(text.contains(expected) && !text.contains("s3cret"), "{text}");
        }
    }

    #[tokio::test]
    async fn rejects_a_pipe_a_folder_and_a_device_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for (path, kind) in
            [(pipe.as_path(), "a pipe"), (folder.path(), "a folder"), (Path::new("/dev/zero"), "a device")]
        {
            let text = read(path).await.unwrap_err().to_string();
            assert!(text.contains(&format!("is {kind}, must be a file")), "{text}");
            assert!(is_empty(path).is_err());
        }
    }

    #[test]
    fn only_read_blocking_or_pipe_waits_for_the_writer_of_a_pipe() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(matches!(read_blocking(&pipe), Err(FileError::NotAFile { kind: "a pipe", .. })));
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::write(pipe, "text")
        });
        assert_eq!(read_blocking_or_pipe(&pipe, MAX_FILE_BYTES).unwrap().text.expose(), "text");
        writer.join().unwrap().unwrap();
        assert!(matches!(
            read_blocking_or_pipe(folder.path(), MAX_FILE_BYTES),
            Err(FileError::NotAFile { kind: "a folder", .. })
        ));
    }
}

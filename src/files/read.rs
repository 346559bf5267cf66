//! Reading a small text file: bounded in size and time, regular files alone, as UTF-8 without a byte order mark.

use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use zeroize::Zeroizing;

use super::exposure;
use super::remark::Remark;
use super::secret::Secret;

/// The most bytes of a file that are read. Chosen: a system's bundle of CAs has 220 kB, and a wrong path (a log, a device)
/// must not fill the memory.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// How long one file may take. Chosen: local files take microseconds and a slow network mount less than a second, and a
/// mount that hangs must leave time for the rest of an acquisition.
const TIME: Duration = Duration::from_secs(5);

/// The most reads under way. Each holds a thread, for ever if its file system hangs. Chosen: four times the credentials that
/// a configuration may have.
const MAX_UNDER_WAY: usize = 128;

static UNDER_WAY: AtomicUsize = AtomicUsize::new(0);

/// A file cannot be read. It repeats nothing of what is in the file.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// It cannot be opened or read.
    #[error("cannot read {}: check that it exists and that the gateway's user may read it", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is something else than a file.
    #[error("{} is {kind}, must be a file: it is read again whenever it is used", path.display())]
    NotAFile {
        /// The path.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
    },
    /// It is far larger than what it should hold.
    #[error("{} is larger than {MAX_FILE_BYTES} bytes: check the path", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// It is UTF-16.
    #[error("{path} is UTF-16, must be UTF-8: convert it with `iconv -f UTF-16 -t UTF-8 {path} > {path}.utf8`, and use that", path = path.display())]
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
    /// The file system does not answer.
    #[error("{} could not be read within {}: its file system does not answer", path.display(), humantime::format_duration(TIME))]
    Hangs {
        /// The file.
        path: PathBuf,
    },
}

/// The text of a file.
#[derive(Debug)]
pub struct TextFile {
    /// The text, without a byte order mark.
    pub text: Secret,
    metadata: Metadata,
    real_path: PathBuf,
}

impl TextFile {
    /// Says who else can reach the file, as far as that is odd.
    pub fn exposure(&self, holds_secret: bool) -> Option<Remark> {
        exposure::of(&self.metadata, &self.real_path, holds_secret)
    }
}

/// Reads a file off the calling thread: a file system that hangs must not hang anything else.
///
/// # Errors
/// [`FileError`] when it cannot be read as text.
///
/// # Cancel safety
/// Safe: a read that hangs is left behind.
pub async fn read(path: &Path) -> Result<TextFile, FileError> {
    let hangs = || FileError::Hangs { path: path.to_owned() };
    let Some(slot) = Slot::take() else { return Err(hangs()) };
    let file = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || {
        let _slot = slot;
        read_blocking(&file)
    });
    match tokio::time::timeout(TIME, reading).await {
        Ok(Ok(outcome)) => outcome,
        // A panic while reading is told apart by what it left on stderr.
        Ok(Err(_)) | Err(_) => Err(hangs()),
    }
}

/// Reads a file, for callers that cannot wait asynchronously. It blocks for as long as [`read`] takes at most.
///
/// # Errors
/// As [`read`].
pub fn read_in_time(path: &Path) -> Result<TextFile, FileError> {
    let file = path.to_owned();
    in_time(move || read_blocking(&file)).unwrap_or_else(|| Err(FileError::Hangs { path: path.to_owned() }))
}

/// Looks whether a file is there, may be read and has something in it.
///
/// # Errors
/// [`FileError`] if it cannot be opened, [`None`] if it is empty.
pub fn exists(path: &Path) -> Result<Option<()>, FileError> {
    let file = path.to_owned();
    let look = in_time(move || open(&file).map(|(_, metadata)| (metadata.len() > 0).then_some(())));
    look.unwrap_or_else(|| Err(FileError::Hangs { path: path.to_owned() }))
}

/// Runs something on a thread of its own and waits for it for a while.
fn in_time<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let slot = Slot::take()?;
    let (done, outcome) = mpsc::sync_channel(1);
    let spawned = std::thread::Builder::new().name("file".to_owned()).spawn(move || {
        let _slot = slot;
        // Nobody receives any more when it took too long.
        let _too_late = done.send(work());
    });
    spawned.ok()?;
    outcome.recv_timeout(TIME).ok()
}

/// A read under way.
struct Slot;

impl Slot {
    fn take() -> Option<Self> {
        let taken = UNDER_WAY
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |reads| (reads < MAX_UNDER_WAY).then_some(reads + 1));
        taken.is_ok().then_some(Self)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        UNDER_WAY.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads a regular file on the calling thread, for as long as its file system takes.
///
/// # Errors
/// As [`read`], without a limit of time.
pub fn read_blocking(path: &Path) -> Result<TextFile, FileError> {
    let (file, metadata) = open(path)?;
    read_to_end(path, file, metadata)
}

/// As [`read_blocking`], but reads a pipe as well, and waits for its writer.
///
/// # Errors
/// As [`read`], without a limit of time.
pub fn read_blocking_or_pipe(path: &Path) -> Result<TextFile, FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    let file = File::open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_dir() {
        return Err(FileError::NotAFile { path: path.to_owned(), kind: kind_of(&metadata) });
    }
    read_to_end(path, file, metadata)
}

fn open(path: &Path) -> Result<(File, Metadata), FileError> {
    let unreadable = |source| FileError::Unreadable { path: path.to_owned(), source };
    // Opening a FIFO waits for a writer otherwise.
    let nonblocking = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or(0);
    let file = OpenOptions::new().read(true).custom_flags(nonblocking).open(path).map_err(unreadable)?;
    let metadata = file.metadata().map_err(unreadable)?;
    if metadata.is_file() {
        return Ok((file, metadata));
    }
    Err(FileError::NotAFile { path: path.to_owned(), kind: kind_of(&metadata) })
}

/// Returns what a path leads to that is not a regular file.
fn kind_of(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_dir() => "a folder",
        () if kind.is_fifo() => "a pipe",
        () if kind.is_char_device() || kind.is_block_device() => "a device",
        () => "a special file",
    }
}

fn read_to_end(path: &Path, file: File, metadata: Metadata) -> Result<TextFile, FileError> {
    // Room for all of it at once: a buffer that grows leaves copies behind that nobody wipes.
    let expected = usize::try_from(metadata.len()).unwrap_or(usize::MAX).min(MAX_FILE_BYTES) + 1;
    let mut bytes = Zeroizing::new(Vec::with_capacity(expected));
    let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX) + 1;
    let length = file.take(limit).read_to_end(&mut bytes);
    let length = length.map_err(|source| FileError::Unreadable { path: path.to_owned(), source })?;
    if length > MAX_FILE_BYTES {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        return Err(FileError::Utf16 { path: path.to_owned() });
    }
    let Ok(text) = std::str::from_utf8(&bytes) else { return Err(FileError::NotText { path: path.to_owned() }) };
    let text = Secret::new(text.trim_start_matches('\u{feff}').to_owned());
    let real_path = path.canonicalize().unwrap_or_else(|_gone| path.to_owned());
    Ok(TextFile { text, metadata, real_path })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_bytes(content: &[u8]) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, content).unwrap();
        let read = read_in_time(&path);
        read.map(|file| file.text.expose().to_owned()).map_err(|err| err.to_string())
    }

    #[test]
    fn a_byte_order_mark_is_no_part_of_a_text() {
        assert_eq!(read_bytes(b"\xef\xbb\xbftext\n").unwrap(), "text\n");
        assert_eq!(read_bytes(b"text").unwrap(), "text");
    }

    #[test]
    fn says_what_is_wrong_and_shows_nothing_of_it() {
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
    async fn a_pipe_a_folder_and_a_device_are_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        for (path, kind) in
            [(pipe.as_path(), "a pipe"), (folder.path(), "a folder"), (Path::new("/dev/zero"), "a device")]
        {
            let text = read(path).await.unwrap_err().to_string();
            assert!(text.contains(&format!("is {kind}, must be a file")), "{text}");
            assert!(exists(path).is_err());
        }
    }

    #[test]
    fn reads_a_pipe_only_where_it_may_wait_for_the_writer() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        assert!(matches!(read_blocking(&pipe), Err(FileError::NotAFile { kind: "a pipe", .. })));
        let writer = std::thread::spawn({
            let pipe = pipe.clone();
            move || std::fs::write(pipe, "text")
        });
        assert_eq!(read_blocking_or_pipe(&pipe).unwrap().text.expose(), "text");
        writer.join().unwrap().unwrap();
        assert!(matches!(read_blocking_or_pipe(folder.path()), Err(FileError::NotAFile { kind: "a folder", .. })));
    }
}

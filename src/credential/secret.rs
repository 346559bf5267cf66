//! Secrets in memory, and reading them from where the operator put them.
//!
//! A [`Secret`] has no way to be printed. Does not know what a secret is for.

use std::fmt;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::settings::SecretSource;

/// The most bytes of a secret, token or certificate file that are read. Chosen: a certificate chain with its key is
/// below 20 kB, and a wrong path (a log, a device) must not fill the memory.
const MAX_FILE_BYTES: usize = 256 * 1024;

/// Text that is never printed and is wiped when dropped.
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes over a text.
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// Returns the text, for the one place that has to send or sign with it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// A secret, token, certificate or assertion on this host cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// The file cannot be opened or read.
    #[error("cannot read {}: check that it exists and that the gateway's user may read it", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: std::io::Error,
    },
    /// The file is far larger than what it should hold.
    #[error("{} is larger than {MAX_FILE_BYTES} bytes: check the path", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not text.
    #[error("{} is not UTF-8 text: check the path", path.display())]
    NotText {
        /// The file.
        path: PathBuf,
    },
    /// Nothing is there.
    #[error("{place} is empty")]
    Empty {
        /// The file or variable.
        place: String,
    },
    /// What is there cannot be used.
    #[error("{place} {problem}")]
    Unusable {
        /// The file or variable.
        place: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// The environment variable is not there.
    #[error("environment variable {name} is not set (or is not UTF-8 text)")]
    Unset {
        /// The variable.
        name: String,
    },
}

impl SecretSource {
    /// Reads the secret as it is now. A trailing line break is not part of it.
    ///
    /// # Errors
    /// [`SecretError`] when it cannot be read or is empty.
    pub async fn read(&self) -> Result<Secret, SecretError> {
        let text = match self {
            Self::File(path) => read_text(path).await?,
            Self::Env(name) => match std::env::var(name) {
                Ok(text) => Secret::new(text),
                Err(_unset) => return Err(SecretError::Unset { name: name.clone() }),
            },
        };
        match text.expose().trim_end_matches(['\r', '\n']) {
            "" => Err(SecretError::Empty { place: self.to_string() }),
            secret => Ok(Secret::new(secret.to_owned())),
        }
    }

    /// Returns the file whose change means another secret.
    pub(crate) fn file(&self) -> Option<&Path> {
        match self {
            Self::File(path) => Some(path),
            Self::Env(_) => None,
        }
    }
}

impl fmt::Display for SecretSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
        }
    }
}

/// Reads a text file whole, off the calling thread: a file system that hangs must not hang other credentials.
pub(crate) async fn read_text(path: &Path) -> Result<Secret, SecretError> {
    let file = path.to_owned();
    let reading = tokio::task::spawn_blocking(move || read_blocking(file)).await;
    reading.unwrap_or_else(|err| Err(SecretError::File { path: path.to_owned(), source: std::io::Error::other(err) }))
}

/// Reads a file that holds one token: white space around it is not part of it.
pub(crate) async fn read_token(path: &Path) -> Result<Secret, SecretError> {
    let text = read_text(path).await?;
    match text.expose().trim() {
        "" => Err(SecretError::Empty { place: format!("file {}", path.display()) }),
        token => Ok(Secret::new(token.to_owned())),
    }
}

fn read_blocking(path: PathBuf) -> Result<Secret, SecretError> {
    let mut bytes = Zeroizing::new(Vec::new());
    let limit = u64::try_from(MAX_FILE_BYTES).unwrap_or(u64::MAX) + 1;
    let read = std::fs::File::open(&path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    match read {
        Err(source) => Err(SecretError::File { path, source }),
        Ok(length) if length > MAX_FILE_BYTES => Err(SecretError::TooLarge { path }),
        Ok(_) => match std::str::from_utf8(&bytes) {
            Ok(text) => Ok(Secret::new(text.to_owned())),
            Err(_binary) => Err(SecretError::NotText { path }),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_trailing_line_break_is_not_part_of_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        for (content, secret) in
            [("s3cret", "s3cret"), ("s3cret\n", "s3cret"), ("s3cret\r\n", "s3cret"), (" s \n", " s ")]
        {
            std::fs::write(&path, content).unwrap();
            assert_eq!(SecretSource::File(path.clone()).read().await.unwrap().expose(), secret, "{content:?}");
        }
    }

    #[tokio::test]
    async fn says_what_is_wrong_with_a_secret() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        let source = SecretSource::File(path.clone());
        let missing = source.read().await.unwrap_err().to_string();
        assert!(missing.starts_with("cannot read ") && missing.contains("secret"), "{missing}");
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(source.read().await.unwrap_err().to_string(), format!("file {} is empty", path.display()));
        std::fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(source.read().await.unwrap_err().to_string().contains("not UTF-8"));
        std::fs::write(&path, vec![b'x'; MAX_FILE_BYTES + 1]).unwrap();
        assert!(source.read().await.unwrap_err().to_string().contains("larger than"));
        let unset = SecretSource::Env("SIGNALR_GATEWAY_TEST_IS_NOT_SET".into()).read().await.unwrap_err();
        assert!(unset.to_string().contains("SIGNALR_GATEWAY_TEST_IS_NOT_SET is not set"), "{unset}");
    }

    #[test]
    fn a_secret_never_prints() {
        assert_eq!(format!("{:?}", Secret::new("canary".into())), "Secret");
    }
}

//! The configured source of a secret, which is read each time the secret is used.

use std::fmt;
use std::path::{Path, PathBuf};

use super::read::{FileError, read};
use super::secret::Secret;
use super::warning::warnings_about_secret;

/// The source of a secret, read each time the secret is used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SecretSource {
    /// A file. A trailing line break is not part of the secret.
    File(PathBuf),
    /// An environment variable.
    Env(String),
}

/// A secret, and what may be wrong with it.
#[derive(Debug)]
pub struct SecretText {
    /// The secret.
    pub secret: Secret,
    /// Warnings, without any part of the secret.
    pub warnings: Vec<String>,
}

/// Why a source has no secret, without any part of its content.
#[derive(Debug, thiserror::Error)]
pub enum SecretSourceError {
    /// The file cannot be read as text.
    #[error(transparent)]
    File(#[from] FileError),
    /// The file or variable is empty.
    #[error("{location} is empty")]
    Empty {
        /// The file or variable.
        location: String,
    },
    /// The environment variable is not set.
    #[error("environment variable {name} is not set (or is not UTF-8 text)")]
    Unset {
        /// The variable.
        name: String,
    },
}

impl SecretSource {
    /// Returns whether a text looks like the name of a variable. Another text in its place may be the secret itself.
    pub fn is_variable_name(text: &str) -> bool {
        text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    }

    /// Reads the secret. Removes a byte order mark and trailing line breaks.
    ///
    /// # Errors
    /// [`SecretSourceError`] if it cannot be read or is empty.
    ///
    /// # Cancel safety
    /// Safe, as [`read`].
    pub async fn read(&self) -> Result<SecretText, SecretSourceError> {
        let mut warnings = Vec::new();
        let text = match self {
            Self::File(path) => {
                let file = read(path).await?;
                if let Some(warning) = file.exposure_warning(true) {
                    warnings.push(format!("{self} {warning}"));
                }
                file.text
            }
            Self::Env(name) => match std::env::var(name) {
                Ok(text) => Secret::new(text),
                Err(_unset) => return Err(SecretSourceError::Unset { name: name.clone() }),
            },
        };
        let secret = text.expose().trim_start_matches('\u{feff}').trim_end_matches(['\r', '\n']);
        if secret.trim().is_empty() {
            return Err(SecretSourceError::Empty { location: self.to_string() });
        }
        warnings.extend(warnings_about_secret(secret).into_iter().map(|warning| format!("{self} {warning}")));
        Ok(SecretText { secret: Secret::new(secret.to_owned()), warnings })
    }

    /// Returns the file that holds the secret, if it is in a file.
    pub fn file(&self) -> Option<&Path> {
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

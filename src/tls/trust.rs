//! Which CAs a client trusts.

use std::fmt;
use std::path::{Path, PathBuf};

/// The CAs that a server's certificate is verified against. Displays as what they are, for messages.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Trust {
    /// The system's CAs, or those in `SSL_CERT_FILE` and `SSL_CERT_DIR`. They are read once.
    System,
    /// Only the CAs in a PEM file, which is read for each client configuration.
    File(PathBuf),
    /// No CAs, for clients that only connect over http.
    None,
}

impl Trust {
    /// Returns the CAs in `ca_file`, or the system's if it is `None`.
    pub fn from_ca_file(ca_file: Option<&Path>) -> Self {
        ca_file.map_or(Self::System, |path| Self::File(path.to_owned()))
    }
}

impl fmt::Display for Trust {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::System => f.write_str("those of this system"),
            Self::File(path) => write!(f, "`ca_file` {}", path.display()),
            Self::None => f.write_str("none"),
        }
    }
}

//! Small text files from an operator or another program: secrets, tokens, keys, certificates, CAs.
//!
//! The functions here limit the size and the time, and remove a byte order mark. No error or warning contains any part of a
//! file, so errors of parsers are replaced.

mod access;
mod distinguished_name;
mod exposure;
pub mod pem;
mod read;
mod secret;
mod secret_source;
mod stamp;
mod validity;
mod warning;

pub use access::{Unreadable, User};
pub use distinguished_name::distinguished_name;
pub use read::{
    FileError, TextFile, is_empty, read, read_blocking_or_pipe, read_blocking_up_to, read_with_timeout,
    read_with_timeout_up_to,
};
pub use secret::Secret;
pub use secret_source::{SecretSource, SecretSourceError, SecretText};
pub use stamp::{Stamp, stamps};
pub use validity::{NotValid, Validity, expires_soon};
pub use warning::{FileWarning, warnings_about_secret};

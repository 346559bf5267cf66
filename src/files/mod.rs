//! Small text files from an operator or another program: secrets, tokens, keys, certificates, CAs.
//!
//! One function reads all of them. It never blocks on a FIFO or a file system that hangs, limits the size, strips a byte order
//! mark, and warns about invisible characters. No error or warning contains any part of a file, and no error of a parser is
//! passed on.

mod exposure;
pub mod pem;
mod read;
mod secret;
mod stamp;
mod warning;

pub use read::{
    FileError, MAX_FILE_BYTES, TextFile, is_empty, read, read_blocking, read_blocking_or_pipe, read_with_timeout,
};
pub use secret::Secret;
pub use stamp::{Stamp, stamps};
pub use warning::{FileWarning, warnings_about_secret};

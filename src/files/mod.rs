//! Small text files that an operator or another program puts on this host: secrets, tokens, keys, certificates, CAs.
//!
//! One reader for all of them: it never blocks on a FIFO or a file system that hangs, reads a bounded size, drops a byte
//! order mark, and remarks on what tools add unseen. Nothing that it says repeats what is in a file, and no error of a
//! parser leaves it. Does not know what a file is for.

mod exposure;
pub mod pem;
mod read;
mod remark;
mod secret;
mod stamp;

pub use read::{FileError, MAX_FILE_BYTES, TextFile, exists, read, read_blocking, read_blocking_or_pipe, read_in_time};
pub use remark::{Remark, remarks_on_secret};
pub use secret::Secret;
pub use stamp::{Stamp, stamps};

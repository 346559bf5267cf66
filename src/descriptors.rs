//! File descriptors: as many as the system allows, and a reserve for what an operator needs when they run out.
//!
//! Each connection of a caller takes a descriptor, and each to an endpoint. When all are taken, neither probes nor metrics
//! could be answered, and no log, token or configuration file be opened. So data connections leave [`RESERVE`] descriptors
//! free. The kernel hands out the lowest free number, so the number of a fresh descriptor tells how many are taken.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that connections of callers and to endpoints leave free. Chosen: some probes and scrapes side by side, a
/// command's pipes, identity connections and files.
pub const RESERVE: u64 = 64;

/// Raises the limit of open descriptors as far as the process may, and returns it; `None` if there is none.
pub fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(err) => {
            tracing::warn!(error = %err, ?current, ?maximum, "cannot raise the limit of open files");
            current
        }
    }
}

/// Returns how many connections of callers fit under the limit of open descriptors: each may need one to an endpoint.
pub fn room_for_connections() -> usize {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return usize::MAX };
    usize::try_from(limit.saturating_sub(RESERVE) / 2).unwrap_or(usize::MAX).max(1)
}

/// Passes a fresh connection on, unless its descriptor is one of the reserve; then it is closed.
///
/// # Errors
/// As if there had been no descriptor left.
pub fn outside_reserve<S: AsFd>(stream: S) -> io::Result<S> {
    let number = u64::try_from(stream.as_fd().as_raw_fd()).unwrap_or(u64::MAX);
    let is_reserved = getrlimit(Resource::Nofile).current.is_some_and(|limit| number >= limit.saturating_sub(RESERVE));
    if is_reserved { Err(rustix::io::Errno::MFILE.into()) } else { Ok(stream) }
}

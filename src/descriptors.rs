//! The file descriptor limit, and the descriptors reserved for probes, scrapes, logs and files.
//!
//! Each connection of a caller and each connection to an endpoint needs a descriptor. Without a free one the gateway could
//! accept no probes and scrapes, and open no log, token or configuration file. So data connections leave [`RESERVE`]
//! descriptors free. The kernel assigns the lowest free number, so the number of a new descriptor indicates how many are in
//! use.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::runbook::{Condition, Section};

/// The number of descriptors that data connections leave free. Chosen: some concurrent probes and scrapes, a command's pipes,
/// identity connections and files.
pub const RESERVE: u64 = 64;

/// Raises the soft limit of file descriptors to the hard limit. Returns the new limit, or `None` if there is none.
pub fn raise_limit() -> Option<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return current;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => maximum,
        Err(err) => {
            let section = Section::Condition(Condition::OpenFiles);
            tracing::warn!(error = %err, ?current, ?maximum, side = "gateway", remedy = section.remedy(), runbook = %section, "cannot raise the limit of open files");
            current
        }
    }
}

/// Returns the maximum number of caller connections within the limit. Each may need a second descriptor, for a connection to
/// an endpoint.
pub fn max_caller_connections() -> usize {
    let Some(limit) = getrlimit(Resource::Nofile).current else { return usize::MAX };
    usize::try_from(limit.saturating_sub(RESERVE) / 2).unwrap_or(usize::MAX).max(1)
}

/// Returns a new connection, or closes it if its descriptor belongs to the reserve.
///
/// # Errors
/// `EMFILE`, as if no descriptor were left.
pub fn ensure_outside_reserve<S: AsFd>(stream: S) -> io::Result<S> {
    let number = u64::try_from(stream.as_fd().as_raw_fd()).unwrap_or(u64::MAX);
    let is_reserved = getrlimit(Resource::Nofile).current.is_some_and(|limit| number >= limit.saturating_sub(RESERVE));
    if is_reserved { Err(rustix::io::Errno::MFILE.into()) } else { Ok(stream) }
}

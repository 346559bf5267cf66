//! Keeps the process's memory, which holds secrets and tokens, out of core dumps and out of reach of other processes of the
//! same user.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Switches core dumps off, for this process and for the programs that it runs. To be called before a secret is read.
///
/// The limit alone is not enough: the kernel ignores it where dumps go to a program, as with systemd. On Linux the process
/// is therefore marked as one that is not dumped, which also keeps other processes of its user from reading its memory and
/// its environment. The mark does not pass to programs that it runs, but the limit does.
pub(super) fn protect() {
    // Neither can fail for a process that asks for less than it has; there is nothing to be done if it does.
    let _no_dumps = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    let _not_dumped = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

//! Protects the memory of the process, which holds secrets and tokens, from core dumps and from other processes of the same
//! user.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Disables core dumps of this process and of the programs that it runs. Call it before a secret is read.
///
/// The resource limit is not enough: the kernel ignores it where dumps are piped to a program, as with systemd. So on Linux the
/// process is also marked as not dumpable, which prevents other processes of its user from reading its memory and environment.
/// Programs that it runs inherit the limit but not the mark.
pub(super) fn protect() {
    // Both only lower what the process has, so neither fails; nothing else could be done.
    let _no_dumps = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    let _not_dumped = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

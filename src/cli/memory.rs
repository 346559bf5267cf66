//! Protects the memory of the process, which holds secrets and tokens, from core dumps and from other processes of the same
//! user.

use rustix::process::{Resource, Rlimit, setrlimit};

/// Disables core dumps of this process and of the programs that it runs. Must be called before a secret is read.
///
/// The resource limit is not enough, because the kernel ignores it when it pipes dumps to a program, as with systemd. On Linux,
/// the process is therefore also marked as not dumpable. Other processes of its user can then not read its memory and
/// environment. Programs that it runs inherit the limit but not the mark.
pub(super) fn protect() {
    // Both only remove permissions of the process, so neither fails.
    let _no_dumps = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    #[cfg(target_os = "linux")]
    let _not_dumped = rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable);
}

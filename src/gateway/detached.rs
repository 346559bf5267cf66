//! Blocking work on a dedicated thread.
//!
//! Reading a file may never end if its mount hangs. On its own thread it does not block the control runtime, which responds to
//! probes and signals.

use crate::runbook::{Condition, Section};
use std::time::Duration;

use tokio::sync::oneshot;

/// The time after which work is reported as slow. Chosen: longer than a disk takes to spin up.
const SLOW: Duration = Duration::from_secs(5);

/// The error of work that panicked or whose thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("{what} failed: its thread panicked or could not be started")]
pub struct WorkFailed {
    what: &'static str,
}

/// Runs `work` on a dedicated thread of low priority and waits for its result. Calls `on_slow` once if that takes longer than five seconds. A
/// caller that runs one piece of work at a time has at most one hanging thread.
///
/// # Errors
/// [`WorkFailed`] if the work panics or cannot be started.
///
/// # Cancel safety
/// Safe: the work continues and its result is dropped. It does not delay the exit of the process.
pub async fn run_detached<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
    on_slow: impl FnOnce(),
) -> Result<T, WorkFailed> {
    let (sender, mut result) = oneshot::channel();
    let thread = std::thread::Builder::new().name("detached".to_owned());
    // Not `spawn_blocking`: the shutdown of a runtime waits for its blocking threads.
    let started = thread.spawn(move || {
        yield_to_workers();
        let _receiver_gone = sender.send(work());
    });
    let failed = |_| WorkFailed { what };
    drop(started.map_err(|_not_started| WorkFailed { what })?);
    if let Ok(result) = tokio::time::timeout(SLOW, &mut result).await {
        return result.map_err(failed);
    }
    let section = Section::Condition(Condition::SlowFiles);
    tracing::warn!(after_secs = SLOW.as_secs(), remedy = section.remedy(), runbook = %section, "{what} is slow: a file system may hang; the gateway keeps serving");
    on_slow();
    result.await.map_err(failed)
}

/// The niceness of a thread that prepares a configuration. Chosen: a worker on the same core gets ten times its share.
#[cfg(target_os = "linux")]
const NICENESS: i32 = 10;

/// Lowers the priority of this thread: ten thousand endpoints take 100 ms to prepare, in which calls on the same core would wait.
#[cfg(target_os = "linux")]
fn yield_to_workers() {
    // On Linux, niceness belongs to the thread. A system that refuses it only makes calls wait.
    let _refused = rustix::process::nice(NICENESS);
}

/// Niceness belongs to the whole process here.
#[cfg(not(target_os = "linux"))]
fn yield_to_workers() {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn slow_work_is_reported_once_and_its_result_still_arrives() {
        let (release, hangs) = std::sync::mpsc::channel::<u32>();
        let mut reports = 0;
        let work = run_detached(
            "a test",
            move || hangs.recv().unwrap(),
            || {
                reports += 1;
                release.send(7).unwrap();
            },
        );
        assert_eq!(work.await.unwrap(), 7);
        assert_eq!(reports, 1);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn work_has_a_lower_priority_than_the_thread_that_waits_for_it() {
        let own = || rustix::process::getpriority_process(None).unwrap();
        let (before, of_work) = (own(), run_detached("a test", own, || {}).await.unwrap());
        assert_eq!((own(), of_work), (before, (before + NICENESS).min(19)));
    }

    #[tokio::test]
    async fn panicking_work_is_an_error() {
        let work = run_detached("a test", || std::panic::resume_unwind(Box::new(())), || {});
        let failed = work.await.map(|(): ()| ());
        assert!(failed.unwrap_err().to_string().starts_with("a test failed"));
    }
}

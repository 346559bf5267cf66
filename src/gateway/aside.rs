//! Work that may take for ever, such as reading a file on a mount that hangs, on a thread of its own: the control runtime
//! goes on answering probes and signals.

use std::time::Duration;

use tokio::sync::oneshot;

/// After how long it is said that the work has not ended. Chosen: a disk that wakes up takes less.
const PATIENCE: Duration = Duration::from_secs(5);

/// Work on a thread of its own ended in a panic, or the thread could not be started.
#[derive(Debug, thiserror::Error)]
#[error("{what} failed: the thread that it runs on panicked or could not be started")]
pub struct WorkLost {
    what: &'static str,
}

/// Does `work` on a thread of its own and waits for it. Calls `say_slow` once if it takes long. The caller starts the next
/// only when this one has ended, so that at most one thread is stuck.
///
/// # Errors
/// [`WorkLost`].
///
/// # Cancel safety
/// Safe: the work goes on by itself, and nobody sees what comes of it. It does not hold up the end of the process.
pub async fn aside<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> T + Send + 'static,
    say_slow: impl FnOnce(),
) -> Result<T, WorkLost> {
    let (done, mut outcome) = oneshot::channel();
    let thread = std::thread::Builder::new().name("aside".to_owned());
    // Detached: a thread of the runtime's own pool would hold up the end of the runtime.
    let started = thread.spawn(move || {
        let _nobody_waits_any_more = done.send(work());
    });
    let lost = |_| WorkLost { what };
    drop(started.map_err(|_not_started| WorkLost { what })?);
    if let Ok(outcome) = tokio::time::timeout(PATIENCE, &mut outcome).await {
        return outcome.map_err(lost);
    }
    tracing::warn!(
        after_secs = PATIENCE.as_secs(),
        "{what} takes long: a file system may hang; everything else goes on"
    );
    say_slow();
    outcome.await.map_err(lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn work_that_hangs_is_said_once_and_its_outcome_is_still_seen() {
        let (free, hangs) = std::sync::mpsc::channel::<u32>();
        let mut slow = 0;
        let work = aside(
            "a test",
            move || hangs.recv().unwrap(),
            || {
                slow += 1;
                free.send(7).unwrap();
            },
        );
        assert_eq!(work.await.unwrap(), 7);
        assert_eq!(slow, 1);
    }

    #[tokio::test]
    async fn work_that_panics_is_an_error() {
        let lost = aside("a test", || std::panic::resume_unwind(Box::new(())), || {}).await.map(|(): ()| ());
        assert!(lost.unwrap_err().to_string().starts_with("a test failed"));
    }
}

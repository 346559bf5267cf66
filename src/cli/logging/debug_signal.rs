//! SIGUSR1 turns debug lines on for ten minutes; another one turns them off.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use super::set_debug;

/// The time after which debug lines end. Chosen: enough to see a failure, and nobody has to remember to turn them off.
const DEBUG_TIME: Duration = Duration::from_secs(600);

/// Starts the task that follows SIGUSR1. It ends with the runtime.
pub(in crate::cli) fn follow() -> anyhow::Result<()> {
    let mut signals = signal(SignalKind::user_defined1()).context("cannot listen for SIGUSR1")?;
    tokio::spawn(toggle_debug(async move || signals.recv().await, |debug| set_debug(debug.then_some(DEBUG_TIME))));
    Ok(())
}

/// Calls `set` whenever debug lines begin or end, until `signal` returns `None`.
async fn toggle_debug(mut signal: impl AsyncFnMut() -> Option<()>, mut set: impl FnMut(bool)) {
    let mut until: Option<Instant> = None;
    loop {
        let ended = async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        };
        let begins = tokio::select! {
            received = signal() => {
                if received.is_none() {
                    return;
                }
                until.is_none()
            }
            () = ended => false,
        };
        until = begins.then(|| Instant::now() + DEBUG_TIME);
        set(begins);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn debug_ends_after_ten_minutes_or_with_another_signal() {
        let (signal, mut signals) = mpsc::unbounded_channel();
        let (started, changes) = (Instant::now(), Mutex::new(Vec::new()));
        let toggles = toggle_debug(
            async move || signals.recv().await,
            |debug| {
                changes.lock().unwrap().push((debug, started.elapsed().as_secs()));
            },
        );
        let script = async {
            let at = async |seconds| {
                sleep_until(started + Duration::from_secs(seconds)).await;
                signal.send(()).unwrap();
            };
            at(10).await;
            at(1000).await;
            at(1100).await;
            at(2000).await;
            sleep_until(started + Duration::from_secs(3000)).await;
            drop(signal);
        };
        tokio::join!(toggles, script);
        let expected = [(true, 10), (false, 610), (true, 1000), (false, 1100), (true, 2000), (false, 2600)];
        assert_eq!(*changes.lock().unwrap(), expected);
    }
}

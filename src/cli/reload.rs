//! Watches the configuration while the gateway runs: reloads it on SIGHUP, or when the content of a file changes.
//!
//! A separate thread reads the files, one read at a time. A mount that hangs delays only reloads.

use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::service_manager::ServiceManager;
use crate::config::Loader;
use crate::gateway::{Reload, run_detached};

/// The interval at which the files are examined. This detects every way of replacing a file: in place, by rename, and by the
/// symbolic links of a Kubernetes volume.
const INTERVAL: Duration = Duration::from_secs(2);
/// The maximum share of the time that is spent examining thousands of included files, as a divisor.
const MAX_SHARE: u32 = 20;
/// Chosen: nobody waits longer for a new tenant.
const MAX_INTERVAL: Duration = Duration::from_secs(5);

/// Starts a task that watches the configuration that `loader` loaded. The task ends when the receiver is dropped.
pub(super) fn watch(loader: Loader, manager: ServiceManager) -> anyhow::Result<mpsc::Receiver<Reload>> {
    let (sender, receiver) = mpsc::channel(1);
    let hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    tokio::spawn(keep_watching(loader, hangups, manager, sender));
    Ok(receiver)
}

async fn keep_watching(
    mut loader: Loader,
    mut hangups: Signal,
    manager: ServiceManager,
    reloads: mpsc::Sender<Reload>,
) {
    let mut interval = INTERVAL;
    loop {
        let is_requested = tokio::select! {
            _ = hangups.recv() => true,
            () = tokio::time::sleep(interval) => false,
        };
        if is_requested {
            manager.reloading();
        }
        // If the thread panics, a new loader starts with nothing in its cache.
        let fresh = loader.restarted();
        let reading = run_detached(
            "reading the configuration",
            move || {
                let started = Instant::now();
                let loaded = loader.reload(is_requested);
                (loader, loaded, started.elapsed())
            },
            || {},
        );
        let reload = match reading.await {
            Ok((used, loaded, elapsed)) => {
                loader = used;
                match loaded {
                    None => {
                        interval = (elapsed * MAX_SHARE).clamp(INTERVAL, MAX_INTERVAL);
                        continue;
                    }
                    Some(loaded) => loaded.map(|loaded| loaded.settings).map_err(|err| err.to_string()),
                }
            }
            Err(failed) => {
                loader = fresh;
                Err(failed.to_string())
            }
        };
        if !is_requested {
            manager.reloading();
        }
        // The gateway reports that the reload has finished.
        if reloads.send(reload).await.is_err() {
            return;
        }
    }
}

//! Watches the configuration while the gateway runs: SIGHUP, or a file that reads differently than before.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::ConfigOptions;
use crate::gateway::Reload;

/// How often the file is read. It is small, and reading it sees every way of replacing it: in place, by rename, by the
/// symbolic links of a Kubernetes volume.
const INTERVAL: Duration = Duration::from_secs(2);

/// Begins to watch. The task ends when nobody receives any more.
pub(super) fn watch(options: &ConfigOptions) -> anyhow::Result<mpsc::Receiver<Reload>> {
    let (sender, receiver) = mpsc::channel(1);
    let hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    tokio::spawn(keep_watching(options.clone(), hangups, sender));
    Ok(receiver)
}

async fn keep_watching(options: ConfigOptions, mut hangups: Signal, reloads: mpsc::Sender<Reload>) {
    let mut seen = read(options.config.as_ref()).await;
    loop {
        tokio::select! {
            _ = hangups.recv() => {}
            () = tokio::time::sleep(INTERVAL) => {
                let now = read(options.config.as_ref()).await;
                // A file that is gone for a moment is being replaced.
                if now.is_none() || now == seen {
                    continue;
                }
            }
        }
        seen = read(options.config.as_ref()).await;
        let reload = options.load().map(|loaded| loaded.settings).map_err(|err| err.to_string());
        if reloads.send(reload).await.is_err() {
            return;
        }
    }
}

async fn read(path: Option<&PathBuf>) -> Option<Vec<u8>> {
    tokio::fs::read(path?).await.ok()
}

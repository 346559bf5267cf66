//! Watches the configuration while the gateway runs: SIGHUP, or a file that reads differently than before.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::ConfigOptions;
use crate::config::load_read;
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
    let mut seen = options.sources().read().ok();
    loop {
        let is_asked_for = tokio::select! {
            _ = hangups.recv() => true,
            () = tokio::time::sleep(INTERVAL) => false,
        };
        let sources = options.sources();
        let read = sources.read();
        // A file that is gone for a moment is being replaced.
        if !is_asked_for && read.as_ref().map_or(true, |text| seen.as_ref() == Some(text)) {
            continue;
        }
        // What is taken over is what was compared, whatever stands there by now.
        let reload = read.and_then(|text| {
            seen = Some(text.clone());
            load_read(&sources, text)
        });
        if reloads.send(reload.map(|loaded| loaded.settings).map_err(|err| err.to_string())).await.is_err() {
            return;
        }
    }
}

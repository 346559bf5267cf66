//! Watches the configuration while the gateway runs: reloads it on SIGHUP, or when the content of the file changes.
//!
//! A separate thread reads the file, one read at a time. A mount that hangs delays only reloads.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::options::ConfigOptions;
use crate::config::load_text;
use crate::gateway::{Reload, run_detached};

/// The interval at which the file is read. Reading detects every way of replacing the file: in place, by rename, and by the
/// symbolic links of a Kubernetes volume.
const INTERVAL: Duration = Duration::from_secs(2);

/// Starts a task that watches the configuration. `last` is the content of the file at start. The task ends when the receiver
/// is dropped.
pub(super) fn watch(options: &ConfigOptions, last: Option<String>) -> anyhow::Result<mpsc::Receiver<Reload>> {
    let (sender, receiver) = mpsc::channel(1);
    let hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    tokio::spawn(keep_watching(options.clone(), last, hangups, sender));
    Ok(receiver)
}

async fn keep_watching(
    options: ConfigOptions,
    mut last: Option<String>,
    mut hangups: Signal,
    reloads: mpsc::Sender<Reload>,
) {
    loop {
        let is_requested = tokio::select! {
            _ = hangups.recv() => true,
            () = tokio::time::sleep(INTERVAL) => false,
        };
        let (options, before) = (options.clone(), last.clone());
        let reading =
            run_detached("reading the configuration", move || read(&options, before.as_ref(), is_requested), || {});
        let reload = match reading.await {
            Ok(None) => continue,
            Ok(Some((text, reload))) => {
                last = text.or(last);
                reload
            }
            Err(failed) => Err(failed.to_string()),
        };
        if reloads.send(reload).await.is_err() {
            return;
        }
    }
}

/// Reads the file. Returns its content and the configuration, or `None` if there is nothing to reload.
fn read(options: &ConfigOptions, last: Option<&String>, is_requested: bool) -> Option<(Option<String>, Reload)> {
    let sources = options.sources();
    match sources.read_again() {
        Ok(text) if !is_requested && text.as_ref() == last => None,
        // A file is missing for a moment while it is being replaced.
        Err(_) if !is_requested => None,
        Err(err) => Some((None, Err(err.to_string()))),
        // Loads the text that was compared. The file may have changed since.
        Ok(text) => {
            let loaded = load_text(&sources, text.clone());
            Some((text, loaded.map(|loaded| loaded.settings).map_err(|err| err.to_string())))
        }
    }
}

//! Watches the configuration while the gateway runs: SIGHUP, or a file that reads differently than before.
//!
//! A file is read on a thread of its own, one read at a time: on a mount that hangs, reloads wait and nothing else does.

use std::time::Duration;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::options::ConfigOptions;
use crate::config::load_read;
use crate::gateway::{Reload, run_detached};

/// How often the file is read. It is small, and reading it sees every way of replacing it: in place, by rename, by the
/// symbolic links of a Kubernetes volume.
const INTERVAL: Duration = Duration::from_secs(2);

/// Begins to watch. `seen` is what the file said at the start. The task ends when nobody receives any more.
pub(super) fn watch(options: &ConfigOptions, seen: Option<String>) -> anyhow::Result<mpsc::Receiver<Reload>> {
    let (sender, receiver) = mpsc::channel(1);
    let hangups = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
    tokio::spawn(keep_watching(options.clone(), seen, hangups, sender));
    Ok(receiver)
}

async fn keep_watching(
    options: ConfigOptions,
    mut seen: Option<String>,
    mut hangups: Signal,
    reloads: mpsc::Sender<Reload>,
) {
    loop {
        let is_asked_for = tokio::select! {
            _ = hangups.recv() => true,
            () = tokio::time::sleep(INTERVAL) => false,
        };
        let (options, before) = (options.clone(), seen.clone());
        let look =
            run_detached("reading the configuration", move || look(&options, before.as_ref(), is_asked_for), || {});
        let reload = match look.await {
            Ok(None) => continue,
            Ok(Some((text, reload))) => {
                seen = text.or(seen);
                reload
            }
            Err(lost) => Err(lost.to_string()),
        };
        if reloads.send(reload).await.is_err() {
            return;
        }
    }
}

/// Reads the file and returns what it says and the configuration that this makes; nothing if that is no news.
fn look(options: &ConfigOptions, seen: Option<&String>, is_asked_for: bool) -> Option<(Option<String>, Reload)> {
    let sources = options.sources();
    match sources.read_again() {
        Ok(text) if !is_asked_for && text.as_ref() == seen => None,
        // A file that is gone for a moment is being replaced.
        Err(_) if !is_asked_for => None,
        Err(err) => Some((None, Err(err.to_string()))),
        // What is taken over is what was compared, whatever stands there by now.
        Ok(text) => {
            let loaded = load_read(&sources, text.clone());
            Some((text, loaded.map(|loaded| loaded.settings).map_err(|err| err.to_string())))
        }
    }
}

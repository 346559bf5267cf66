//! Follows the TLS files of listeners: reads them again when they change.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::detached::run_detached;
use super::followed::{INTERVAL, RETRY, settle};
use crate::files::stamps;
use crate::runbook::{Condition, Section};
use crate::serve::LiveTls;

/// The tasks that follow the files, one for each listener, so that a mount that hangs affects one. They end when it is dropped.
#[derive(Debug, Default)]
pub(super) struct TlsFollower {
    _tasks: JoinSet<()>,
}

impl TlsFollower {
    /// Starts following. Must be called within the control runtime.
    pub(super) fn start(listeners: &[Arc<LiveTls>]) -> Self {
        let mut tasks = JoinSet::new();
        for listener in listeners {
            tasks.spawn(follow(Arc::clone(listener)));
        }
        Self { _tasks: tasks }
    }
}

async fn follow(listener: Arc<LiveTls>) {
    let paths = listener.files();
    loop {
        // Before the files are read, so that a change during the read is found.
        let read = stamps(&paths).await;
        // Also before the first change: the files may have changed between being read and being followed.
        let reloaded = Arc::clone(&listener);
        let reading = run_detached("reading the TLS files of a listener", move || reloaded.reload(), || {});
        if let Err(failed) = reading.await {
            let section = Section::Condition(Condition::TlsFiles);
            tracing::error!(listener = listener.listener(), error = %failed, side = "gateway", remedy = section.remedy(), runbook = %section, "the TLS files were not read");
        }
        let retry = Instant::now() + RETRY;
        while stamps(&paths).await == read && (listener.problem().is_none() || Instant::now() < retry) {
            sleep(INTERVAL).await;
        }
        settle(&paths).await;
    }
}

//! Follows the TLS files of listeners: reads them again when they change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::detached::run_detached;
use crate::files::stamps;
use crate::serve::LiveTls;

/// The interval at which the files are examined, as those of credentials are.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long files must stay the same before a change counts as complete. Chosen: Kubernetes replaces the links of a volume within
/// milliseconds, and programs that renew certificates write the certificate and the key one after the other.
const SETTLE: Duration = Duration::from_millis(200);
/// The maximum number of waits for files that keep changing.
const MAX_LOOKS: usize = 10;
/// How often files that cannot be used are read again although they have not changed: a certificate may become valid, and a mount
/// may respond again.
const RETRY: Duration = Duration::from_secs(10);

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
            tracing::error!(listener = listener.listener(), error = %failed, "the TLS files were not read");
        }
        let retry = Instant::now() + RETRY;
        while stamps(&paths).await == read && (listener.problem().is_none() || Instant::now() < retry) {
            sleep(INTERVAL).await;
        }
        settle(&paths).await;
    }
}

/// Waits until the files stay the same for a moment, but not forever, so that a change in several steps counts as one.
async fn settle(paths: &[PathBuf]) {
    let mut before = stamps(paths).await;
    for _ in 0..MAX_LOOKS {
        sleep(SETTLE).await;
        let now = stamps(paths).await;
        if now == before {
            return;
        }
        before = now;
    }
}

//! How files are followed that are read again when they change.

use std::path::PathBuf;
use std::time::Duration;

use tokio::time::sleep;

use crate::files::stamps;

/// The interval at which the files are examined, as those of credentials are.
pub(super) const INTERVAL: Duration = Duration::from_secs(1);
/// How long files must stay the same before a change counts as complete. Chosen: Kubernetes replaces the links of a volume within
/// milliseconds, and programs that renew certificates write the certificate and the key one after the other.
const SETTLE: Duration = Duration::from_millis(200);
/// The maximum number of waits for files that keep changing.
const MAX_LOOKS: usize = 10;
/// How often files that cannot be used are read again although they have not changed: a certificate may become valid, and a mount
/// may respond again.
pub(super) const RETRY: Duration = Duration::from_secs(10);

/// Waits until the files stay the same for a moment, but not forever, so that a change in several steps counts as one.
pub(super) async fn settle(paths: &[PathBuf]) {
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

//! The runtime of everything that is not on the path of requests.

use anyhow::Context;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

/// Makes the control runtime. It stays on this thread, so the binary links neither tokio's multi-thread scheduler nor the C
/// math library that it needs, which saves an idle process half a megabyte.
pub(super) fn control_runtime() -> anyhow::Result<LocalRuntime> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    runtime.context("cannot start the control runtime")
}

/// Runs a future on a runtime of its own, and does not wait for blocking work that is left: a name lookup or a file system
/// that hangs would delay the end of the process.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = control_runtime()?;
    let output = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(output)
}

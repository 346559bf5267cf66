//! The control runtime: it runs everything except the serving of requests.

use anyhow::Context;
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};

/// Creates the control runtime. It is single-threaded, so the binary links neither tokio's multi-thread scheduler nor the C
/// math library that the scheduler needs. This saves an idle process half a megabyte.
pub(super) fn control_runtime() -> anyhow::Result<LocalRuntime> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default());
    runtime.context("cannot start the control runtime")
}

/// Runs a future on a new runtime. Does not wait for blocking work that is still running: a name lookup or a file read that
/// hangs would delay the end of the process.
pub(super) fn block_on<T>(future: impl Future<Output = T>) -> anyhow::Result<T> {
    let runtime = control_runtime()?;
    let output = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(output)
}

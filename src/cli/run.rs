//! `run`: serves until SIGTERM or SIGINT.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::Context;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

use super::options::ConfigOptions;
use super::output::{Outcome, usage};
use super::runtime::control_runtime;
use super::service_manager::{ServiceManager, status};
use super::start_line::{Summary, log_stop};
use super::{logging, reload, write_file};
use crate::config::Loader;
use crate::diagnosis::commands::quoted_path;
use crate::gateway::{Addresses, Gateway, GatewayError, GatewayEvent, Reload, Settings};
use crate::runbook::{self, Condition, Section};
use crate::serve::InheritedSockets;

#[derive(Debug, Args)]
pub(super) struct Options {
    #[command(flatten)]
    config: ConfigOptions,
    /// Once serving, write a JSON file with the bound addresses.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
}

/// What surrounds a gateway: the watched configuration and the service manager.
#[derive(Default)]
pub(super) struct Surroundings {
    /// The configuration file.
    file: Option<PathBuf>,
    reloads: Option<mpsc::Receiver<Reload>>,
    sockets: InheritedSockets,
    manager: ServiceManager,
}

impl Surroundings {
    /// Returns those of a gateway whose configuration file is not watched.
    #[cfg(feature = "sandbox")]
    pub(super) fn of_file(file: PathBuf) -> Self {
        Self { file: Some(file), ..Self::default() }
    }
}

pub(super) fn run(options: &Options) -> anyhow::Result<Outcome> {
    // Before any thread starts: it removes variables.
    let sockets = InheritedSockets::from_environment().map_err(usage)?;
    if let Some(file) = &options.ready_file {
        write_file::check(file).context("--ready-file").map_err(usage)?;
    }
    let sources = options.config.sources();
    let file = sources.file.clone();
    let mut loader = Loader::new(sources);
    let loaded = loader.load()?;
    logging::init(&loaded.settings.logging)?;
    for warning in &loaded.warnings {
        let section = Section::Condition(Condition::ConfigurationWarning);
        tracing::warn!(side = "configuration", remedy = section.remedy(), runbook = %section, "{warning}");
    }
    let runtime = control_runtime()?;
    let served = runtime.block_on(async {
        let manager = ServiceManager::from_environment();
        let reloads = Some(reload::watch(loader, manager.clone())?);
        let on_serving = |addresses: &Addresses| match &options.ready_file {
            Some(file) => write_ready_file(file, &ready_file(addresses)),
            None => Ok(()),
        };
        serve(loaded.settings, Surroundings { file, reloads, sockets, manager }, on_serving).await
    });
    // Does not wait for name lookups or file reads that hang.
    runtime.shutdown_background();
    served.map(|()| Outcome::Success)
}

/// Builds a gateway and serves until a signal arrives. Calls `on_serving` once the listeners accept connections.
pub(super) async fn serve(
    settings: Settings,
    surroundings: Surroundings,
    on_serving: impl FnOnce(&Addresses) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let Surroundings { file, reloads, sockets, manager } = surroundings;
    let (started, summary) = (Instant::now(), Summary::of(&settings, file.as_deref()));
    if let Some(file) = &settings.file {
        runbook::set_config(quoted_path(file));
    }
    let control = tokio::runtime::Handle::current();
    let gateway = Gateway::build_with(settings, sockets, &control).await.map_err(usage)?;
    let gateway = match reloads {
        Some(reloads) => gateway.with_reloads(reloads),
        None => gateway,
    };
    let shutdown = shutdown_signal()?;
    logging::debug_signal::follow()?;
    let (mut on_serving, mut on_serving_result) = (Some(on_serving), Ok(()));
    let served = gateway.serve_reporting(shutdown, |event| match event {
        GatewayEvent::Serving(addresses, workers) => {
            summary.log(addresses);
            for (name, address) in &addresses.listeners {
                tracing::info!(listener = %name, %address, "serving");
            }
            if let Some(address) = addresses.admin {
                tracing::info!(%address, "admin serving");
            }
            manager.serving(addresses, workers);
            if let Some(on_serving) = on_serving.take() {
                on_serving_result = on_serving(addresses);
            }
        }
        GatewayEvent::Reloaded(addresses, settings) => {
            logging::reload(settings);
            manager.ready(&status(addresses));
        }
        GatewayEvent::Rejected(problem) => {
            manager.ready(&format!("the new configuration was rejected, the previous one stays in force: {problem}"));
        }
        GatewayEvent::Stopping => manager.stopping(),
        GatewayEvent::Stopped(totals) => log_stop(totals, started),
    });
    let served = served.await;
    on_serving_result?;
    match served {
        Err(GatewayError::CutOff) => {
            let section = Section::Condition(Condition::CutOff);
            tracing::warn!(remedy = section.remedy(), runbook = %section, "requests were cut off: they did not end within shutdown.timeout");
            Ok(())
        }
        other => other.map_err(anyhow::Error::from),
    }
}

/// Returns a future that completes at SIGTERM or SIGINT. A second signal ends the process at once.
pub(super) fn shutdown_signal() -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot listen for SIGINT")?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        // The task ends with the process.
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            tracing::warn!("stopping at once: received a second signal");
            logging::finish();
            std::process::exit(1);
        });
    })
}

/// Returns the content of the ready file.
fn ready_file(addresses: &Addresses) -> serde_json::Value {
    let listeners: serde_json::Map<_, _> =
        addresses.listeners.iter().map(|(name, address)| (name.clone(), address.to_string().into())).collect();
    serde_json::json!({ "listeners": listeners, "admin": addresses.admin.map(|address| address.to_string()) })
}

/// Writes a ready file on a separate thread, because a file system that hangs must not block probes and signals.
pub(super) fn write_ready_file(path: &Path, content: &serde_json::Value) -> anyhow::Result<()> {
    let (path, text) = (path.to_owned(), format!("{content:#}\n"));
    let thread = std::thread::Builder::new().name("ready-file".to_owned());
    // The thread is detached, so it does not delay the end of the process.
    let started = thread.spawn(move || {
        if let Err(err) = write_file::write(&path, text.as_bytes()) {
            let section = Section::Condition(Condition::ReadyFile);
            tracing::error!(error = format!("{err:#}"), side = "gateway", remedy = section.remedy(), runbook = %section, "cannot write the ready file");
        }
    });
    started.map(drop).context("cannot write the ready file")
}

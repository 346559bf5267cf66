//! Builds a gateway from its settings, runs it, and replaces its configuration while it runs.
//!
//! [`Gateway::build`] builds every part and binds the sockets; [`Gateway::serve`] accepts callers until shutdown. A reload
//! has two phases: it prepares the parts of the new configuration, which has no effect on the one in force, and commits
//! them, which cannot fail. This is the only module that knows every part.

mod ca_files;
mod changes;
mod detached;
mod dry_run;
mod error;
mod followed;
mod live;
mod log_filter;
mod parts;
mod settings;
mod tls_follower;

use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use crate::metrics::Responses;
use crate::proxy::WorkerProxy;
use crate::runbook::{Condition, Section};
use crate::serve::{Bound, InheritedSockets, ListenerPlan, WorkerHandles};

use followed::RETRY;
use live::{Cause, Live};

pub use detached::{WorkFailed, run_detached};
pub use dry_run::{Decision, Destination, DryRun, DryRunCall, InvalidCall, error_kinds};
pub use error::GatewayError;
pub use live::Addresses;
pub use log_filter::{LogFilter, LogFilterError};
pub use settings::{LogFormat, LoggingSettings, MetricsSettings, Settings, short_hash};

/// A gateway whose parts are built and whose sockets are bound. It has sent no request yet.
#[derive(Debug)]
pub struct Gateway {
    live: Live,
    bound: Bound,
    admin: Option<TcpListener>,
    reloads: mpsc::Receiver<Reload>,
}

/// What happens to a gateway that serves.
#[derive(Debug)]
pub enum GatewayEvent<'a> {
    /// The listeners accept connections.
    Serving(&'a Addresses, WorkerHandles),
    /// A new configuration is in force.
    Reloaded(&'a Addresses, &'a LoggingSettings),
    /// A new configuration was rejected, for this reason. The previous one stays in force.
    Rejected(&'a str),
    /// The gateway has begun to stop.
    Stopping,
    /// The gateway has stopped.
    Stopped(Responses),
}

/// A new configuration, or the reason why it is invalid.
pub type Reload = Result<Settings, String>;

impl Gateway {
    /// Builds every part and binds every socket. Sends nothing. `control` is the runtime for work outside the request path:
    /// token acquisition, probes and the admin listener. It needs the time and I/O drivers, and must run until
    /// [`Gateway::serve`] ends.
    ///
    /// # Errors
    /// [`GatewayError`] for the first part that cannot be built.
    pub async fn build(settings: Settings, control: &Handle) -> Result<Self, GatewayError> {
        Self::build_with(settings, InheritedSockets::default(), control).await
    }

    /// Builds a gateway as [`Gateway::build`] does. Listeners that have an inherited socket use it.
    ///
    /// # Errors
    /// As [`Gateway::build`].
    pub async fn build_with(
        settings: Settings,
        inherited: InheritedSockets,
        control: &Handle,
    ) -> Result<Self, GatewayError> {
        let listeners = ListenerPlan::first(&settings.listener_settings(), inherited.clone());
        let live = Live::build(settings, &listeners.ids(), control)?;
        let settings = live.settings();
        let bound = Bound::bind(listeners, &settings.serve)?;
        let admin = match settings.admin.as_ref().map(|admin| admin.bind) {
            Some(address) => {
                let listener = match inherited.admin(address) {
                    Some(socket) => socket.and_then(TcpListener::from_std),
                    None => TcpListener::bind(address).await,
                };
                Some(listener.map_err(|source| GatewayError::BindAdmin { address, source })?)
            }
            None => None,
        };
        let admin_address = admin.as_ref().and_then(|admin| admin.local_addr().ok());
        for socket in bound.unused_sockets(admin_address) {
            let section = Section::Condition(Condition::ServiceManager);
            tracing::warn!(
                socket,
                side = "configuration",
                remedy = section.remedy(),
                runbook = %section,
                "no listener uses this socket of the service manager, so its connections wait for ever: give it the name of a \
                 listener (`FileDescriptorName=`), or the address of a listener's `bind`"
            );
        }
        let (_closed, reloads) = mpsc::channel(1);
        Ok(Self { live, bound, admin, reloads })
    }

    /// Sets the channel that delivers new configurations while the gateway serves.
    #[must_use]
    pub fn with_reloads(mut self, reloads: mpsc::Receiver<Reload>) -> Self {
        self.reloads = reloads;
        self
    }

    /// Returns the bound addresses.
    pub fn addresses(&self) -> Addresses {
        let names = self.live.settings().listeners.iter().map(|(listener, _)| listener.name.clone());
        Addresses {
            listeners: names.zip(self.bound.addresses()).collect(),
            admin: self.admin.as_ref().and_then(|admin| admin.local_addr().ok()),
        }
    }

    /// Serves until `shutdown` completes, then drains. Calls `on_serving` once the listeners accept connections. Each new
    /// configuration replaces the one in force, unless it cannot be built.
    ///
    /// # Errors
    /// [`GatewayError::Workers`] if no worker can start, [`GatewayError::CutOff`] if requests were cut off.
    ///
    /// # Cancel safety
    /// Not safe: dropping the future cuts requests off.
    pub async fn serve(
        self,
        shutdown: impl Future<Output = ()>,
        on_serving: impl FnOnce(&Addresses),
    ) -> Result<(), GatewayError> {
        let mut on_serving = Some(on_serving);
        let on_event = |event: GatewayEvent<'_>| {
            if let (GatewayEvent::Serving(addresses, _), Some(on_serving)) = (event, on_serving.take()) {
                on_serving(addresses);
            }
        };
        self.serve_reporting(shutdown, on_event).await
    }

    /// Serves as [`Gateway::serve`] does, and reports what happens.
    ///
    /// # Errors
    /// As [`Gateway::serve`].
    ///
    /// # Cancel safety
    /// Not safe: dropping the future cuts requests off.
    pub async fn serve_reporting(
        self,
        shutdown: impl Future<Output = ()>,
        mut on_event: impl FnMut(GatewayEvent<'_>),
    ) -> Result<(), GatewayError> {
        let addresses = self.addresses();
        let Self { mut live, bound, admin: admin_listener, mut reloads } = self;
        let admin = live.start(&addresses, bound.tls());
        let admin_tls = live.admin_tls();
        let _admin_server =
            admin_listener.map(|listener| AbortOnDrop(tokio::spawn(Arc::clone(&admin).serve(listener, admin_tls))));
        let (latest, metrics, tail) = (live.latest(), Arc::clone(live.metrics()), Arc::clone(live.tail()));
        let callers = metrics.callers().clone();
        let mut running = bound
            .serve(
                move |write_batch| {
                    WorkerProxy::new(Arc::clone(&latest), Arc::clone(&metrics), Arc::clone(&tail), write_batch)
                },
                &callers,
            )
            .map_err(GatewayError::Workers)?;
        on_event(GatewayEvent::Serving(&addresses, running.workers()));

        let mut shutdown = std::pin::pin!(shutdown);
        let mut next_refresh = Instant::now();
        loop {
            let ca_files_changed = async {
                sleep_until(next_refresh).await;
                live.ca_files_changed().await;
            };
            let prepared = async {
                let (cause, settings) = tokio::select! {
                    Some(reload) = reloads.recv() => (Cause::Configuration, reload),
                    () = ca_files_changed => (Cause::CaFiles, Ok(live.settings().clone())),
                };
                let prepare = async {
                    let settings = settings?;
                    let plan = running.plan(&settings.listener_settings());
                    let on_slow = || {
                        if cause == Cause::Configuration {
                            let problem = "the files that the new configuration names are still being read";
                            admin.show_rejection(problem.to_owned());
                        }
                    };
                    let prepared = live.prepare(settings, plan, on_slow).await?;
                    prepared.warm_up().await;
                    Ok::<_, String>(prepared)
                };
                (cause, prepare.await)
            };
            let prepared = tokio::select! {
                () = &mut shutdown => break,
                prepared = prepared => prepared,
            };
            match prepared {
                (cause, Ok(prepared)) => {
                    running.replace_listeners(live.commit(prepared, cause, &admin));
                    // The server has put the new files in force.
                    live.follow_tls();
                    if cause == Cause::Configuration {
                        on_event(GatewayEvent::Reloaded(live.addresses(), &live.settings().logging));
                    }
                }
                (Cause::Configuration, Err(problem)) => {
                    on_event(GatewayEvent::Rejected(&problem));
                    live.reject(problem, &admin);
                }
                (Cause::CaFiles, Err(problem)) => {
                    let section = Section::Condition(Condition::CaFile);
                    tracing::error!(problem, side = "configuration", remedy = section.remedy(), runbook = %section, "the changed CA files could not be put in force; trying again");
                    next_refresh = Instant::now() + RETRY;
                }
            }
        }
        on_event(GatewayEvent::Stopping);
        tracing::info!("shutting down: failing readiness, then draining requests");
        admin.drain();
        let all_ended = running.drain().await;
        live.stop_tracing().await;
        live.end_tail().await;
        on_event(GatewayEvent::Stopped(live.metrics().request_totals()));
        if all_ended { Ok(()) } else { Err(GatewayError::CutOff) }
    }
}

/// Aborts a task when it is dropped.
#[derive(Debug)]
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

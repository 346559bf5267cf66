//! The only wiring: settings → [`Gateway::build`] → [`Gateway::addresses`] → [`Gateway::serve`] until shutdown.

mod aside;
mod changes;
mod live;
mod parts;
mod rehearsal;

use std::net::SocketAddr;
use std::sync::Arc;

use aws_lc_rs::digest;
use tokio::net::TcpListener;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use crate::admin::AdminSettings;
use crate::credential::{CredentialBuildError, CredentialSettings};
use crate::endpoint::{EndpointError, EndpointSettings};
use crate::proxy::{AdmissionSettings, ProxySettings, WorkerProxy};
use crate::route::{RouteSettings, TableError};
use crate::serve::{BindError, Bound, BoundAddress, ListenerPlan, ListenerSettings, ServeSettings};

use live::Live;

pub use aside::{WorkLost, aside};
pub use rehearsal::{Decision, Destination, NotARequest, Rehearsal, Rehearsed, error_kinds};

/// Everything a gateway is built from, decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where callers come in, and what each listener lets pass. Never empty.
    pub listeners: Vec<(ListenerSettings, AdmissionSettings)>,
    /// The admin listener; `None` turns it off.
    pub admin: Option<AdminSettings>,
    /// The credentials that at least one endpoint names.
    pub credentials: Vec<CredentialSettings>,
    /// The endpoints. Never empty.
    pub endpoints: Vec<EndpointSettings>,
    /// The routes, in the order in which they are tried.
    pub routes: Vec<RouteSettings>,
    /// The pipeline's limits and deadlines.
    pub proxy: ProxySettings,
    /// Workers, connection limits, drain.
    pub serve: ServeSettings,
    /// What is logged, and how.
    pub logging: LoggingSettings,
    /// Eight hex digits that change when the effective settings do.
    pub hash: String,
}

impl Settings {
    /// Returns where callers come in, in configured order.
    pub fn listener_settings(&self) -> Vec<ListenerSettings> {
        self.listeners.iter().map(|(listener, _)| listener.clone()).collect()
    }
}

/// Returns eight hex digits that stand for a text.
pub fn short_hash(text: &str) -> String {
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    let first = digest.as_ref().iter().take(4).fold(0_u32, |number, byte| number << 8 | u32::from(*byte));
    format!("{first:08x}")
}

/// What is logged, and how. Logs go to stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggingSettings {
    /// A `tracing` filter, such as `info` or `signalr_gateway=debug`.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
    /// How many lines a second there may be of each kind that callers cause, such as failed requests; 0 for no limit.
    pub failures_per_second: u32,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, JSON otherwise.
    Auto,
    /// Text.
    Text,
    /// One JSON object per line.
    Json,
}

/// A gateway whose parts are built and whose sockets are bound. Nothing has been sent anywhere yet.
#[derive(Debug)]
pub struct Gateway {
    live: Live,
    bound: Bound,
    admin: Option<TcpListener>,
    reloads: mpsc::Receiver<Reload>,
}

/// A wish to go on with another configuration, or the problem of the one that should have been.
pub type Reload = Result<Settings, String>;

/// Where a gateway can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// The listeners by name, in configured order.
    pub listeners: Vec<(String, BoundAddress)>,
    /// The admin listener, unless it is off.
    pub admin: Option<SocketAddr>,
}

/// Why a gateway could not be built or served.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// A credential cannot work.
    #[error(transparent)]
    Credential(#[from] CredentialBuildError),
    /// An endpoint cannot be connected to.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// An endpoint names a credential that is not there; configuration excludes it.
    #[error("endpoint `{endpoint}` names the credential `{credential}`, which does not exist")]
    NoCredential {
        /// The endpoint.
        endpoint: String,
        /// The name.
        credential: String,
    },
    /// A route names what does not exist; configuration excludes it.
    #[error(transparent)]
    Routes(#[from] TableError),
    /// A listener cannot be set up.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The admin listener cannot be set up.
    #[error(
        "admin listener: cannot listen on {address}; stop what listens there or set `admin.bind` to another address or to \"off\""
    )]
    BindAdmin {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The metrics cannot be set up.
    #[error("the metrics cannot be set up")]
    Metrics(#[from] prometheus::Error),
    /// The workers cannot be started.
    #[error("the workers cannot be started")]
    Workers(#[source] std::io::Error),
    /// Requests were still in flight when the time for draining was over.
    #[error("requests were cut off: they did not end within `shutdown.timeout`")]
    CutOff,
}

impl Gateway {
    /// Builds every part and binds every socket. Sends nothing. `control` runs what is not on the path of requests: token
    /// acquisitions and the admin listener. It needs time and I/O, and must be driven until [`Gateway::serve`] ends.
    ///
    /// # Errors
    /// [`GatewayError`] for the first part that cannot be built.
    pub async fn build(settings: Settings, control: &Handle) -> Result<Self, GatewayError> {
        let listeners = ListenerPlan::first(&settings.listener_settings());
        let live = Live::build(settings, &listeners.ids(), control)?;
        let settings = live.settings();
        let bound = Bound::bind(listeners, &settings.serve)?;
        let admin = match settings.admin.as_ref().map(|admin| admin.bind) {
            Some(address) => {
                let listener = TcpListener::bind(address).await;
                Some(listener.map_err(|source| GatewayError::BindAdmin { address, source })?)
            }
            None => None,
        };
        let (_no_reloads, reloads) = mpsc::channel(1);
        Ok(Self { live, bound, admin, reloads })
    }

    /// Makes it follow another source of configurations while it serves.
    #[must_use]
    pub fn following(mut self, reloads: mpsc::Receiver<Reload>) -> Self {
        self.reloads = reloads;
        self
    }

    /// Returns where it can be reached once it serves.
    pub fn addresses(&self) -> Addresses {
        let names = self.live.settings().listeners.iter().map(|(listener, _)| listener.name.clone());
        Addresses {
            listeners: names.zip(self.bound.addresses()).collect(),
            admin: self.admin.as_ref().and_then(|admin| admin.local_addr().ok()),
        }
    }

    /// Serves until `shutdown` is done, then drains. Calls `serving` once callers are accepted. Configurations that come in
    /// meanwhile replace each other; one that cannot be built leaves the one before in force.
    ///
    /// # Errors
    /// [`GatewayError::Workers`] when it cannot start, [`GatewayError::CutOff`] when requests had to be cut off.
    ///
    /// # Cancel safety
    /// Not safe: dropping the future cuts requests off.
    pub async fn serve(
        self,
        shutdown: impl Future<Output = ()>,
        serving: impl FnOnce(&Addresses),
    ) -> Result<(), GatewayError> {
        let addresses = self.addresses();
        let Self { mut live, bound, admin: admin_listener, mut reloads } = self;
        let admin = live.open(&addresses);
        let _admin_server =
            admin_listener.map(|listener| AbortOnDrop(tokio::spawn(Arc::clone(&admin).serve(listener))));
        let (latest, metrics) = (live.latest(), Arc::clone(live.metrics()));
        let accept_errors = metrics.accept_errors().clone();
        let mut running = bound
            .serve(
                move |write_batch| WorkerProxy::new(Arc::clone(&latest), Arc::clone(&metrics), write_batch),
                &accept_errors,
            )
            .map_err(GatewayError::Workers)?;
        serving(&addresses);

        let mut shutdown = std::pin::pin!(shutdown);
        loop {
            let prepared = async {
                let Some(reload) = reloads.recv().await else { return std::future::pending().await };
                let settings = reload?;
                let plan = running.plan(&settings.listener_settings());
                let say_slow = || admin.refused("the files that it names are still being read".to_owned());
                live.prepare(settings, plan, say_slow).await
            };
            let prepared = tokio::select! {
                () = &mut shutdown => break,
                prepared = prepared => prepared,
            };
            match prepared {
                Ok(prepared) => running.replace_listeners(live.commit(prepared, &admin)),
                Err(problem) => live.refuse(problem, &admin),
            }
        }
        tracing::info!("stopping: no longer ready, then draining");
        admin.drain();
        let all_ended = running.drain().await;
        if all_ended { Ok(()) } else { Err(GatewayError::CutOff) }
    }
}

/// Stops a task when its owner is gone.
#[derive(Debug)]
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

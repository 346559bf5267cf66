//! The only wiring: settings → [`Gateway::build`] → [`Gateway::addresses`] → [`Gateway::serve`] until shutdown.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use arc_swap::ArcSwap;
use tokio::net::TcpListener;
use tokio::runtime::Handle;

use crate::admin::{Admin, EndpointView, RouteView, View};
use crate::credential::{CredentialBuildError, CredentialSettings, Credentials};
use crate::endpoint::{Endpoint, EndpointError, EndpointRole, EndpointSettings, Probes};
use crate::metrics::Metrics;
use crate::proxy::{AdmissionSettings, ProxySettings, Snapshot, WorkerProxy};
use crate::route::{Pick, RouteSettings, Table};
use crate::serve::{BindError, Bound, BoundAddress, ListenerSettings, ServeSettings};

/// Everything a gateway is built from, decided.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Where callers come in, and what each listener lets pass. Never empty.
    pub listeners: Vec<(ListenerSettings, AdmissionSettings)>,
    /// The admin listener's address; `None` turns it off.
    pub admin: Option<SocketAddr>,
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

/// What is logged, and how. Logs go to stderr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggingSettings {
    /// A `tracing` filter, such as `info` or `signalr_gateway=debug`.
    pub filter: String,
    /// The form of a line.
    pub format: LogFormat,
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
    settings: Settings,
    metrics: Arc<Metrics>,
    credentials: Credentials,
    snapshot: Arc<Snapshot>,
    bound: Bound,
    admin: Option<TcpListener>,
}

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
        let metrics = Arc::new(Metrics::new()?);
        metrics.config_in_force(&settings.hash);
        let credentials = Credentials::build(&settings.credentials, metrics.token(), control)?;
        let snapshot = Arc::new(snapshot(&settings, &credentials, &metrics)?);
        let listeners: Vec<_> = settings.listeners.iter().map(|(listener, _)| listener.clone()).collect();
        let bound = Bound::bind(&listeners, &settings.serve)?;
        let admin = match settings.admin {
            Some(address) => {
                let listener = TcpListener::bind(address).await;
                Some(listener.map_err(|source| GatewayError::BindAdmin { address, source })?)
            }
            None => None,
        };
        Ok(Self { settings, metrics, credentials, snapshot, bound, admin })
    }

    /// Returns where it can be reached once it serves.
    pub fn addresses(&self) -> Addresses {
        let names = self.settings.listeners.iter().map(|(listener, _)| listener.name.clone());
        Addresses {
            listeners: names.zip(self.bound.addresses()).collect(),
            admin: self.admin.as_ref().and_then(|admin| admin.local_addr().ok()),
        }
    }

    /// Serves until `shutdown` is done, then drains. Calls `serving` once callers are accepted.
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
        let admin = Admin::new(Arc::clone(&self.metrics), self.view(&addresses));
        let _admin_server = self.admin.map(|listener| AbortOnDrop(tokio::spawn(Arc::clone(&admin).serve(listener))));
        self.credentials.start();
        let _probes = Probes::start(self.snapshot.endpoints());
        let latest = Arc::new(ArcSwap::new(self.snapshot));
        let accept_errors = self.metrics.accept_errors().clone();
        let metrics = Arc::clone(&self.metrics);
        let running = self
            .bound
            .serve(move || WorkerProxy::new(Arc::clone(&latest), Arc::clone(&metrics)), &accept_errors)
            .map_err(GatewayError::Workers)?;
        serving(&addresses);

        shutdown.await;
        tracing::info!("stopping: no longer ready, then draining");
        admin.drain();
        let all_ended = running.drain().await;
        if all_ended { Ok(()) } else { Err(GatewayError::CutOff) }
    }

    fn view(&self, addresses: &Addresses) -> View {
        let source = |credential: &CredentialSettings| {
            Some((credential.name.to_string(), self.credentials.get(&credential.name)?))
        };
        let endpoint = |endpoint: &EndpointSettings| EndpointView {
            name: endpoint.name.to_string(),
            url: endpoint.origin.to_string(),
            credential: endpoint.credential.to_string(),
            role: match endpoint.role {
                EndpointRole::Primary => "primary",
                EndpointRole::Secondary => "secondary",
            },
        };
        let route = |route: &RouteSettings| RouteView {
            name: route.name.to_string(),
            pick: match route.pick {
                Pick::First => "first",
                Pick::Weighted => "weighted",
            },
            endpoints: route.endpoints.iter().map(|endpoint| endpoint.endpoint.to_string()).collect(),
        };
        View {
            config_hash: self.settings.hash.clone(),
            started: SystemTime::now(),
            listeners: addresses.listeners.iter().map(|(name, address)| (name.clone(), address.to_string())).collect(),
            credentials: self.settings.credentials.iter().filter_map(source).collect(),
            endpoints: self.settings.endpoints.iter().map(endpoint).collect(),
            routes: self.settings.routes.iter().map(route).collect(),
        }
    }
}

/// Makes the part of a configuration that workers follow.
fn snapshot(settings: &Settings, credentials: &Credentials, metrics: &Metrics) -> Result<Snapshot, GatewayError> {
    let build = |endpoint: &EndpointSettings| {
        let bearer = credentials.get(&endpoint.credential).ok_or_else(|| GatewayError::NoCredential {
            endpoint: endpoint.name.to_string(),
            credential: endpoint.credential.to_string(),
        })?;
        Ok::<_, GatewayError>(Arc::new(Endpoint::build(endpoint, bearer, metrics.endpoints())?))
    };
    let endpoints = settings.endpoints.iter().map(build).collect::<Result<Vec<_>, _>>()?;
    let endpoint_names: Vec<_> = settings.endpoints.iter().map(|endpoint| endpoint.name.clone()).collect();
    let listener_names: Vec<_> = settings.listeners.iter().map(|(listener, _)| listener.name.as_str()).collect();
    let routes = Table::build(&settings.routes, &endpoint_names, &listener_names);
    let admissions = settings.listeners.iter().map(|(_, admission)| admission.clone()).collect();
    Ok(Snapshot::new(settings.proxy.clone(), admissions, routes, endpoints))
}

/// Stops a task when its owner is gone.
#[derive(Debug)]
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

//! The negotiated connections of one endpoint by id, and the tasks of their sessions.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use http::StatusCode;
use http::header::WWW_AUTHENTICATE;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::polling::Polling;
use super::session::{self, ConnectionIdentity, Frame, SessionChannels};
use super::timeouts::ClientTimeouts;
use crate::sandbox::crypto::ids::random_string;
use crate::sandbox::server::exchange::Reply;
use crate::sandbox::signalr::authentication::Authentication;
use crate::sandbox::signalr::endpoint::Endpoint;

/// The capacity of the channels between a session and its transport. When they are full, deliveries wait in the hub's bounded
/// queue.
const CHANNEL_CAPACITY: usize = 8;

/// The clients of one endpoint. Their sessions end when it is dropped.
pub(crate) struct Clients {
    pub(super) endpoint: Endpoint,
    timeouts: ClientTimeouts,
    /// By the secret id with which the client connects.
    negotiated: Mutex<HashMap<String, Negotiated>>,
    sessions: Mutex<JoinSet<()>>,
}

/// A negotiated connection.
pub(super) struct Negotiated {
    pub(super) hub: String,
    pub(super) identity: ConnectionIdentity,
    pub(super) state: State,
}

/// The state of a negotiated connection.
pub(super) enum State {
    /// No transport is open. `stateful` if the client requested stateful reconnect.
    Waiting { until: Instant, stateful: bool },
    /// A WebSocket is open. With stateful reconnect, another WebSocket can replace it.
    WebSocket { replacements: Option<mpsc::Sender<SessionChannels>> },
    /// Server-sent events or long polling. The client sends records by POST.
    Posting { inbound: mpsc::Sender<Bytes>, polling: Option<Arc<Polling>> },
}

/// A client whose token is valid: its hub, its user and its claims.
#[derive(Default)]
pub(super) struct AuthenticatedClient {
    pub(super) hub: String,
    pub(super) user: Option<String>,
    pub(super) authentication: Authentication,
}

/// The channels of a transport: the sender of the client's bytes, and the receiver of frames for the client.
pub(super) type TransportChannels = (mpsc::Sender<Bytes>, mpsc::Receiver<Frame>);

/// A rejected request of a client: the status, and the reason as text.
pub(super) struct Rejection(pub(super) StatusCode, pub(super) Cow<'static, str>);

/// A guard that removes a negotiated connection when dropped.
pub(super) struct Registration {
    clients: Arc<Clients>,
    id: Option<String>,
}

impl Rejection {
    pub(super) const NO_ID: Self = Self(StatusCode::BAD_REQUEST, Cow::Borrowed("the query has no connection id"));
    pub(super) const UNKNOWN_ID: Self =
        Self(StatusCode::NOT_FOUND, Cow::Borrowed("there is no connection with this id"));
    pub(super) const ALREADY_OPEN: Self =
        Self(StatusCode::CONFLICT, Cow::Borrowed("the connection with this id is open already"));

    pub(super) const fn bad_request(reason: &'static str) -> Self {
        Self(StatusCode::BAD_REQUEST, Cow::Borrowed(reason))
    }
}

impl From<Rejection> for Reply {
    fn from(Rejection(status, reason): Rejection) -> Self {
        let reply = Self::text(status, reason.as_bytes().to_vec()).verdict(reason);
        if status == StatusCode::UNAUTHORIZED { reply.header(WWW_AUTHENTICATE, "Bearer") } else { reply }
    }
}

impl Clients {
    pub(crate) fn new(endpoint: Endpoint, timeouts: ClientTimeouts) -> Arc<Self> {
        Arc::new(Self { endpoint, timeouts, negotiated: Mutex::default(), sessions: Mutex::default() })
    }

    /// Returns the timeouts.
    pub(crate) const fn timeouts(&self) -> &ClientTimeouts {
        &self.timeouts
    }

    /// Starts a session and returns the channels of its transport.
    pub(super) fn start_session(
        self: &Arc<Self>,
        hub: &str,
        identity: ConnectionIdentity,
        keep_alive: bool,
    ) -> TransportChannels {
        let (channels, transport) = channels(keep_alive);
        let (hub, timeouts) = (self.endpoint.hubs.get_or_create(hub), self.timeouts);
        self.spawn(async move { session::run(hub, identity, channels, None, timeouts).await });
        transport
    }

    /// Starts a session that outlives its transport. Returns the sender of replacement transports, and the channels of the
    /// first transport. Removes the id when the session ends.
    pub(super) fn start_stateful_session(
        self: &Arc<Self>,
        hub: &str,
        identity: ConnectionIdentity,
        id: String,
    ) -> (mpsc::Sender<SessionChannels>, TransportChannels) {
        let (channels, transport) = channels(true);
        let (replacements, receiver) = mpsc::channel(1);
        let (hub, timeouts, clients) = (self.endpoint.hubs.get_or_create(hub), self.timeouts, Arc::downgrade(self));
        self.spawn(async move {
            session::run(hub, identity, channels, Some(receiver), timeouts).await;
            if let Some(clients) = clients.upgrade() {
                clients.remove(&id);
            }
        });
        (replacements, transport)
    }

    /// Runs a task until it ends or the endpoint is dropped.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        while sessions.try_join_next().is_some() {}
        sessions.spawn(task);
    }

    /// Removes a negotiated connection.
    pub(super) fn remove(&self, id: &str) {
        self.negotiated().remove(id);
    }

    /// Locks the negotiated connections.
    pub(super) fn negotiated(&self) -> MutexGuard<'_, HashMap<String, Negotiated>> {
        self.negotiated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the negotiated connection with this id, if it belongs to the client's hub and has not expired.
pub(super) fn find<'a>(
    negotiated: &'a mut HashMap<String, Negotiated>,
    id: &str,
    client: &AuthenticatedClient,
) -> Result<&'a mut Negotiated, Rejection> {
    let found = negotiated.get_mut(id).filter(|found| found.hub == client.hub);
    found.filter(|found| !found.state.is_expired()).ok_or(Rejection::UNKNOWN_ID)
}

impl State {
    /// Whether the client has not connected in time.
    pub(super) fn is_expired(&self) -> bool {
        matches!(self, Self::Waiting { until, .. } if *until <= Instant::now())
    }
}

impl Registration {
    /// Creates a guard for the connection with this id. Without an id, the guard removes nothing.
    pub(super) fn new(clients: &Arc<Clients>, id: Option<String>) -> Self {
        Self { clients: Arc::clone(clients), id }
    }

    /// Takes the id. The guard then removes nothing.
    pub(super) fn release(&mut self) -> Option<String> {
        self.id.take()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            self.clients.remove(id);
        }
    }
}

/// Creates the channels between a session and a transport.
pub(super) fn channels(keep_alive: bool) -> (SessionChannels, TransportChannels) {
    let (to_session, inbound) = mpsc::channel(CHANNEL_CAPACITY);
    let (outbound, from_session) = mpsc::channel(CHANNEL_CAPACITY);
    (SessionChannels { inbound, outbound, keep_alive }, (to_session, from_session))
}

/// Returns the identity of a new connection of a client.
pub(super) fn new_identity(client: AuthenticatedClient) -> ConnectionIdentity {
    let AuthenticatedClient { user, authentication, .. } = client;
    ConnectionIdentity { id: random_string(), user, authentication }
}

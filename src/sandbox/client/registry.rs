//! The negotiated connections of one endpoint by their ids, and the tasks of their sessions. Knows no HTTP beyond the
//! status of a refusal.

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
use super::session::{self, Frame, Identity, Link};
use super::times::ClientTimes;
use crate::sandbox::crypto::ids::random_string;
use crate::sandbox::server::exchange::Reply;
use crate::sandbox::signalr::endpoint::Endpoint;

/// The capacity of the channels between a session and its transport. Further deliveries stay in the hub's queue, whose size
/// is bounded.
const CHANNEL_CAPACITY: usize = 8;

/// The clients of one endpoint. Their sessions end when it is dropped.
pub(crate) struct Clients {
    pub(super) endpoint: Endpoint,
    times: ClientTimes,
    /// By the id that a client connects with, which only it knows.
    negotiated: Mutex<HashMap<String, Negotiated>>,
    sessions: Mutex<JoinSet<()>>,
}

/// A negotiated connection.
pub(super) struct Negotiated {
    pub(super) hub: String,
    pub(super) identity: Identity,
    pub(super) state: State,
}

/// The state of a negotiated connection.
pub(super) enum State {
    /// No transport is open. `stateful` if the client asked for stateful reconnect.
    Waiting { until: Instant, stateful: bool },
    /// A WebSocket is open. With stateful reconnect, another WebSocket can replace it.
    WebSocket { replacements: Option<mpsc::Sender<Link>> },
    /// Server-sent events or long polling: the client sends by POST.
    Posting { inbound: mpsc::Sender<Bytes>, polling: Option<Arc<Polling>> },
}

/// The hub and the user of a request whose token is valid.
pub(super) struct Admission {
    pub(super) hub: String,
    pub(super) user: Option<String>,
}

/// A transport's ends of a session: the sender for the client's bytes, and the receiver of frames for the client.
pub(super) type TransportEnds = (mpsc::Sender<Bytes>, mpsc::Receiver<Frame>);

/// A refused request of a client. The text is for people.
pub(super) struct Refusal(pub(super) StatusCode, pub(super) Cow<'static, str>);

/// Removes a negotiated connection when dropped.
pub(super) struct Registration {
    clients: Arc<Clients>,
    id: Option<String>,
}

impl Refusal {
    pub(super) const NO_ID: Self = Self(StatusCode::BAD_REQUEST, Cow::Borrowed("the query has no connection id"));
    pub(super) const UNKNOWN: Self = Self(StatusCode::NOT_FOUND, Cow::Borrowed("there is no connection with this id"));
    pub(super) const OPEN: Self =
        Self(StatusCode::CONFLICT, Cow::Borrowed("the connection with this id is open already"));

    pub(super) const fn bad_request(reason: &'static str) -> Self {
        Self(StatusCode::BAD_REQUEST, Cow::Borrowed(reason))
    }
}

impl From<Refusal> for Reply {
    fn from(Refusal(status, reason): Refusal) -> Self {
        let reply = Self::text(status, reason.as_bytes().to_vec()).verdict(reason);
        if status == StatusCode::UNAUTHORIZED { reply.header(WWW_AUTHENTICATE, "Bearer") } else { reply }
    }
}

impl Clients {
    pub(crate) fn new(endpoint: Endpoint, times: ClientTimes) -> Arc<Self> {
        Arc::new(Self { endpoint, times, negotiated: Mutex::default(), sessions: Mutex::default() })
    }

    /// Returns the timeouts.
    pub(crate) const fn times(&self) -> &ClientTimes {
        &self.times
    }

    /// Starts a session and returns the transport's ends of it.
    pub(super) fn start(self: &Arc<Self>, hub: &str, identity: Identity, keep_alive: bool) -> TransportEnds {
        let (link, ends) = link(keep_alive);
        let (hub, times) = (self.endpoint.hubs.get_or_create(hub), self.times);
        self.spawn(async move { session::run(hub, identity, link, None, times).await });
        ends
    }

    /// Starts a session that outlives its transport. Returns the sender of replacement transports, and the first
    /// transport's ends. The id is removed when the session ends.
    pub(super) fn start_stateful(
        self: &Arc<Self>,
        hub: &str,
        identity: Identity,
        id: String,
    ) -> (mpsc::Sender<Link>, TransportEnds) {
        let (link, ends) = link(true);
        let (replacements, links) = mpsc::channel(1);
        let (hub, times, clients) = (self.endpoint.hubs.get_or_create(hub), self.times, Arc::downgrade(self));
        self.spawn(async move {
            session::run(hub, identity, link, Some(links), times).await;
            if let Some(clients) = clients.upgrade() {
                clients.remove(&id);
            }
        });
        (replacements, ends)
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

/// Returns the negotiated connection with this id, if it is of the admitted hub and has not expired.
pub(super) fn find<'a>(
    negotiated: &'a mut HashMap<String, Negotiated>,
    id: &str,
    admission: &Admission,
) -> Result<&'a mut Negotiated, Refusal> {
    let found = negotiated.get_mut(id).filter(|found| found.hub == admission.hub);
    found.filter(|found| !found.state.is_expired()).ok_or(Refusal::UNKNOWN)
}

impl State {
    /// Whether the client did not connect in time.
    pub(super) fn is_expired(&self) -> bool {
        matches!(self, Self::Waiting { until, .. } if *until <= Instant::now())
    }
}

impl Registration {
    /// Removes the connection with this id when dropped, or nothing if there is no id.
    pub(super) fn new(clients: &Arc<Clients>, id: Option<String>) -> Self {
        Self { clients: Arc::clone(clients), id }
    }

    /// Takes the id out, so that dropping this removes nothing.
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

/// Creates the session's end of a transport, and the transport's ends of the session.
pub(super) fn link(keep_alive: bool) -> (Link, TransportEnds) {
    let (to_session, inbound) = mpsc::channel(CHANNEL_CAPACITY);
    let (outbound, from_session) = mpsc::channel(CHANNEL_CAPACITY);
    (Link { inbound, outbound, keep_alive }, (to_session, from_session))
}

/// Returns the identity of a new connection.
pub(super) fn new_identity(user: Option<String>) -> Identity {
    Identity { id: random_string(), user }
}

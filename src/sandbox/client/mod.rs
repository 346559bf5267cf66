//! What clients of a SignalR endpoint meet: `/client/negotiate` and `/client/`, over every transport. Decides who may
//! connect and which connection a request is about; what is said on a connection is `session.rs`.
//!
//! Source: TransportProtocols.md of ASP.NET Core, and what its server answers.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{
    ACCEPT, ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, UPGRADE, VARY,
    WWW_AUTHENTICATE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::crypto::ids::unique;
use super::crypto::keys;
use super::server::exchange::{Received, Reply};
use super::signalr::endpoint::Endpoint;
use super::signalr::parameters;

mod events;
mod hub_protocol;
pub(super) mod negotiate;
mod polling;
mod replay;
mod session;
mod websocket;

use polling::Polling;
use session::{Frame, Link, Who};

/// How many pieces may be on their way between a session and its transport, in each direction. What waits for a
/// client beyond that waits in the hub, where it is counted.
const IN_FLIGHT: usize = 8;

/// The times that a SignalR server keeps to.
///
/// Source: the defaults of ASP.NET Core.
#[derive(Clone, Copy, Debug)]
pub struct ClientTimes {
    /// How long a client that negotiated may take to connect. 15 seconds by default.
    pub connect: Duration,
    /// How long a client that connected may take to say its hub protocol. 15 seconds by default.
    pub handshake: Duration,
    /// After how long without anything to say a ping is sent. 15 seconds by default.
    pub keep_alive: Duration,
    /// After how long of silence a client is given up. 30 seconds by default.
    pub silence: Duration,
    /// How long a client may take to accept one piece of what it is sent. 30 seconds by default.
    pub write: Duration,
    /// How long a poll is held without anything to say. 90 seconds by default.
    pub poll: Duration,
    /// How long a client that asked for stateful reconnect may stay away when its transport breaks. 15 seconds by default.
    pub away: Duration,
    /// How long a client that polls may stay away between two polls. 15 seconds by default.
    pub between_polls: Duration,
}

impl Default for ClientTimes {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(15),
            handshake: Duration::from_secs(15),
            keep_alive: Duration::from_secs(15),
            silence: Duration::from_secs(30),
            write: Duration::from_secs(30),
            poll: Duration::from_secs(90),
            away: Duration::from_secs(15),
            between_polls: Duration::from_secs(15),
        }
    }
}

/// The clients of one endpoint. Their sessions end when it is dropped.
pub(super) struct Clients {
    endpoint: Endpoint,
    times: ClientTimes,
    /// By the id that a client connects with, which only it knows.
    negotiated: Mutex<HashMap<String, Negotiated>>,
    sessions: Mutex<JoinSet<()>>,
}

/// A connection that was negotiated.
struct Negotiated {
    hub: String,
    who: Who,
    state: State,
}

/// What has become of a negotiated connection.
enum State {
    /// Nobody has connected to it yet. The client may have asked for stateful reconnect.
    Waiting { until: Instant, stateful: bool },
    /// It is open as a WebSocket. With stateful reconnect, another one may take its place.
    WebSocket { others: Option<mpsc::Sender<Link>> },
    /// It is open, and its client sends by POST.
    Posting { inbound: mpsc::Sender<Bytes>, polling: Option<Arc<Polling>> },
}

/// Who asks, as its token says, and for which hub.
struct Visitor {
    hub: String,
    user: Option<String>,
}

/// A transport's ends of a session: where what it hears goes, and what it is to say.
type Ends = (mpsc::Sender<Bytes>, mpsc::Receiver<Frame>);

/// Why a client is sent away. The text is for people.
struct Refusal(StatusCode, Cow<'static, str>);

impl Refusal {
    const NO_ID: Self = Self(StatusCode::BAD_REQUEST, Cow::Borrowed("the query has no connection id"));
    const UNKNOWN: Self = Self(StatusCode::NOT_FOUND, Cow::Borrowed("there is no connection with this id"));
    const OPEN: Self = Self(StatusCode::CONFLICT, Cow::Borrowed("the connection with this id is open already"));
}

impl From<Refusal> for Reply {
    fn from(Refusal(status, reason): Refusal) -> Self {
        let reply = Self::text(status, reason.as_bytes().to_vec()).verdict(reason);
        if status == StatusCode::UNAUTHORIZED { reply.header(WWW_AUTHENTICATE, "Bearer") } else { reply }
    }
}

/// Whether a path is one that clients use.
pub(super) fn is_client_path(path: &str) -> bool {
    path == "/client" || path.starts_with("/client/")
}

impl Clients {
    pub(super) fn new(endpoint: Endpoint, times: ClientTimes) -> Arc<Self> {
        Arc::new(Self { endpoint, times, negotiated: Mutex::default(), sessions: Mutex::default() })
    }

    /// The times that are kept to.
    pub(super) const fn times(&self) -> &ClientTimes {
        &self.times
    }

    /// Answers a client. `local_auth` says whether tokens count that are signed with an access key.
    pub(super) async fn answer(self: &Arc<Self>, mut request: Received, local_auth: bool) -> Reply {
        self.try_answer(&mut request, local_auth).await.unwrap_or_else(Reply::from)
    }

    async fn try_answer(self: &Arc<Self>, request: &mut Received, local_auth: bool) -> Result<Reply, Refusal> {
        if request.method == Method::OPTIONS {
            return Ok(Reply::empty(StatusCode::NO_CONTENT).verdict("asked by a browser beforehand"));
        }
        let visitor = self.admit(request, local_auth)?;
        let not_allowed = || Refusal(StatusCode::METHOD_NOT_ALLOWED, Cow::Borrowed("there is no such method here"));
        match request.path.trim_end_matches('/') {
            "/client/negotiate" if request.method == Method::POST => Ok(self.negotiate(request, visitor)),
            "/client/negotiate" => Err(not_allowed()),
            "/client" => match request.method {
                Method::GET if request.headers.contains_key(UPGRADE) => self.open_websocket(request, visitor),
                Method::GET if accepts_events(request) => self.open_events(request, &visitor),
                Method::GET => self.poll(request, &visitor).await,
                Method::POST => self.receive(request, &visitor).await,
                Method::DELETE => self.delete(request, &visitor),
                _ => Err(not_allowed()),
            },
            _ => Err(Refusal(StatusCode::NOT_FOUND, Cow::Borrowed("clients have /client/ and /client/negotiate"))),
        }
    }

    /// Checks the hub and the token: in the header, or in the query, where a browser must put it.
    fn admit(&self, request: &Received, local_auth: bool) -> Result<Visitor, Refusal> {
        let bad_hub = || {
            let reason = "the query must name one hub, which begins with a letter";
            Refusal(StatusCode::BAD_REQUEST, Cow::Borrowed(reason))
        };
        let mut hubs = request.query_values("hub");
        let hub = hubs.pop().filter(|_| hubs.is_empty()).ok_or_else(bad_hub)?;
        let hub = parameters::hub_name(request, &hub).ok().ok_or_else(bad_hub)?;
        let unauthorized = |reason: Cow<'static, str>| Refusal(StatusCode::UNAUTHORIZED, reason);
        let in_query = request.query_value("access_token");
        let token = request.bearer().or(in_query.as_deref());
        let token = token.ok_or_else(|| unauthorized(Cow::Borrowed("there is no token")))?;
        let (keys, origin) = (self.endpoint.keys(), self.endpoint.url());
        let claims = keys
            .check_client_token(token, &origin, &hub, local_auth, SystemTime::now())
            .map_err(|reason| unauthorized(Cow::Owned(reason)))?;
        Ok(Visitor { hub: hub.to_ascii_lowercase(), user: user(&claims) })
    }

    /// What was negotiated under the id of a request, if the visitor is of the same hub.
    fn find<'a>(
        negotiated: &'a mut HashMap<String, Negotiated>,
        id: &str,
        visitor: &Visitor,
    ) -> Result<&'a mut Negotiated, Refusal> {
        let found = negotiated.get_mut(id).filter(|found| found.hub == visitor.hub);
        found.filter(|found| !found.state.is_too_late()).ok_or(Refusal::UNKNOWN)
    }

    /// A POST: what a client that cannot send otherwise has to say.
    async fn receive(&self, request: &Received, visitor: &Visitor) -> Result<Reply, Refusal> {
        let id = request.query_value("id").ok_or(Refusal::NO_ID)?;
        let inbound = {
            let mut negotiated = self.negotiated();
            match &Self::find(&mut negotiated, &id, visitor)?.state {
                State::Posting { inbound, .. } => inbound.clone(),
                State::WebSocket { .. } => {
                    let reason = "the connection is a WebSocket; send there";
                    return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, Cow::Borrowed(reason)));
                }
                State::Waiting { .. } => {
                    let reason = "the connection has no transport yet; send GET first";
                    return Err(Refusal(StatusCode::BAD_REQUEST, Cow::Borrowed(reason)));
                }
            }
        };
        inbound.send(request.body.clone()).await.map_err(|_ended| Refusal::UNKNOWN)?;
        Ok(Reply::empty(StatusCode::OK).verdict("received"))
    }

    /// A DELETE: a client that polls goes away.
    fn delete(&self, request: &Received, visitor: &Visitor) -> Result<Reply, Refusal> {
        let id = request.query_value("id").ok_or(Refusal::NO_ID)?;
        let mut negotiated = self.negotiated();
        match Self::find(&mut negotiated, &id, visitor)?.state {
            State::Posting { polling: Some(_), .. } => drop(negotiated.remove(&id)),
            State::Posting { polling: None, .. } | State::WebSocket { .. } | State::Waiting { .. } => {
                let reason = "only a connection that polls is ended by DELETE";
                return Err(Refusal(StatusCode::BAD_REQUEST, Cow::Borrowed(reason)));
            }
        }
        Ok(Reply::empty(StatusCode::ACCEPTED).verdict("left"))
    }

    /// Starts a session and returns the transport's ends of it.
    fn start(self: &Arc<Self>, hub: &str, who: Who, keep_alive: bool) -> Ends {
        let (link, ends) = link(keep_alive);
        let (hub, times) = (self.endpoint.hubs.hub(hub), self.times);
        self.spawn(async move { session::run(hub, who, link, None, times).await });
        ends
    }

    /// Starts a session that other transports may take up while it is known by its id; and returns where they do.
    fn start_stateful(self: &Arc<Self>, hub: &str, who: Who, id: String) -> (mpsc::Sender<Link>, Ends) {
        let (link, ends) = link(true);
        let (others, links) = mpsc::channel(1);
        let (hub, times, clients) = (self.endpoint.hubs.hub(hub), self.times, Arc::downgrade(self));
        self.spawn(async move {
            session::run(hub, who, link, Some(links), times).await;
            if let Some(clients) = clients.upgrade() {
                clients.forget(&id);
            }
        });
        (others, ends)
    }

    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        while sessions.try_join_next().is_some() {}
        sessions.spawn(task);
    }

    fn forget(&self, id: &str) {
        self.negotiated().remove(id);
    }

    fn negotiated(&self) -> MutexGuard<'_, HashMap<String, Negotiated>> {
        self.negotiated.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_too_late(&self) -> bool {
        matches!(self, Self::Waiting { until, .. } if *until <= Instant::now())
    }
}

/// A session's end of a transport, and the transport's ends of the session.
fn link(keep_alive: bool) -> (Link, Ends) {
    let (to_session, inbound) = mpsc::channel(IN_FLIGHT);
    let (outbound, from_session) = mpsc::channel(IN_FLIGHT);
    (Link { inbound, outbound, keep_alive }, (to_session, from_session))
}

/// Someone new.
fn newcomer(user: Option<String>) -> Who {
    Who { id: unique(), user }
}

/// The user that a token names.
///
/// Source: the order of the official emulator and SDK.
fn user(claims: &keys::Claims) -> Option<String> {
    let names = ["asrs.s.uid", "nameid", "sub", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier"];
    names.iter().find_map(|name| keys::text(claims, name)).map(str::to_owned)
}

fn accepts_events(request: &Received) -> bool {
    request.header(ACCEPT).is_some_and(|accept| accept.contains("text/event-stream"))
}

/// The header fields that let pages of any origin read the answer, whatever it is. They send credentials, so the origin
/// must be named.
pub(super) fn cross_origin(request: &Received) -> HeaderMap {
    let mut fields = HeaderMap::from_iter([(VARY, HeaderValue::from_static("Origin"))]);
    let Some(origin) = request.headers.get(ORIGIN) else {
        return fields;
    };
    fields.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
    fields.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    if request.method != Method::OPTIONS {
        return fields;
    }
    let usual = HeaderValue::from_static("authorization, content-type, x-requested-with, x-signalr-user-agent");
    let headers = request.headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or(usual);
    fields.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    fields.insert(ACCESS_CONTROL_ALLOW_HEADERS, headers);
    fields.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    fields
}

//! Handles the requests of clients: checks the hub and the token, and passes a request to negotiation or to a transport.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{ACCEPT, UPGRADE};
use http::{Method, StatusCode};

use super::registry::{AuthenticatedClient, Clients, Rejection, State, find};
use super::{long_polling, negotiate, server_sent_events, websocket};
use crate::sandbox::server::exchange::{ReceivedRequest, Reply};
use crate::sandbox::signalr::authentication::{self, Authentication};
use crate::sandbox::signalr::parameters;
use crate::sandbox::signalr::problem::PathForm;

/// Whether clients use a path.
pub(crate) fn is_client_path(path: &str) -> bool {
    path == "/client" || path.starts_with("/client/")
}

/// Handles a request of a client. `local_auth` is whether tokens signed with an access key are accepted.
pub(crate) async fn handle(clients: &Arc<Clients>, mut request: ReceivedRequest, local_auth: bool) -> Reply {
    try_handle(clients, &mut request, local_auth).await.unwrap_or_else(Reply::from)
}

async fn try_handle(
    clients: &Arc<Clients>,
    request: &mut ReceivedRequest,
    local_auth: bool,
) -> Result<Reply, Rejection> {
    if request.method == Method::OPTIONS {
        return Ok(Reply::empty(StatusCode::NO_CONTENT).verdict("CORS preflight"));
    }
    let client = authenticate(clients, request, local_auth)?;
    let not_allowed =
        || Rejection(StatusCode::METHOD_NOT_ALLOWED, Cow::Borrowed("the path does not allow this method"));
    match request.path.trim_end_matches('/') {
        "/client/negotiate" if request.method == Method::POST => Ok(negotiate::negotiate(clients, request, client)),
        "/client/negotiate" => Err(not_allowed()),
        "/client" => match request.method {
            Method::GET if request.headers.contains_key(UPGRADE) => websocket::open(clients, request, client),
            Method::GET if accepts_events(request) => server_sent_events::open(clients, request, &client),
            Method::GET => long_polling::poll(clients, request, &client).await,
            Method::POST => receive(clients, request, &client).await,
            Method::DELETE => delete(clients, request, &client),
            _ => Err(not_allowed()),
        },
        _ => Err(Rejection(StatusCode::NOT_FOUND, Cow::Borrowed("clients use /client/ and /client/negotiate"))),
    }
}

/// Checks the hub and the token. Browsers cannot set `Authorization` on every transport, so the token may be in the query.
fn authenticate(
    clients: &Clients,
    request: &ReceivedRequest,
    local_auth: bool,
) -> Result<AuthenticatedClient, Rejection> {
    let bad_hub = || Rejection::bad_request("the query must name one hub, which begins with a letter");
    let mut hubs = request.query_values("hub");
    let hub = hubs.pop().filter(|_| hubs.is_empty()).ok_or_else(bad_hub)?;
    let hub = parameters::hub_name(request, &hub, PathForm::V1).ok().ok_or_else(bad_hub)?;
    let unauthorized = |reason: Cow<'static, str>| Rejection(StatusCode::UNAUTHORIZED, reason);
    let in_query = request.query_value("access_token");
    let token = request.bearer().or(in_query.as_deref());
    let token = token.ok_or_else(|| unauthorized(Cow::Borrowed("the request has no token")))?;
    let (access_keys, origin) = (clients.endpoint.keys(), clients.endpoint.url());
    let claims = access_keys
        .check_client_token(token, &origin, &hub, local_auth, SystemTime::now())
        .map_err(|reason| unauthorized(Cow::Owned(reason)))?;
    let (user, hub) = (authentication::user(&claims), hub.to_ascii_lowercase());
    let (expires, claims) = (authentication::expiry(&claims), authentication::of_token(&claims));
    Ok(AuthenticatedClient { hub, user, authentication: Authentication { token: None, claims, expires } })
}

/// Handles a POST, which carries records of a client with server-sent events or long polling.
async fn receive(
    clients: &Clients,
    request: &ReceivedRequest,
    client: &AuthenticatedClient,
) -> Result<Reply, Rejection> {
    let id = request.query_value("id").ok_or(Rejection::NO_ID)?;
    let inbound = {
        let mut negotiated = clients.negotiated();
        match &find(&mut negotiated, &id, client)?.state {
            State::Posting { inbound, .. } => inbound.clone(),
            State::WebSocket { .. } => {
                let reason = "the connection uses a WebSocket; send records over it";
                return Err(Rejection(StatusCode::METHOD_NOT_ALLOWED, Cow::Borrowed(reason)));
            }
            State::Waiting { .. } => {
                return Err(Rejection::bad_request("the connection has no transport yet; send GET first"));
            }
        }
    };
    inbound.send(request.body.clone()).await.map_err(|_ended| Rejection::UNKNOWN_ID)?;
    Ok(Reply::empty(StatusCode::OK).verdict("received"))
}

/// Handles a DELETE: ends a connection with long polling.
fn delete(clients: &Clients, request: &ReceivedRequest, client: &AuthenticatedClient) -> Result<Reply, Rejection> {
    let id = request.query_value("id").ok_or(Rejection::NO_ID)?;
    let mut negotiated = clients.negotiated();
    match find(&mut negotiated, &id, client)?.state {
        State::Posting { polling: Some(_), .. } => drop(negotiated.remove(&id)),
        State::Posting { polling: None, .. } | State::WebSocket { .. } | State::Waiting { .. } => {
            return Err(Rejection::bad_request("DELETE ends connections with long polling only"));
        }
    }
    Ok(Reply::empty(StatusCode::ACCEPTED).verdict("disconnected"))
}

fn accepts_events(request: &ReceivedRequest) -> bool {
    request.header(ACCEPT).is_some_and(|accept| accept.contains("text/event-stream"))
}

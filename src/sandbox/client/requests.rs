//! The requests of clients: checks the hub and the token, and passes a request to negotiation or to a transport.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{ACCEPT, UPGRADE};
use http::{Method, StatusCode};

use super::registry::{Admission, Clients, Refusal, State, find};
use super::{long_polling, negotiate, server_sent_events, websocket};
use crate::sandbox::crypto::keys;
use crate::sandbox::server::exchange::{ReceivedRequest, Reply};
use crate::sandbox::signalr::parameters;

/// Whether a path is for clients.
pub(crate) fn is_client_path(path: &str) -> bool {
    path == "/client" || path.starts_with("/client/")
}

/// Answers a client. `local_auth` says whether tokens signed with an access key are accepted.
pub(crate) async fn answer(clients: &Arc<Clients>, mut request: ReceivedRequest, local_auth: bool) -> Reply {
    try_answer(clients, &mut request, local_auth).await.unwrap_or_else(Reply::from)
}

async fn try_answer(clients: &Arc<Clients>, request: &mut ReceivedRequest, local_auth: bool) -> Result<Reply, Refusal> {
    if request.method == Method::OPTIONS {
        return Ok(Reply::empty(StatusCode::NO_CONTENT).verdict("CORS preflight"));
    }
    let admission = admit(clients, request, local_auth)?;
    let not_allowed = || Refusal(StatusCode::METHOD_NOT_ALLOWED, Cow::Borrowed("the method is not allowed here"));
    match request.path.trim_end_matches('/') {
        "/client/negotiate" if request.method == Method::POST => Ok(negotiate::negotiate(clients, request, admission)),
        "/client/negotiate" => Err(not_allowed()),
        "/client" => match request.method {
            Method::GET if request.headers.contains_key(UPGRADE) => websocket::open(clients, request, admission),
            Method::GET if accepts_events(request) => server_sent_events::open(clients, request, &admission),
            Method::GET => long_polling::poll(clients, request, &admission).await,
            Method::POST => receive(clients, request, &admission).await,
            Method::DELETE => delete(clients, request, &admission),
            _ => Err(not_allowed()),
        },
        _ => Err(Refusal(StatusCode::NOT_FOUND, Cow::Borrowed("clients use /client/ and /client/negotiate"))),
    }
}

/// Checks the hub, and the token in `Authorization` or in the query. Browsers cannot set headers on every transport.
fn admit(clients: &Clients, request: &ReceivedRequest, local_auth: bool) -> Result<Admission, Refusal> {
    let bad_hub = || Refusal::bad_request("the query must name one hub, which begins with a letter");
    let mut hubs = request.query_values("hub");
    let hub = hubs.pop().filter(|_| hubs.is_empty()).ok_or_else(bad_hub)?;
    let hub = parameters::hub_name(request, &hub).ok().ok_or_else(bad_hub)?;
    let unauthorized = |reason: Cow<'static, str>| Refusal(StatusCode::UNAUTHORIZED, reason);
    let in_query = request.query_value("access_token");
    let token = request.bearer().or(in_query.as_deref());
    let token = token.ok_or_else(|| unauthorized(Cow::Borrowed("the request has no token")))?;
    let (access_keys, origin) = (clients.endpoint.keys(), clients.endpoint.url());
    let claims = access_keys
        .check_client_token(token, &origin, &hub, local_auth, SystemTime::now())
        .map_err(|reason| unauthorized(Cow::Owned(reason)))?;
    Ok(Admission { hub: hub.to_ascii_lowercase(), user: user(&claims) })
}

/// Handles a POST: records of a client that uses server-sent events or long polling.
async fn receive(clients: &Clients, request: &ReceivedRequest, admission: &Admission) -> Result<Reply, Refusal> {
    let id = request.query_value("id").ok_or(Refusal::NO_ID)?;
    let inbound = {
        let mut negotiated = clients.negotiated();
        match &find(&mut negotiated, &id, admission)?.state {
            State::Posting { inbound, .. } => inbound.clone(),
            State::WebSocket { .. } => {
                let reason = "the connection is a WebSocket; send there";
                return Err(Refusal(StatusCode::METHOD_NOT_ALLOWED, Cow::Borrowed(reason)));
            }
            State::Waiting { .. } => {
                return Err(Refusal::bad_request("the connection has no transport yet; send GET first"));
            }
        }
    };
    inbound.send(request.body.clone()).await.map_err(|_ended| Refusal::UNKNOWN)?;
    Ok(Reply::empty(StatusCode::OK).verdict("received"))
}

/// Handles a DELETE: ends a connection with long polling.
fn delete(clients: &Clients, request: &ReceivedRequest, admission: &Admission) -> Result<Reply, Refusal> {
    let id = request.query_value("id").ok_or(Refusal::NO_ID)?;
    let mut negotiated = clients.negotiated();
    match find(&mut negotiated, &id, admission)?.state {
        State::Posting { polling: Some(_), .. } => drop(negotiated.remove(&id)),
        State::Posting { polling: None, .. } | State::WebSocket { .. } | State::Waiting { .. } => {
            return Err(Refusal::bad_request("DELETE ends connections with long polling only"));
        }
    }
    Ok(Reply::empty(StatusCode::ACCEPTED).verdict("disconnected"))
}

/// Returns the user that a token names.
///
/// Source: the order of the official emulator and SDK.
fn user(claims: &keys::Claims) -> Option<String> {
    let names = ["asrs.s.uid", "nameid", "sub", "http://schemas.xmlsoap.org/ws/2005/05/identity/claims/nameidentifier"];
    names.iter().find_map(|name| keys::string_claim(claims, name)).map(str::to_owned)
}

fn accepts_events(request: &ReceivedRequest) -> bool {
    request.header(ACCEPT).is_some_and(|accept| accept.contains("text/event-stream"))
}

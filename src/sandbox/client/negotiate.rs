//! Negotiation: `POST /client/negotiate` returns the transports and the ids of a new connection. Before that, an
//! application's own `negotiate` redirects its clients to the service.

use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::registry::{Admission, Clients, Negotiated, State, new_identity};
use crate::sandbox::crypto::ids::random_string;
use crate::sandbox::server::exchange::{ReceivedRequest, Reply};
use crate::sandbox::signalr::endpoint::Endpoint;
use crate::sandbox::signalr::parameters;

/// The highest version of negotiation.
const MAX_VERSION: u64 = 1;

/// The number of negotiated connections without a transport. Chosen: five times what the largest soak test connects; clients
/// that negotiate and never connect use a few MiB at most.
const MAX_WAITING: usize = 10_000;

/// The lifetime of the token that an application gives its clients. Source: the default of the Management SDK.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// Answers as an application that redirects its clients to the service below `base`, with a token for it.
///
/// Source: TransportProtocols.md, the redirect response of a negotiation.
pub(crate) fn for_application(endpoint: &Endpoint, request: &ReceivedRequest, base: &str) -> Reply {
    if request.method != Method::POST {
        return Reply::empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    let hub = request.query_value("hub").unwrap_or_default();
    let Ok(hub) = parameters::hub_name(request, &hub) else {
        return Reply::text(StatusCode::BAD_REQUEST, "the query must name a hub, which begins with a letter");
    };
    let hub = hub.to_ascii_lowercase();
    let user = request.query_value("user").filter(|user| !user.is_empty());
    let audience = format!("{}/client/?hub={hub}", endpoint.url());
    match endpoint.keys().client_token(&audience, user.as_deref(), TOKEN_LIFE, SystemTime::now()) {
        Ok(token) => {
            let body = json!({ "url": format!("{base}/client/?hub={hub}"), "accessToken": token });
            Reply::json(StatusCode::OK, &body).verdict("redirected to the service")
        }
        Err(err) => Reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("the token cannot be signed: {err}")),
    }
}

/// Handles `POST /client/negotiate`.
pub(super) fn negotiate(clients: &Clients, request: &ReceivedRequest, admission: Admission) -> Reply {
    let asked = request.query_value("negotiateVersion");
    let version = asked.as_deref().map_or(Ok(0), str::parse::<u64>);
    let Ok(version) = version.map(|version| version.min(MAX_VERSION)) else {
        // Clients expect the error in a response with status 200.
        let error = "The client requested an invalid protocol version.";
        return Reply::json(StatusCode::OK, &json!({ "error": error })).verdict("invalid version");
    };
    let identity = new_identity(admission.user);
    let connection_id = identity.id.clone();
    // Version 0 has one id. Version 1 separates the public connection id from the secret that opens a transport.
    let token = if version == 0 { connection_id.clone() } else { random_string() };
    let stateful = version > 0 && request.query_value("useStatefulReconnect").as_deref() == Some("true");
    let until = Instant::now() + clients.times().connect;
    let mut negotiated = clients.negotiated();
    let mut waiting = 0;
    negotiated.retain(|_, other| {
        let is_kept = !other.state.is_expired();
        waiting += usize::from(is_kept && matches!(other.state, State::Waiting { .. }));
        is_kept
    });
    if waiting >= MAX_WAITING {
        return too_many(clients.times().connect);
    }
    let state = State::Waiting { until, stateful };
    negotiated.insert(token.clone(), Negotiated { hub: admission.hub, identity, state });
    drop(negotiated);

    let mut answer = json!({
        "negotiateVersion": version,
        "connectionId": connection_id,
        "availableTransports": [
            { "transport": "WebSockets", "transferFormats": ["Text", "Binary"] },
            { "transport": "ServerSentEvents", "transferFormats": ["Text"] },
            { "transport": "LongPolling", "transferFormats": ["Text", "Binary"] },
        ],
    });
    if let (true, Some(fields)) = (version > 0, answer.as_object_mut()) {
        fields.insert(String::from("connectionToken"), token.into());
        // A client that did not ask for it refuses to connect if it is offered.
        if stateful {
            fields.insert(String::from("useStatefulReconnect"), true.into());
        }
    }
    Reply::json(StatusCode::OK, &answer).verdict(format!("negotiated {connection_id}"))
}

/// Returns the refusal that the service also sends when its units have no connections left.
///
/// Source: Azure SignalR's troubleshooting guide, 429 Too Many Requests.
fn too_many(connect: Duration) -> Reply {
    let reason = format!(
        "{MAX_WAITING} negotiated connections are waiting for their clients, which is the limit; each is dropped if its \
         client does not connect within {} seconds",
        connect.as_secs_f64()
    );
    // In whole seconds, and at least one.
    let after = Duration::from_secs(connect.as_secs().max(1));
    Reply::text(StatusCode::TOO_MANY_REQUESTS, reason.clone()).retry_after(Some(after)).verdict(reason)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;

    use bytes::Bytes;
    use http::HeaderMap;

    use super::super::times::ClientTimes;
    use super::*;
    use crate::sandbox::server::listen::Server;

    fn clients(times: ClientTimes) -> Arc<Clients> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let server = Server::new("east", address, String::from("http://localhost:1"), true);
        Clients::new(Endpoint::new(server, None, None), times)
    }

    fn negotiate(clients: &Clients) -> Reply {
        let request = ReceivedRequest {
            method: Method::POST,
            path: String::from("/client/negotiate"),
            query: String::from("hub=chat"),
            host: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            upgrade: None,
        };
        super::negotiate(clients, &request, Admission { hub: String::from("chat"), user: None })
    }

    /// Adds connections in a state.
    fn fill(clients: &Clients, count: usize, state: impl Fn() -> State) {
        let mut negotiated = clients.negotiated();
        for _ in 0..count {
            let entry = Negotiated { hub: String::from("chat"), identity: new_identity(None), state: state() };
            negotiated.insert(random_string(), entry);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refuses_to_negotiate_while_too_many_connections_wait() {
        let times = ClientTimes { connect: Duration::from_secs(2), ..ClientTimes::default() };
        let clients = clients(times);
        // An open connection does not count.
        fill(&clients, 10, || State::WebSocket { replacements: None });
        let until = Instant::now() + times.connect;
        fill(&clients, MAX_WAITING - 1, || State::Waiting { until, stateful: false });
        assert_eq!(negotiate(&clients).status, StatusCode::OK);
        let refused = negotiate(&clients);
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        let reason = "10000 negotiated connections are waiting for their clients, which is the limit; each is dropped if its \
                      client does not connect within 2 seconds";
        assert_eq!(refused.body, reason);
        assert_eq!(refused.headers["retry-after"], "2");
        assert_eq!(clients.negotiated().len(), MAX_WAITING + 10);
        tokio::time::advance(times.connect).await;
        assert_eq!(negotiate(&clients).status, StatusCode::OK);
        assert_eq!(clients.negotiated().len(), 11);
    }
}

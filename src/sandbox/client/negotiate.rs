//! Negotiation: `POST /client/negotiate` returns the transports and the ids of a new connection. Before that, an
//! application's own `negotiate` redirects its clients to the service.

use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::registry::{AuthenticatedClient, Clients, Negotiated, State, new_identity};
use crate::sandbox::crypto::ids::random_string;
use crate::sandbox::server::exchange::{ReceivedRequest, Reply};
use crate::sandbox::signalr::endpoint::Endpoint;
use crate::sandbox::signalr::parameters;
use crate::sandbox::signalr::problem::PathForm;

/// The highest version of negotiation.
const MAX_VERSION: u64 = 1;

/// The largest number of negotiated connections without a transport. Chosen: five times the connections of the largest soak
/// test. At this limit, the connections use a few MiB.
const MAX_WAITING: usize = 10_000;

/// The lifetime of the token that an application gives its clients. Source: the default of the Management SDK.
const TOKEN_LIFETIME: Duration = Duration::from_secs(3600);

/// Redirects a client to the service below `base`, as an application does. The response contains a token for the service.
///
/// Source: TransportProtocols.md, the redirect response of a negotiation.
pub(crate) fn redirect_to_service(endpoint: &Endpoint, request: &ReceivedRequest, base: &str) -> Reply {
    if request.method != Method::POST {
        return Reply::empty(StatusCode::METHOD_NOT_ALLOWED);
    }
    let hub = request.query_value("hub").unwrap_or_default();
    let Ok(hub) = parameters::hub_name(request, &hub, PathForm::V1) else {
        return Reply::text(StatusCode::BAD_REQUEST, "the query must name a hub, which begins with a letter");
    };
    let hub = hub.to_ascii_lowercase();
    let user = request.query_value("user").filter(|user| !user.is_empty());
    let audience = format!("{}/client/?hub={hub}", endpoint.url());
    match endpoint.keys().client_token(&audience, user.as_deref(), TOKEN_LIFETIME, SystemTime::now()) {
        Ok(token) => {
            let body = json!({ "url": format!("{base}/client/?hub={hub}"), "accessToken": token });
            Reply::json(StatusCode::OK, &body).verdict("redirected to the service")
        }
        Err(err) => Reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("the token cannot be signed: {err}")),
    }
}

/// Handles `POST /client/negotiate`.
pub(super) fn negotiate(clients: &Clients, request: &ReceivedRequest, client: AuthenticatedClient) -> Reply {
    let requested = request.query_value("negotiateVersion");
    let version = requested.as_deref().map_or(Ok(0), str::parse::<u64>);
    let Ok(version) = version.map(|version| version.min(MAX_VERSION)) else {
        // Clients expect the error in a response with status 200.
        let error = "The client requested an invalid protocol version.";
        return Reply::json(StatusCode::OK, &json!({ "error": error })).verdict("invalid version");
    };
    let hub = client.hub.clone();
    let mut identity = new_identity(client);
    let connection_id = identity.id.clone();
    // Version 0 has one id. Version 1 separates the public connection id from the secret that opens a transport.
    let token = if version == 0 { connection_id.clone() } else { random_string() };
    identity.authentication.token = (version > 0).then(|| token.clone());
    let stateful = version > 0 && request.query_value("useStatefulReconnect").as_deref() == Some("true");
    let until = Instant::now() + clients.timeouts().connect;
    let mut negotiated = clients.negotiated();
    let mut waiting = 0;
    negotiated.retain(|_, other| {
        let is_kept = !other.state.is_expired();
        waiting += usize::from(is_kept && matches!(other.state, State::Waiting { .. }));
        is_kept
    });
    if waiting >= MAX_WAITING {
        return too_many_connections(clients.timeouts().connect);
    }
    let state = State::Waiting { until, stateful };
    negotiated.insert(token.clone(), Negotiated { hub, identity, state });
    drop(negotiated);

    let mut body = json!({
        "negotiateVersion": version,
        "connectionId": connection_id,
        "availableTransports": [
            { "transport": "WebSockets", "transferFormats": ["Text", "Binary"] },
            { "transport": "ServerSentEvents", "transferFormats": ["Text"] },
            { "transport": "LongPolling", "transferFormats": ["Text", "Binary"] },
        ],
    });
    if let (true, Some(fields)) = (version > 0, body.as_object_mut()) {
        fields.insert(String::from("connectionToken"), token.into());
        // A client that did not request stateful reconnect fails if the response contains this field.
        if stateful {
            fields.insert(String::from("useStatefulReconnect"), true.into());
        }
    }
    Reply::json(StatusCode::OK, &body).verdict(format!("negotiated {connection_id}"))
}

/// Returns the 429 response that the service sends when its units have no free connections.
///
/// Source: Azure SignalR's troubleshooting guide, 429 Too Many Requests.
fn too_many_connections(connect: Duration) -> Reply {
    let reason = format!(
        "{MAX_WAITING} negotiated connections are waiting for their clients, which is the limit; each is dropped if its \
         client does not connect within {} seconds",
        connect.as_secs_f64()
    );
    // `Retry-After` has whole seconds, at least one.
    let after = Duration::from_secs(connect.as_secs().max(1));
    Reply::text(StatusCode::TOO_MANY_REQUESTS, reason.clone()).retry_after(Some(after)).verdict(reason)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;

    use bytes::Bytes;
    use http::HeaderMap;

    use super::super::timeouts::ClientTimeouts;
    use super::*;
    use crate::sandbox::server::listen::Server;
    use crate::sandbox::signalr::endpoint::EndpointHosts;

    fn clients(timeouts: ClientTimeouts) -> Arc<Clients> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let server = Server::new("east", address, String::from("http://localhost:1"), true);
        Clients::new(Endpoint::new(server, None, EndpointHosts::Address), timeouts)
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
        super::negotiate(
            clients,
            &request,
            AuthenticatedClient { hub: String::from("chat"), ..AuthenticatedClient::default() },
        )
    }

    /// Adds connections in a state.
    fn fill(clients: &Clients, count: usize, state: impl Fn() -> State) {
        let mut negotiated = clients.negotiated();
        for _ in 0..count {
            let entry = Negotiated {
                hub: String::from("chat"),
                identity: new_identity(AuthenticatedClient::default()),
                state: state(),
            };
            negotiated.insert(random_string(), entry);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn rejects_negotiation_while_too_many_connections_wait() {
        let timeouts = ClientTimeouts { connect: Duration::from_secs(2), ..ClientTimeouts::default() };
        let clients = clients(timeouts);
        // An open connection does not count.
        fill(&clients, 10, || State::WebSocket { replacements: None });
        let until = Instant::now() + timeouts.connect;
        fill(&clients, MAX_WAITING - 1, || State::Waiting { until, stateful: false });
        assert_eq!(negotiate(&clients).status, StatusCode::OK);
        let rejected = negotiate(&clients);
        assert_eq!(rejected.status, StatusCode::TOO_MANY_REQUESTS);
        let reason = "10000 negotiated connections are waiting for their clients, which is the limit; each is dropped if its \
                      client does not connect within 2 seconds";
        assert_eq!(rejected.body, reason);
        assert_eq!(rejected.headers["retry-after"], "2");
        assert_eq!(clients.negotiated().len(), MAX_WAITING + 10);
        tokio::time::advance(timeouts.connect).await;
        assert_eq!(negotiate(&clients).status, StatusCode::OK);
        assert_eq!(clients.negotiated().len(), 11);
    }
}

//! `POST /client/negotiate`: which transports there are, and the ids of a connection to come; and before it, what an
//! application answers that sends its clients on to the service. Knows nothing of what becomes of a connection.

use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::{Clients, Negotiated, State, Visitor, newcomer};
use crate::sandbox::crypto::ids::unique;
use crate::sandbox::server::exchange::{Received, Reply};
use crate::sandbox::signalr::endpoint::Endpoint;
use crate::sandbox::signalr::parameters;

/// The highest version of the negotiation.
const MAX_VERSION: u64 = 1;

/// How many negotiated connections may wait for their clients. Chosen: five times what the largest soak connects, and a few
/// MiB at most for whoever negotiates without end and never connects.
const MAX_WAITING: usize = 10_000;

/// How long a token is good for that an application gives its clients. Source: the default of the Management SDK.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// Answers in place of an application: where the service is, below `base`, and a token for it.
///
/// Source: TransportProtocols.md, the redirecting answer to a negotiation.
pub(crate) fn for_application(endpoint: &Endpoint, request: &Received, base: &str) -> Reply {
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
            Reply::json(StatusCode::OK, &body).verdict("sent on to the service")
        }
        Err(err) => Reply::text(StatusCode::INTERNAL_SERVER_ERROR, format!("no token could be made: {err}")),
    }
}

impl Clients {
    pub(super) fn negotiate(&self, request: &Received, visitor: Visitor) -> Reply {
        let asked = request.query_value("negotiateVersion");
        let version = asked.as_deref().map_or(Ok(0), str::parse::<u64>);
        let Ok(version) = version.map(|version| version.min(MAX_VERSION)) else {
            // An error in an answer that says OK: that is how clients expect it.
            let error = "The client requested an invalid protocol version.";
            return Reply::json(StatusCode::OK, &json!({ "error": error })).verdict("version not understood");
        };
        let who = newcomer(visitor.user);
        let connection_id = who.id.clone();
        // The first version has one id for both purposes: naming the connection and proving that it is one's own.
        let token = if version == 0 { connection_id.clone() } else { unique() };
        let stateful = version > 0 && request.query_value("useStatefulReconnect").as_deref() == Some("true");
        let until = Instant::now() + self.times.connect;
        let mut negotiated = self.negotiated();
        let mut waiting = 0;
        negotiated.retain(|_, other| {
            let is_kept = !other.state.is_too_late();
            waiting += usize::from(is_kept && matches!(other.state, State::Waiting { .. }));
            is_kept
        });
        if waiting >= MAX_WAITING {
            return too_many(self.times.connect);
        }
        let state = State::Waiting { until, stateful };
        negotiated.insert(token.clone(), Negotiated { hub: visitor.hub, who, state });
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
            // Clients that did not ask refuse to connect if they are offered it.
            if stateful {
                fields.insert(String::from("useStatefulReconnect"), true.into());
            }
        }
        Reply::json(StatusCode::OK, &answer).verdict(format!("negotiated {connection_id}"))
    }
}

/// The service answers so, too, when it has as many connections as its units allow.
///
/// Source: Azure SignalR's troubleshooting guide, 429 Too Many Requests.
fn too_many(connect: Duration) -> Reply {
    let reason = format!(
        "{MAX_WAITING} negotiated connections wait for their clients, and there may be no more; each is dropped if its \
         client does not connect within {} seconds",
        connect.as_secs_f64()
    );
    // In whole seconds, and one at least.
    let after = Duration::from_secs(connect.as_secs().max(1));
    Reply::text(StatusCode::TOO_MANY_REQUESTS, reason.clone()).retry_after(Some(after)).verdict(reason)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};
    use std::sync::Arc;

    use bytes::Bytes;
    use http::HeaderMap;

    use super::*;
    use crate::sandbox::client::ClientTimes;
    use crate::sandbox::server::listen::Server;

    fn clients(times: ClientTimes) -> Arc<Clients> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
        let server = Server::new("east", address, String::from("http://localhost:1"), true);
        Clients::new(Endpoint::new(server, None, None), times)
    }

    fn negotiate(clients: &Clients) -> Reply {
        let request = Received {
            method: Method::POST,
            path: String::from("/client/negotiate"),
            query: String::from("hub=chat"),
            host: String::new(),
            headers: HeaderMap::new(),
            body: Bytes::new(),
            upgrade: None,
        };
        clients.negotiate(&request, Visitor { hub: String::from("chat"), user: None })
    }

    /// As if so many had negotiated.
    fn fill(clients: &Clients, count: usize, state: impl Fn() -> State) {
        let mut negotiated = clients.negotiated();
        for _ in 0..count {
            let entry = Negotiated { hub: String::from("chat"), who: newcomer(None), state: state() };
            negotiated.insert(unique(), entry);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_may_wait_for_their_clients_and_no_more() {
        let times = ClientTimes { connect: Duration::from_secs(2), ..ClientTimes::default() };
        let clients = clients(times);
        // Who has connected is no longer waited for.
        fill(&clients, 10, || State::WebSocket { others: None });
        let until = Instant::now() + times.connect;
        fill(&clients, MAX_WAITING - 1, || State::Waiting { until, stateful: false });
        assert_eq!(negotiate(&clients).status, StatusCode::OK);
        let refused = negotiate(&clients);
        assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
        let reason = "10000 negotiated connections wait for their clients, and there may be no more; each is dropped if its \
                      client does not connect within 2 seconds";
        assert_eq!(refused.body, reason);
        assert_eq!(refused.headers["retry-after"], "2");
        assert_eq!(clients.negotiated().len(), MAX_WAITING + 10);
        tokio::time::advance(times.connect).await;
        assert_eq!(negotiate(&clients).status, StatusCode::OK);
        assert_eq!(clients.negotiated().len(), 11);
    }
}

//! `POST /client/negotiate`: which transports there are, and the ids of a connection to come; and before it, what an
//! application answers that sends its clients on to the service. Knows nothing of what becomes of a connection.

use std::time::{Duration, SystemTime};

use http::{Method, StatusCode};
use serde_json::json;
use tokio::time::Instant;

use super::{Clients, Negotiated, State, Visitor, newcomer};
use crate::sandbox::endpoint::Endpoint;
use crate::sandbox::exchange::{Received, Reply};
use crate::sandbox::parameters;
use crate::sandbox::token::unique;

/// The highest version of the negotiation.
const MAX_VERSION: u64 = 1;

/// How long a token is good for that an application gives its clients. Source: the default of the Management SDK.
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// Answers in place of an application: where the service is, below `base`, and a token for it.
///
/// Source: TransportProtocols.md, the redirecting answer to a negotiation.
pub(in crate::sandbox) fn for_application(endpoint: &Endpoint, request: &Received, base: &str) -> Reply {
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
        negotiated.retain(|_, other| !other.state.is_too_late());
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

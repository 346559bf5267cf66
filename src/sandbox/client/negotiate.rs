//! `POST /client/negotiate`: which transports there are, and the ids of a connection to come. Knows nothing of what
//! becomes of it.

use http::StatusCode;
use serde_json::json;
use tokio::time::Instant;

use super::{Clients, Negotiated, State, Visitor, newcomer};
use crate::sandbox::exchange::{Received, Reply};
use crate::sandbox::token::unique;

/// The highest version of the negotiation.
const MAX_VERSION: u64 = 1;

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
        let until = Instant::now() + self.times.connect;
        let mut negotiated = self.negotiated();
        negotiated.retain(|_, other| !other.state.is_too_late());
        negotiated.insert(token.clone(), Negotiated { hub: visitor.hub, who, state: State::Waiting { until } });
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
        }
        Reply::json(StatusCode::OK, &answer).verdict(format!("negotiated {connection_id}"))
    }
}

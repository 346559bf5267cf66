//! Why a message did not arrive: the stage that failed, what happened, and what to do.

use std::error::Error;
use std::time::Duration;

use http::StatusCode;

use crate::endpoint::{ConnectError, UnpooledError};

/// A stage of a delivery, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The client's token: returned by the endpoint, or signed with its access key.
    ClientToken,
    /// The negotiation, which returns the id of the connection.
    Negotiation,
    /// The WebSocket.
    WebSocket,
    /// The handshake of SignalR's hub protocol.
    Handshake,
    /// The call of the REST API that sends the message.
    Send,
    /// The arrival of the message at the client.
    Arrival,
}

impl Stage {
    /// Returns the identifier of the stage, for JSON and log fields.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ClientToken => "client_token",
            Self::Negotiation => "negotiation",
            Self::WebSocket => "websocket",
            Self::Handshake => "handshake",
            Self::Send => "send",
            Self::Arrival => "arrival",
        }
    }

    /// Returns what was tried at the stage.
    pub const fn title(self) -> &'static str {
        match self {
            Self::ClientToken => "obtain a client token",
            Self::Negotiation => "negotiate as a client",
            Self::WebSocket => "open a WebSocket",
            Self::Handshake => "SignalR handshake",
            Self::Send => "send to the connection",
            Self::Arrival => "receive the message",
        }
    }
}

/// Why a message did not arrive.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// There is no bearer for the requests to the endpoint.
    #[error("there is no token of the endpoint's credential")]
    NoBearer(#[source] Option<Box<dyn Error + Send + Sync>>),
    /// A request got no response.
    #[error("{}: no response", stage.title())]
    NoResponse {
        /// The stage.
        stage: Stage,
        /// The cause.
        #[source]
        source: UnpooledError,
    },
    /// The connection of the WebSocket could not be opened.
    #[error("open a WebSocket: no connection")]
    Connect(#[from] ConnectError),
    /// A request was refused.
    #[error("{}: {status}{}", stage.title(), detail.as_deref().map(|detail| format!(", {detail}")).unwrap_or_default())]
    Refused {
        /// The stage.
        stage: Stage,
        /// The status of the response.
        status: StatusCode,
        /// What the response says about the cause.
        detail: Option<String>,
        /// Whether a front end responded instead of the resource.
        is_from_front_end: bool,
    },
    /// A response or a record is not what SignalR sends.
    #[error("{}: {problem}", stage.title())]
    Unusable {
        /// The stage.
        stage: Stage,
        /// What is wrong with it.
        problem: String,
    },
    /// The service refused the handshake.
    #[error("SignalR handshake: the service answered `{0}`")]
    Handshake(String),
    /// The connection of the client was closed.
    #[error("{}: the client's connection was closed{}", stage.title(), reason.as_deref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    Closed {
        /// The stage.
        stage: Stage,
        /// The reason that the service gave, or the error of the connection.
        reason: Option<String>,
    },
    /// There was no response in time.
    #[error("{}: no answer within {}", stage.title(), humantime::format_duration(*within))]
    Late {
        /// The stage.
        stage: Stage,
        /// The time limit.
        within: Duration,
    },
    /// The REST API accepted the message, but it did not arrive.
    #[error(
        "the endpoint accepted the message, but it did not arrive within {}{}",
        humantime::format_duration(*within),
        known_text(*is_known)
    )]
    NotArrived {
        /// The time limit.
        within: Duration,
        /// Whether the REST API knows the connection of the client, if it said.
        is_known: Option<bool>,
    },
}

const fn known_text(is_known: Option<bool>) -> &'static str {
    match is_known {
        Some(true) => "; its REST API knows the connection",
        Some(false) => "; its REST API does not know the connection",
        None => "",
    }
}

impl DeliveryError {
    /// Returns the stage that failed.
    pub const fn stage(&self) -> Stage {
        match self {
            Self::NoBearer(_) => Stage::ClientToken,
            Self::Connect(_) => Stage::WebSocket,
            Self::Handshake(_) => Stage::Handshake,
            Self::NotArrived { .. } => Stage::Arrival,
            Self::NoResponse { stage, .. }
            | Self::Refused { stage, .. }
            | Self::Unusable { stage, .. }
            | Self::Closed { stage, .. }
            | Self::Late { stage, .. } => *stage,
        }
    }

    /// Returns the status of the response that refused a request of the REST API, which the bearer authorizes.
    pub const fn rest_refusal(&self) -> Option<StatusCode> {
        if let Self::Refused { stage: Stage::ClientToken | Stage::Send, status, is_from_front_end: false, .. } = self {
            Some(*status)
        } else {
            None
        }
    }

    /// Returns what to do.
    pub fn remedy(&self) -> &'static str {
        match self {
            Self::NoBearer(_) => {
                "see the state of the endpoint's credential; `signalr-gateway doctor` names the broken step"
            }
            Self::NoResponse { stage: Stage::ClientToken | Stage::Send, .. } => REST_CONNECTION,
            Self::NoResponse { .. } | Self::Connect(_) => CLIENT_CONNECTION,
            Self::Refused { stage, status, is_from_front_end, .. } => of_refusal(*stage, *status, *is_from_front_end),
            Self::Late { stage: Stage::Handshake, .. } | Self::Handshake(_) | Self::Closed { .. } => SERVICE_MODE,
            Self::Unusable { stage: Stage::WebSocket, .. } | Self::Late { .. } => UPGRADE,
            Self::Unusable { .. } => {
                "another server answers at this address: correct `url`, or find the proxy that answers"
            }
            Self::NotArrived { is_known: Some(true), .. } => {
                "the service delays or drops messages: check the resource's message quota (Free: 20,000 a day) and the metrics \
                 Server Load and Connection Quota Utilization; add units"
            }
            Self::NotArrived { is_known: Some(false), .. } => {
                "REST calls and clients reach different instances: the host name or a proxy spreads connections over several \
                 resources or replicas; make `/api` and `/client` of `url` reach the same resource"
            }
            Self::NotArrived { is_known: None, .. } => {
                "set the resource's service mode to Serverless, make `/api` and `/client` of `url` reach the same resource, and \
                 check its message quota"
            }
        }
    }
}

/// What to do if requests of the REST API get no response.
const REST_CONNECTION: &str = "check the connection to the endpoint: `signalr-gateway doctor` tests it layer by layer";
/// What to do if connections of clients cannot be opened.
const CLIENT_CONNECTION: &str = "allow connections of clients from this host: the firewall, a proxy, or the resource's network rules (`ClientConnection`)";
/// What to do if the WebSocket is not opened.
const UPGRADE: &str =
    "find the proxy or gateway between this host and the endpoint that does not pass WebSockets on, and let it";
/// What to do if the service closes the connection of a client.
const SERVICE_MODE: &str = "set the resource's service mode to Serverless: in Default mode it closes clients while no app server is connected. If an \
     app server serves clients, give it a hub of its own and test that one";

fn of_refusal(stage: Stage, status: StatusCode, is_from_front_end: bool) -> &'static str {
    match (stage, status.as_u16()) {
        (Stage::ClientToken | Stage::Send, 403) if is_from_front_end => {
            "allow the REST API in the resource's network rules (`RESTAPI`)"
        }
        (Stage::ClientToken | Stage::Send, 401 | 403) => {
            "assign the role SignalR REST API Owner to the credential's identity: it includes the actions that client tokens \
             and messages need, SignalR REST API Reader does not"
        }
        (Stage::Negotiation | Stage::WebSocket, 401) => {
            "the client token is another resource's: make `/api` and `/client` of `url` reach the same resource, and set this \
             host's clock"
        }
        (Stage::Negotiation | Stage::WebSocket, 403) => {
            "allow connections of clients in the resource's network rules (`ClientConnection`)"
        }
        (Stage::WebSocket, 404) => {
            "the negotiation and the WebSocket reached different instances: make all connections to `url` reach the same resource"
        }
        (Stage::WebSocket, 200..300 | 400 | 405 | 426 | 501) => UPGRADE,
        (_, 404) => {
            "no SignalR resource serves this path: correct `url`, or have the proxy in front of it pass the path on"
        }
        (_, 429) => "the resource's limit of connections or messages is reached: add units, or choose a higher tier",
        (_, 500..) => "the service has a fault: see its state in the Azure portal, and try again",
        _ => "find the proxy or gateway that answers instead of the resource",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(stage: Stage, status: u16) -> DeliveryError {
        let status = StatusCode::from_u16(status).unwrap();
        DeliveryError::Refused { stage, status, detail: None, is_from_front_end: false }
    }

    #[test]
    fn a_refusal_says_the_stage_the_status_and_what_to_do() {
        let err = refused(Stage::Send, 403);
        assert_eq!(err.to_string(), "send to the connection: 403 Forbidden");
        assert!(err.remedy().contains("SignalR REST API Owner"));
        assert_eq!(err.rest_refusal(), Some(StatusCode::FORBIDDEN));
        let err = refused(Stage::WebSocket, 403);
        assert!(err.remedy().contains("ClientConnection"));
        assert_eq!(err.rest_refusal(), None);
        assert!(refused(Stage::WebSocket, 404).remedy().contains("different instances"));
        assert!(refused(Stage::WebSocket, 200).remedy().contains("WebSockets"));
        assert!(refused(Stage::Negotiation, 404).remedy().contains("`url`"));
    }

    #[test]
    fn a_message_that_was_accepted_and_did_not_arrive_says_whether_the_connection_is_known() {
        let err = |is_known| DeliveryError::NotArrived { within: Duration::from_secs(5), is_known };
        let text = "the endpoint accepted the message, but it did not arrive within 5s";
        assert_eq!(err(None).to_string(), text);
        assert_eq!(err(Some(false)).to_string(), format!("{text}; its REST API does not know the connection"));
        assert!(err(Some(false)).remedy().contains("different instances"));
        assert!(err(Some(true)).remedy().contains("quota"));
        assert!(err(None).remedy().contains("Serverless"));
    }
}

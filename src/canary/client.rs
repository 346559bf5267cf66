//! A client of a hub: it connects as the clients of an application do, and receives messages.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderValue, Method, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tokio_tungstenite::tungstenite::{Error, Message};

use super::authorization::Authorization;
use super::error::{DeliveryError, Stage};
use super::record::{HANDSHAKE, PING, Record, Splitter, parse, parse_handshake};
use super::request::{Call, REQUEST_TIMEOUT, refusal};
use super::web_socket::{self, MAX_MESSAGE, WebSocket};
use crate::credential::Bearer;
use crate::endpoint::Endpoint;

/// The target of the messages.
const TARGET: &str = "signalr_gateway_canary";
/// How long a client token is valid. It is used at once.
const TOKEN_MINUTES: u8 = 5;
/// The API version of the operation that returns client tokens, and of the others.
const TOKEN_VERSION: &str = "2023-07-01";
const VERSION: &str = "2022-06-01";
/// How often a client sends a ping. The service closes clients that are silent for 30 s.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// How long the service may be silent, which sends a ping every 15 s. Source: the default of SignalR's clients has 30 s.
const MAX_SILENCE: Duration = Duration::from_secs(45);

/// A connected client.
#[derive(Debug)]
pub struct Client {
    socket: WebSocket,
    splitter: Splitter,
    connection_id: String,
    hub: String,
    heard: Instant,
}

/// The outcome of waiting for a record.
type Received = Result<Record, DeliveryError>;

impl Client {
    /// Connects to a hub: client token, negotiation, WebSocket, handshake. `on_stage` is called with each stage that begins.
    ///
    /// # Errors
    /// [`DeliveryError`] with the stage that failed.
    ///
    /// # Cancel safety
    /// Safe: cancellation closes the connection.
    pub async fn connect(
        endpoint: &Endpoint,
        hub: &str,
        authorization: &Authorization<'_>,
        mut on_stage: impl FnMut(Stage),
    ) -> Result<Self, DeliveryError> {
        on_stage(Stage::ClientToken);
        // The SDK writes hubs in lower case, and signs them so.
        let hub = hub.to_ascii_lowercase();
        let token = client_token(endpoint, &hub, authorization).await?;
        on_stage(Stage::Negotiation);
        let target = format!("/client/negotiate?hub={hub}&negotiateVersion=1");
        let (stage, method) = (Stage::Negotiation, Method::POST);
        let call = Call { stage, method, target: &target, authorization: token.clone(), body: String::new() };
        let negotiated = call.send_for_json(endpoint).await?;
        let text = |name: &str| negotiated.get(name).and_then(Value::as_str);
        let Some(connection_id) = text("connectionId") else {
            let problem = text("error").unwrap_or("the response has no connection id").to_owned();
            return Err(DeliveryError::Unusable { stage: Stage::Negotiation, problem });
        };
        on_stage(Stage::WebSocket);
        let id = encoded(text("connectionToken").unwrap_or(connection_id));
        let target = format!("/client/?hub={hub}&id={id}");
        let socket = within(Stage::WebSocket, web_socket::open(endpoint, &target, token)).await?;
        on_stage(Stage::Handshake);
        let connection_id = connection_id.to_owned();
        let mut client = Self { socket, splitter: Splitter::default(), connection_id, hub, heard: Instant::now() };
        within(Stage::Handshake, client.shake_hands()).await?;
        Ok(client)
    }

    async fn shake_hands(&mut self) -> Result<(), DeliveryError> {
        self.write(HANDSHAKE, Stage::Handshake).await?;
        let answer = self.read(Stage::Handshake).await?;
        parse_handshake(&answer).map_err(DeliveryError::Handshake)
    }

    /// Sends a message to the connection by REST. Returns how long it took to arrive: from the request that was handed to an open
    /// connection to the record.
    ///
    /// # Errors
    /// [`DeliveryError`] if it is refused or does not arrive `arrival_timeout` after it was accepted.
    ///
    /// # Cancel safety
    /// Safe: the message may have been sent.
    pub async fn deliver(
        &mut self,
        endpoint: &Endpoint,
        authorization: &Authorization<'_>,
        arrival_timeout: Duration,
        mut on_stage: impl FnMut(Stage),
    ) -> Result<Duration, DeliveryError> {
        on_stage(Stage::Send);
        let connection = format!("/api/hubs/{}/connections/{}", self.hub, encoded(&self.connection_id));
        let path = format!("{connection}/:send");
        let id = format!("{:032x}", fastrand::u128(..));
        let call = Call {
            stage: Stage::Send,
            method: Method::POST,
            target: &format!("{path}?api-version={VERSION}"),
            authorization: authorization.header(endpoint.origin(), &path)?,
            body: json!({ "target": TARGET, "arguments": [&id] }).to_string(),
        };
        let mut arrived = None;
        let sent = {
            let send = std::pin::pin!(call.send(endpoint));
            let mut send = send;
            loop {
                tokio::select! {
                    sent = &mut send => break sent?,
                    // The message may arrive before the response.
                    at = self.wait_for(&id), if arrived.is_none() => arrived = Some(at?),
                }
            }
        };
        let (response, began) = sent;
        if !response.status().is_success() {
            return Err(refusal(Stage::Send, &response));
        }
        on_stage(Stage::Arrival);
        let arrived = match arrived {
            Some(arrived) => arrived,
            None => match timeout(arrival_timeout, self.wait_for(&id)).await {
                Ok(arrived) => arrived?,
                Err(_elapsed) => {
                    let is_known = is_known(endpoint, &connection, authorization).await;
                    return Err(DeliveryError::NotArrived { within: arrival_timeout, is_known });
                }
            },
        };
        Ok(arrived.saturating_duration_since(began))
    }

    /// Keeps the connection alive until it is closed.
    ///
    /// # Cancel safety
    /// Safe: records that arrived are passed over.
    pub async fn keep_alive(&mut self) -> DeliveryError {
        let mut ping = tokio::time::interval(PING_INTERVAL);
        loop {
            let silence = MAX_SILENCE.saturating_sub(self.heard.elapsed());
            let failed = tokio::select! {
                record = timeout(silence, self.receive()) => match record {
                    Ok(record) => record.err(),
                    Err(_elapsed) => {
                        let reason = format!("the service was silent for {}", humantime::format_duration(MAX_SILENCE));
                        Some(DeliveryError::Closed { stage: Stage::Arrival, reason: Some(reason) })
                    }
                },
                _ = ping.tick() => self.write(PING, Stage::Arrival).await.err(),
            };
            if let Some(failed) = failed {
                return failed;
            }
        }
    }

    /// Closes the connection, without waiting for the service for longer than a moment.
    pub async fn close(mut self) {
        let _unanswered = timeout(Duration::from_millis(200), self.socket.close(None)).await;
    }

    /// Waits for the message with this id. Cancel safe.
    async fn wait_for(&mut self, id: &str) -> Result<Instant, DeliveryError> {
        loop {
            if let Record::Message { target, argument } = self.receive().await?
                && target == TARGET
                && argument.as_deref() == Some(id)
            {
                return Ok(self.heard);
            }
        }
    }

    /// Waits for a record. Cancel safe.
    async fn receive(&mut self) -> Received {
        let text = self.read(Stage::Arrival).await?;
        match parse(&text) {
            Some(Record::Close(reason)) => Err(DeliveryError::Closed { stage: Stage::Arrival, reason }),
            Some(record) => Ok(record),
            None => {
                let problem = "the service sent a record that is not valid".to_owned();
                Err(DeliveryError::Unusable { stage: Stage::Arrival, problem })
            }
        }
    }

    /// Reads the text of a record. Cancel safe.
    async fn read(&mut self, stage: Stage) -> Result<String, DeliveryError> {
        loop {
            if let Some(record) = self.splitter.next() {
                return Ok(record);
            }
            let message = self.socket.next().await;
            self.heard = Instant::now();
            let closed = |reason| Err(DeliveryError::Closed { stage, reason });
            let pending = match message {
                Some(Ok(Message::Text(text))) => self.splitter.add(&text),
                Some(Ok(Message::Close(frame))) => {
                    let reason = frame.map(|frame| format!("{} {}", frame.code, frame.reason).trim().to_owned());
                    return closed(reason);
                }
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => 0,
                None | Some(Err(Error::ConnectionClosed | Error::AlreadyClosed)) => return closed(None),
                Some(Err(err @ (Error::Protocol(_) | Error::Capacity(_) | Error::Utf8(_)))) => {
                    let problem = crate::redact::in_one_line(&err);
                    return Err(DeliveryError::Unusable { stage, problem });
                }
                Some(Err(err)) => return closed(Some(crate::redact::in_one_line(&err))),
            };
            if pending > MAX_MESSAGE {
                let problem = "the service sent a record that is too long".to_owned();
                return Err(DeliveryError::Unusable { stage, problem });
            }
        }
    }

    async fn write(&mut self, record: &'static str, stage: Stage) -> Result<(), DeliveryError> {
        let sent = self.socket.send(Message::Text(record.into())).await;
        sent.map_err(|err| DeliveryError::Closed { stage, reason: Some(crate::redact::in_one_line(&err)) })
    }
}

/// Returns the `Authorization` value of a client of the hub.
async fn client_token(
    endpoint: &Endpoint,
    hub: &str,
    authorization: &Authorization<'_>,
) -> Result<HeaderValue, DeliveryError> {
    if authorization.is_access_key {
        return authorization.header(endpoint.origin(), &format!("/client/?hub={hub}"));
    }
    let path = format!("/api/hubs/{hub}/:generateToken");
    let call = Call {
        stage: Stage::ClientToken,
        method: Method::POST,
        target: &format!("{path}?api-version={TOKEN_VERSION}&minutesToExpire={TOKEN_MINUTES}"),
        authorization: authorization.header(endpoint.origin(), &path)?,
        body: String::new(),
    };
    let response = call.send_for_json(endpoint).await?;
    let token = response.get("token").and_then(Value::as_str).and_then(|token| Bearer::new(token).ok());
    token.map(|token| token.header().clone()).ok_or_else(|| DeliveryError::Unusable {
        stage: Stage::ClientToken,
        problem: "the response has no token".to_owned(),
    })
}

/// Asks the REST API whether it knows a connection; `None` if it does not say.
async fn is_known(endpoint: &Endpoint, path: &str, authorization: &Authorization<'_>) -> Option<bool> {
    let call = Call {
        stage: Stage::Arrival,
        method: Method::HEAD,
        target: &format!("{path}?api-version={VERSION}"),
        authorization: authorization.header(endpoint.origin(), path).ok()?,
        body: String::new(),
    };
    match call.send(endpoint).await.ok()?.0.status() {
        StatusCode::OK => Some(true),
        StatusCode::NOT_FOUND => Some(false),
        _ => None,
    }
}

/// Bounds a stage.
async fn within<T>(stage: Stage, work: impl Future<Output = Result<T, DeliveryError>>) -> Result<T, DeliveryError> {
    let late = DeliveryError::Late { stage, within: REQUEST_TIMEOUT };
    timeout(REQUEST_TIMEOUT, Box::pin(work)).await.unwrap_or(Err(late))
}

fn encoded(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

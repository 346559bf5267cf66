//! The WebSocket transport.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_VERSION, UPGRADE};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::ProtocolError;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message, Utf8Bytes};

use super::hub_protocol::record::MAX_RECORD;
use super::registry::{
    AuthenticatedClient, Clients, Registration, Rejection, State, TransportChannels, channels, find, new_identity,
};
use super::session::{ConnectionIdentity, Frame, SessionChannels};
use crate::sandbox::server::exchange::{ReceivedRequest, Reply};

/// The largest frame or message that is read, in bytes. A message may hold several records.
const MAX_MESSAGE: usize = 4 * MAX_RECORD;

/// The longest wait for the client's close frame.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The session that a WebSocket belongs to.
enum SocketSession {
    /// A session that ends with the WebSocket.
    New { hub: String, identity: ConnectionIdentity, registration: Registration },
    /// A new session that can move to another WebSocket. Its id is registered until it ends.
    Stateful { hub: String, identity: ConnectionIdentity, registration: Registration },
    /// An existing session that moves to this WebSocket.
    Existing { replacements: mpsc::Sender<SessionChannels> },
}

/// Handles a WebSocket upgrade: for a negotiated connection, or for a new one if the query has no id.
pub(super) fn open(
    clients: &Arc<Clients>,
    request: &mut ReceivedRequest,
    client: AuthenticatedClient,
) -> Result<Reply, Rejection> {
    let bad_request = Rejection::bad_request;
    let is_websocket = request.header(UPGRADE).is_some_and(|name| name.eq_ignore_ascii_case("websocket"));
    let key = request.header(SEC_WEBSOCKET_KEY).filter(|_| is_websocket).map(str::to_owned);
    let key = key.ok_or_else(|| bad_request("the only supported upgrade is WebSocket"))?;
    if request.header(SEC_WEBSOCKET_VERSION) != Some("13") {
        return Err(bad_request("the version of WebSocket is not 13"));
    }
    let upgrade = request.upgrade.take().ok_or_else(|| bad_request("the connection cannot be upgraded"))?;
    let (session, verdict) = find_session(clients, request.query_value("id"), client)?;
    let clients = Arc::clone(clients);
    let run = async move {
        let Ok(upgraded) = upgrade.await else { return };
        let mut config = WebSocketConfig::default();
        config = config.read_buffer_size(4096).write_buffer_size(16 * 1024);
        config = config.max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
        let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
        // The registration lives as long as the socket.
        let Some((_registration, (inbound, outbound))) = attach(&clients, session).await else { return };
        let (mut sink, stream) = socket.split();
        let write_timeout = clients.timeouts().write;
        let violation = {
            let (reading, writing) = (read(stream, inbound), write(&mut sink, outbound, write_timeout));
            tokio::pin!(reading, writing);
            tokio::select! {
                violation = &mut reading => violation,
                () = &mut writing => {
                    drop(timeout(CLOSE_TIMEOUT, reading).await);
                    None
                }
            }
        };
        if let Some(close) = violation {
            let _ = timeout(write_timeout, sink.send(Message::Close(Some(close)))).await;
        }
    };
    Ok(Reply::switching_protocols(Box::pin(run))
        .header(CONNECTION, "upgrade")
        .header(UPGRADE, "websocket")
        .header(SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes()))
        .verdict(verdict))
}

/// Returns the session that a WebSocket belongs to, and the verdict for the journal.
fn find_session(
    clients: &Arc<Clients>,
    id: Option<String>,
    client: AuthenticatedClient,
) -> Result<(SocketSession, String), Rejection> {
    let hub = client.hub.clone();
    let registration = |id| Registration::new(clients, id);
    let Some(id) = id else {
        let identity = new_identity(client);
        let verdict = format!("WebSocket {}", identity.id);
        return Ok((SocketSession::New { hub, identity, registration: registration(None) }, verdict));
    };
    let mut negotiated = clients.negotiated();
    let found = find(&mut negotiated, &id, &client)?;
    let identity = found.identity.clone();
    let verdict = format!("WebSocket {}", identity.id);
    let session = match &found.state {
        State::Waiting { stateful: false, .. } => {
            found.state = State::WebSocket { replacements: None };
            SocketSession::New { hub, identity, registration: registration(Some(id)) }
        }
        State::Waiting { stateful: true, .. } => {
            found.state = State::WebSocket { replacements: None };
            SocketSession::Stateful { hub, identity, registration: registration(Some(id)) }
        }
        State::WebSocket { replacements: Some(replacements) } => {
            SocketSession::Existing { replacements: replacements.clone() }
        }
        State::WebSocket { replacements: None } | State::Posting { .. } => return Err(Rejection::ALREADY_OPEN),
    };
    Ok((session, verdict))
}

/// Starts a session, or moves an existing one to this transport. Returns `None` if the existing session has ended.
async fn attach(clients: &Arc<Clients>, session: SocketSession) -> Option<(Registration, TransportChannels)> {
    match session {
        SocketSession::New { hub, identity, registration } => {
            Some((registration, clients.start_session(&hub, identity, true)))
        }
        SocketSession::Stateful { hub, identity, mut registration } => {
            // From here on, the session removes the id, not the socket.
            let id = registration.release()?;
            let (replacements, transport) = clients.start_stateful_session(&hub, identity, id.clone());
            if let Some(found) = clients.negotiated().get_mut(&id) {
                found.state = State::WebSocket { replacements: Some(replacements) };
            }
            Some((registration, transport))
        }
        SocketSession::Existing { replacements } => {
            let (channels, transport) = channels(true);
            replacements.send(channels).await.ok()?;
            Some((Registration::new(clients, None), transport))
        }
    }
}

/// Passes the client's bytes to the session until the client closes or disconnects. If the client violates the WebSocket
/// protocol, returns the close frame to send.
async fn read(
    mut socket: impl Stream<Item = Result<Message, Error>> + Unpin,
    session: mpsc::Sender<Bytes>,
) -> Option<CloseFrame> {
    // When tungstenite reads a close frame, it replies and ends the stream.
    loop {
        let bytes = match socket.next().await? {
            Ok(Message::Text(text)) => Bytes::from(text),
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => continue,
            Err(err) => return violation_close(&err),
        };
        let _ = session.send(bytes).await;
    }
}

/// Returns the close frame for a protocol violation, or `None` if the client has disconnected.
///
/// Source: RFC 6455 section 7.4.1.
fn violation_close(err: &Error) -> Option<CloseFrame> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "every other error is a lost connection")]
    let code = match err {
        Error::Capacity(_) => CloseCode::Size,
        Error::Utf8(_) => CloseCode::Invalid,
        // The client disconnected without a close frame.
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        Error::Protocol(_) => CloseCode::Protocol,
        _ => return None,
    };
    // The reason of a close frame has at most 123 bytes.
    let reason: String = err.to_string().chars().filter(char::is_ascii).take(123).collect();
    Some(CloseFrame { code, reason: reason.into() })
}

/// Sends the session's frames, with one flush for all that are ready. Closes the WebSocket when the session ends.
async fn write<E>(
    mut socket: impl Sink<Message, Error = E> + Unpin,
    mut session: mpsc::Receiver<Frame>,
    write_timeout: Duration,
) {
    while let Some(frame) = session.recv().await {
        let sending = async {
            socket.feed(message(frame)).await?;
            while let Ok(frame) = session.try_recv() {
                socket.feed(message(frame)).await?;
            }
            socket.flush().await
        };
        match timeout(write_timeout, sending).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
    let close = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    let _ = timeout(write_timeout, socket.send(Message::Close(Some(close)))).await;
}

fn message(frame: Frame) -> Message {
    if frame.binary {
        return Message::Binary(frame.bytes);
    }
    // Text frames of a session are valid UTF-8.
    Utf8Bytes::try_from(frame.bytes).map_or_else(|_| Message::Binary(Bytes::new()), Message::Text)
}

//! A session over a WebSocket. Moves bytes and knows no records.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt};
use http::StatusCode;
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

use super::hub_protocol::MAX_RECORD;
use super::session::{Frame, Link, Who};
use super::{Clients, Ends, Refusal, State, Visitor, link, newcomer};
use crate::sandbox::server::exchange::{Received, Reply};

/// The largest frame or message that is read, in bytes: several records in one are allowed, without end they are not.
const MAX_MESSAGE: usize = 4 * MAX_RECORD;

/// How long a client may take to answer a close.
const CLOSE_TIME: Duration = Duration::from_secs(5);

/// The session that a WebSocket is for.
enum Session {
    /// One of its own.
    New { hub: String, who: Who, open: Open },
    /// One that may go on over another WebSocket, known by its id until it ends.
    Stateful { hub: String, who: Who, open: Open },
    /// One that goes on.
    Old { others: mpsc::Sender<Link> },
}

/// A connection that is open, or about to be, as long as this lives; then its id is forgotten, if it was negotiated.
struct Open {
    clients: Arc<Clients>,
    id: Option<String>,
}

impl Drop for Open {
    fn drop(&mut self) {
        if let Some(id) = &self.id {
            self.clients.forget(id);
        }
    }
}

impl Clients {
    /// A GET that asks for a WebSocket: of a negotiated connection, or of a new one if it names none.
    pub(super) fn open_websocket(self: &Arc<Self>, request: &mut Received, visitor: Visitor) -> Result<Reply, Refusal> {
        let bad = |reason| Refusal(StatusCode::BAD_REQUEST, Cow::Borrowed(reason));
        let is_websocket = request.header(UPGRADE).is_some_and(|name| name.eq_ignore_ascii_case("websocket"));
        let key = request.header(SEC_WEBSOCKET_KEY).filter(|_| is_websocket).map(str::to_owned);
        let key = key.ok_or_else(|| bad("only a WebSocket is upgraded to"))?;
        if request.header(SEC_WEBSOCKET_VERSION) != Some("13") {
            return Err(bad("the version of WebSocket is not 13"));
        }
        let upgrade = request.upgrade.take().ok_or_else(|| bad("the connection cannot be upgraded"))?;
        let (session, verdict) = self.session_of(request.query_value("id"), visitor)?;
        let clients = Arc::clone(self);
        let run = async move {
            let Ok(upgraded) = upgrade.await else { return };
            let mut config = WebSocketConfig::default();
            config = config.read_buffer_size(4096).write_buffer_size(16 * 1024);
            config = config.max_message_size(Some(MAX_MESSAGE)).max_frame_size(Some(MAX_MESSAGE));
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(config)).await;
            // Held while the socket is open.
            let Some((_open, (inbound, outbound))) = clients.enter(session).await else { return };
            let (mut sink, stream) = socket.split();
            let time = clients.times.write;
            let refused = {
                let (reading, writing) = (read(stream, inbound), write(&mut sink, outbound, time));
                tokio::pin!(reading, writing);
                tokio::select! {
                    refused = &mut reading => refused,
                    () = &mut writing => {
                        drop(timeout(CLOSE_TIME, reading).await);
                        None
                    }
                }
            };
            if let Some(close) = refused {
                let _ = timeout(time, sink.send(Message::Close(Some(close)))).await;
            }
        };
        Ok(Reply::switching(Box::pin(run))
            .header(CONNECTION, "upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_ACCEPT, &derive_accept_key(key.as_bytes()))
            .verdict(verdict))
    }
}

impl Clients {
    /// The session that a WebSocket belongs to, and what the journal says of it.
    fn session_of(self: &Arc<Self>, id: Option<String>, visitor: Visitor) -> Result<(Session, String), Refusal> {
        let hub = visitor.hub.clone();
        let open = |id| Open { clients: Arc::clone(self), id };
        let Some(id) = id else {
            let who = newcomer(visitor.user);
            let verdict = format!("WebSocket {}", who.id);
            return Ok((Session::New { hub, who, open: open(None) }, verdict));
        };
        let mut negotiated = self.negotiated();
        let found = Self::find(&mut negotiated, &id, &visitor)?;
        let who = found.who.clone();
        let verdict = format!("WebSocket {}", who.id);
        let session = match &found.state {
            State::Waiting { stateful: false, .. } => {
                found.state = State::WebSocket { others: None };
                Session::New { hub, who, open: open(Some(id)) }
            }
            State::Waiting { stateful: true, .. } => {
                found.state = State::WebSocket { others: None };
                Session::Stateful { hub, who, open: open(Some(id)) }
            }
            State::WebSocket { others: Some(others) } => Session::Old { others: others.clone() },
            State::WebSocket { others: None } | State::Posting { .. } => return Err(Refusal::OPEN),
        };
        Ok((session, verdict))
    }

    /// Starts a session, or takes up one that has lost its transport. `None` if that has ended meanwhile.
    async fn enter(self: &Arc<Self>, session: Session) -> Option<(Open, Ends)> {
        match session {
            Session::New { hub, who, open } => Some((open, self.start(&hub, who, true))),
            Session::Stateful { hub, who, mut open } => {
                // From here on, it is open as long as its session is.
                let id = open.id.take()?;
                let (others, ends) = self.start_stateful(&hub, who, id.clone());
                if let Some(found) = self.negotiated().get_mut(&id) {
                    found.state = State::WebSocket { others: Some(others) };
                }
                Some((open, ends))
            }
            Session::Old { others } => {
                let (link, ends) = link(true);
                others.send(link).await.ok()?;
                Some((Open { clients: Arc::clone(self), id: None }, ends))
            }
        }
    }
}

/// Passes on what comes, until the client closes or breaks off. After the session's end, what comes is dropped. Returns
/// how to close on a client that broke the rules of WebSocket.
async fn read(
    mut socket: impl Stream<Item = Result<Message, Error>> + Unpin,
    session: mpsc::Sender<Bytes>,
) -> Option<CloseFrame> {
    // A close is answered by reading on, which then ends.
    loop {
        let bytes = match socket.next().await? {
            Ok(Message::Text(text)) => Bytes::from(text),
            Ok(Message::Binary(bytes)) => bytes,
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_)) => continue,
            Err(err) => return refusal_of(&err),
        };
        let _ = session.send(bytes).await;
    }
}

/// The close for what a client did wrong. `None` if it is gone.
///
/// Source: RFC 6455 section 7.4.1.
fn refusal_of(err: &Error) -> Option<CloseFrame> {
    #[expect(clippy::wildcard_enum_match_arm, reason = "everything else is a connection that broke")]
    let code = match err {
        Error::Capacity(_) => CloseCode::Size,
        Error::Utf8(_) => CloseCode::Invalid,
        // It ended without a close: there is nobody to tell.
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => return None,
        Error::Protocol(_) => CloseCode::Protocol,
        _ => return None,
    };
    // A close has room for 123 bytes.
    let reason: String = err.to_string().chars().filter(char::is_ascii).take(123).collect();
    Some(CloseFrame { code, reason: reason.into() })
}

/// Sends what the session says, several frames at once if they wait, and closes at its end.
async fn write<E>(
    mut socket: impl Sink<Message, Error = E> + Unpin,
    mut session: mpsc::Receiver<Frame>,
    time: Duration,
) {
    while let Some(frame) = session.recv().await {
        let sending = async {
            socket.feed(message(frame)).await?;
            while let Ok(frame) = session.try_recv() {
                socket.feed(message(frame)).await?;
            }
            socket.flush().await
        };
        match timeout(time, sending).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
    let close = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    let _ = timeout(time, socket.send(Message::Close(Some(close)))).await;
}

fn message(frame: Frame) -> Message {
    if frame.binary {
        return Message::Binary(frame.bytes);
    }
    // What a session says as text is text.
    Utf8Bytes::try_from(frame.bytes).map_or_else(|_| Message::Binary(Bytes::new()), Message::Text)
}

//! The long-polling transport: a GET waits until there is a frame to send.

use std::sync::Arc;

use bytes::BytesMut;
use http::StatusCode;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::polling::Polling;
use super::registry::{AuthenticatedClient, Clients, Rejection, State, find};
use super::session::Frame;
use crate::sandbox::server::exchange::{ReceivedRequest, Reply};

/// The size of a response, in bytes, above which no further frame is added.
const MAX_RESPONSE: usize = 1024 * 1024;

/// Handles a GET. The first one opens the connection and returns at once. Each later one waits for frames.
pub(super) async fn poll(
    clients: &Arc<Clients>,
    request: &ReceivedRequest,
    client: &AuthenticatedClient,
) -> Result<Reply, Rejection> {
    let id = request.query_value("id").ok_or(Rejection::NO_ID)?;
    let polling = {
        let mut negotiated = clients.negotiated();
        let found = find(&mut negotiated, &id, client)?;
        match &found.state {
            State::Posting { polling: Some(polling), .. } => Arc::clone(polling),
            State::Posting { polling: None, .. } | State::WebSocket { .. } => return Err(Rejection::ALREADY_OPEN),
            State::Waiting { .. } => {
                let identity = found.identity.clone();
                let verdict = format!("long polling {}", identity.id);
                let (inbound, outbound) = clients.start_session(&client.hub, identity, false);
                let polling = Arc::new(Polling::new(outbound));
                found.state = State::Posting { inbound, polling: Some(Arc::clone(&polling)) };
                let (weak, timeouts) = (Arc::downgrade(clients), *clients.timeouts());
                clients.spawn(async move {
                    polling.wait_until_idle(timeouts).await;
                    if let Some(clients) = weak.upgrade() {
                        clients.remove(&id);
                    }
                });
                return Ok(Reply::empty(StatusCode::OK).verdict(verdict));
            }
        }
    };
    let (_poll, superseded) = polling.begin();
    let response = async {
        let mut outbound = polling.outbound.lock().await;
        let first = timeout(clients.timeouts().poll, outbound.recv()).await;
        first.map(|first| first.map(|first| combine(&first, &mut outbound)))
    };
    let end = || Reply::empty(StatusCode::NO_CONTENT);
    Ok(tokio::select! {
        biased;
        _ = superseded => end().verdict("superseded by another poll"),
        response = response => match response {
            Ok(Some(reply)) => reply,
            Ok(None) => {
                clients.remove(&id);
                end().verdict("the session has ended")
            }
            Err(_) => Reply::empty(StatusCode::OK).verdict("nothing to send"),
        },
    })
}

/// Combines the first frame with all others that are ready into one response.
fn combine(first: &Frame, outbound: &mut mpsc::Receiver<Frame>) -> Reply {
    let content_type = if first.binary { "application/octet-stream" } else { "text/plain; charset=utf-8" };
    let mut body = BytesMut::from(first.bytes.as_ref());
    while body.len() < MAX_RESPONSE {
        let Ok(next) = outbound.try_recv() else { break };
        body.extend_from_slice(&next.bytes);
    }
    let verdict = format!("{} bytes", body.len());
    Reply::with_content_type(StatusCode::OK, content_type, body.freeze()).verdict(verdict)
}

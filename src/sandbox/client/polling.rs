//! A session over long polling: a GET that is held until there is something to say. Moves records and knows nothing
//! of what they say.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::BytesMut;
use http::StatusCode;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use super::session::Frame;
use super::{ClientTimes, Clients, Refusal, State, Visitor};
use crate::sandbox::server::exchange::{Received, Reply};

/// How many bytes one poll takes along, roughly.
const POLL_SIZE: usize = 1024 * 1024;

/// What the polls of one connection share.
pub(super) struct Polling {
    outbound: tokio::sync::Mutex<mpsc::Receiver<Frame>>,
    presence: Mutex<Presence>,
}

/// Whether the client is there.
struct Presence {
    polls: usize,
    last: Instant,
    /// Ends the poll that is held.
    held: Option<oneshot::Sender<()>>,
}

/// A poll that is held; the client is there as long as this lives.
struct Poll<'a>(&'a Polling);

impl Polling {
    fn new(outbound: mpsc::Receiver<Frame>) -> Self {
        let presence = Presence { polls: 0, last: Instant::now(), held: None };
        Self { outbound: tokio::sync::Mutex::new(outbound), presence: Mutex::new(presence) }
    }

    /// Ends the poll before, and holds this one.
    fn arrive(&self) -> (Poll<'_>, oneshot::Receiver<()>) {
        let (end, ended) = oneshot::channel();
        let mut presence = self.presence();
        presence.polls += 1;
        if let Some(before) = presence.held.replace(end) {
            // It may have ended by itself.
            let _ = before.send(());
        }
        (Poll(self), ended)
    }

    /// Waits until the client has stayed away for too long.
    async fn absence(&self, times: ClientTimes) {
        loop {
            let until = {
                let presence = self.presence();
                let last = if presence.polls > 0 { Instant::now() } else { presence.last };
                last + times.between_polls
            };
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        let mut presence = self.0.presence();
        presence.polls -= 1;
        presence.last = Instant::now();
    }
}

impl Clients {
    /// A GET: the first opens the connection and is answered at once, the others wait.
    pub(super) async fn poll(self: &Arc<Self>, request: &Received, visitor: &Visitor) -> Result<Reply, Refusal> {
        let id = request.query_value("id").ok_or(Refusal::NO_ID)?;
        let polling = {
            let mut negotiated = self.negotiated();
            let found = Self::find(&mut negotiated, &id, visitor)?;
            match &found.state {
                State::Posting { polling: Some(polling), .. } => Arc::clone(polling),
                State::Posting { polling: None, .. } | State::WebSocket { .. } => return Err(Refusal::OPEN),
                State::Waiting { .. } => {
                    let who = found.who.clone();
                    let verdict = format!("long polling {}", who.id);
                    let (inbound, outbound) = self.start(&visitor.hub, who, false);
                    let polling = Arc::new(Polling::new(outbound));
                    found.state = State::Posting { inbound, polling: Some(Arc::clone(&polling)) };
                    let (clients, times) = (Arc::downgrade(self), self.times);
                    self.spawn(async move {
                        polling.absence(times).await;
                        if let Some(clients) = clients.upgrade() {
                            clients.forget(&id);
                        }
                    });
                    return Ok(Reply::empty(StatusCode::OK).verdict(verdict));
                }
            }
        };
        let (_poll, superseded) = polling.arrive();
        let waiting = async {
            let mut outbound = polling.outbound.lock().await;
            let first = timeout(self.times.poll, outbound.recv()).await;
            first.map(|first| first.map(|first| gather(&first, &mut outbound)))
        };
        let end = || Reply::empty(StatusCode::NO_CONTENT);
        Ok(tokio::select! {
            biased;
            _ = superseded => end().verdict("another poll came"),
            answer = waiting => match answer {
                Ok(Some(reply)) => reply,
                Ok(None) => {
                    self.forget(&id);
                    end().verdict("the connection has ended")
                }
                Err(_) => Reply::empty(StatusCode::OK).verdict("nothing to say"),
            },
        })
    }
}

/// All that waits, in one answer.
fn gather(first: &Frame, outbound: &mut mpsc::Receiver<Frame>) -> Reply {
    let content_type = if first.binary { "application/octet-stream" } else { "text/plain; charset=utf-8" };
    let mut body = BytesMut::from(first.bytes.as_ref());
    while body.len() < POLL_SIZE {
        let Ok(next) = outbound.try_recv() else { break };
        body.extend_from_slice(&next.bytes);
    }
    let verdict = format!("{} bytes", body.len());
    Reply::typed(StatusCode::OK, content_type, body.freeze()).verdict(verdict)
}

//! One client's session: handshake, records both ways, pings and the close, over whatever transport moves the bytes.
//! Knows no HTTP.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::ClientTimes;
use crate::sandbox::connection::{Close, Connection, Delivery};
use crate::sandbox::hub::Hub;
use crate::sandbox::hub_protocol::{Decoder, Protocol, ProtocolError, Record, handshake_answer};

/// What a client is told that calls the hub: there is no server behind it.
const NO_UPSTREAM: &str = "the sandbox is serverless and has no upstream: nobody answers calls of clients";

/// Who a client is.
#[derive(Clone, Debug)]
pub(super) struct Who {
    /// The connection id, by which the REST API names it.
    pub(super) id: String,
    /// The user, if its token names one.
    pub(super) user: Option<String>,
}

/// A piece of what a client is sent: one or more whole records.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// The records.
    pub(super) bytes: Bytes,
    /// Whether they are bytes rather than text.
    pub(super) binary: bool,
}

/// The session's end of a transport.
pub(super) struct Link {
    /// What the client sends, in any pieces; it ends when the client is gone.
    pub(super) inbound: mpsc::Receiver<Bytes>,
    /// What the client is sent. Dropping it ends the transport in order.
    pub(super) outbound: mpsc::Sender<Frame>,
    /// Whether pings are sent and expected.
    pub(super) keep_alive: bool,
}

/// The client is gone, or does not read.
struct Gone;

/// A session after its handshake.
struct Session {
    connection: Connection,
    link: Link,
    protocol: Protocol,
    decoder: Decoder,
    times: ClientTimes,
    last_sent: Instant,
    last_heard: Instant,
}

/// Runs a session to its end.
pub(super) async fn run(hub: Arc<Hub>, who: Who, mut link: Link, times: ClientTimes) {
    let mut decoder = Decoder::default();
    let error = match timeout(times.handshake, shake_hands(&mut link, &mut decoder)).await {
        Ok(None) => return,
        Ok(Some(Ok(protocol))) => {
            // In the hub before it is told so: what a client sends by REST on the news must find it.
            let connection = hub.connect_as(&who.id, who.user.as_deref(), std::time::Instant::now());
            let now = Instant::now();
            let mut session = Session { connection, link, protocol, decoder, times, last_sent: now, last_heard: now };
            // However it ends, dropping the session is what is left to do.
            let _ = session.talk().await;
            return;
        }
        Ok(Some(Err(error))) => error.to_string(),
        Err(_) => format!("no handshake came within {} seconds", times.handshake.as_secs()),
    };
    let answer = Frame { bytes: handshake_answer(Some(&error)), binary: false };
    let _ = timeout(times.write, link.outbound.send(answer)).await;
}

/// Waits for the handshake. `None` if the client goes away before.
async fn shake_hands(link: &mut Link, decoder: &mut Decoder) -> Option<Result<Protocol, ProtocolError>> {
    loop {
        match decoder.handshake() {
            Ok(Some(handshake)) => return Some(Ok(handshake.protocol)),
            Ok(None) => {}
            Err(error) => return Some(Err(error)),
        }
        decoder.push(&link.inbound.recv().await?);
    }
}

impl Session {
    async fn talk(&mut self) -> Result<(), Gone> {
        self.send(handshake_answer(None)).await?;
        // One coarse clock for pings and silence: a timer for each delivery would cost more than the delivery.
        let mut clock = interval(self.times.keep_alive / 5);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Records may have come along with the handshake.
        if self.listen(&[]).await?.is_end() {
            return Ok(());
        }
        loop {
            let next = tokio::select! {
                received = self.link.inbound.recv() => self.listen(&received.ok_or(Gone)?).await?,
                delivery = self.connection.recv() => self.deliver(&delivery.ok_or(Gone)?).await?,
                _ = clock.tick(), if self.link.keep_alive => self.look_at_the_clock().await?,
            };
            if next.is_end() {
                return Ok(());
            }
        }
    }

    async fn listen(&mut self, bytes: &[u8]) -> Result<Next, Gone> {
        self.last_heard = Instant::now();
        self.decoder.push(bytes);
        loop {
            match self.decoder.next(self.protocol) {
                Ok(Some(Record::Call { id: Some(id) })) => {
                    self.send(self.protocol.call_failed(&id, NO_UPSTREAM)).await?;
                }
                Ok(Some(Record::Completion { id, result })) => {
                    self.connection.complete(&id, result);
                }
                Ok(Some(Record::Close)) => return Ok(Next::End),
                Ok(Some(Record::Call { id: None } | Record::Other)) => {}
                Ok(None) => return Ok(Next::GoOn),
                Err(error) => return self.end(error.to_string()).await,
            }
        }
    }

    async fn deliver(&mut self, delivery: &Delivery) -> Result<Next, Gone> {
        if let Some(record) = self.protocol.delivery(delivery) {
            self.send(record).await?;
        }
        Ok(if matches!(delivery, Delivery::Close(_)) { Next::End } else { Next::GoOn })
    }

    async fn look_at_the_clock(&mut self) -> Result<Next, Gone> {
        if self.last_heard.elapsed() >= self.times.silence {
            return self.end(format!("nothing was heard of the client for {:?}", self.times.silence)).await;
        }
        if self.last_sent.elapsed() >= self.times.keep_alive {
            self.send(self.protocol.ping()).await?;
        }
        Ok(Next::GoOn)
    }

    async fn end(&mut self, reason: String) -> Result<Next, Gone> {
        let close = Close { reason: Some(reason), allow_reconnect: false };
        self.deliver(&Delivery::Close(close)).await
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), Gone> {
        self.last_sent = Instant::now();
        let frame = Frame { bytes, binary: self.protocol.is_binary() };
        let frame = match self.link.outbound.try_send(frame) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Gone),
            Err(mpsc::error::TrySendError::Full(frame)) => frame,
        };
        match timeout(self.times.write, self.link.outbound.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

/// Whether a session goes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    GoOn,
    End,
}

impl Next {
    fn is_end(self) -> bool {
        self == Self::End
    }
}

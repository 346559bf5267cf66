//! One client's session: handshake, records both ways, pings and the close, over whatever transport moves the bytes.
//! Knows no HTTP.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

use super::ClientTimes;
use super::hub_protocol::{Decoder, Handshake, Protocol, ProtocolError, Record, handshake_answer};
use super::replay::Replay;
use crate::sandbox::signalr::connection::Connection;
use crate::sandbox::signalr::delivery::{Close, Delivery};
use crate::sandbox::signalr::hub::Hub;

/// What a client is told that calls the hub: there is no server behind it.
const NO_UPSTREAM: &str = "the sandbox is serverless and has no upstream: nobody answers calls of clients";

/// What a client is told that asked for stateful reconnect and does not do its part.
const NOT_ACKNOWLEDGED: &str = "the client does not acknowledge what it is sent";

/// From which version of the hub protocol on a client can take up a session. Source: HubProtocol.md.
const STATEFUL_VERSION: u64 = 2;

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

/// How large a piece becomes, in bytes, before records that wait are left for the next one.
const MAX_PIECE: usize = 16 * 1024;

/// Records that are sent together.
#[derive(Default)]
enum Piece {
    #[default]
    Empty,
    /// One alone stays where its other receivers have it.
    One(Bytes),
    Several(BytesMut),
}

impl Piece {
    fn add(&mut self, record: Bytes) {
        *self = match std::mem::take(self) {
            Self::Empty => Self::One(record),
            Self::One(first) => {
                let mut all = BytesMut::with_capacity(2 * (first.len() + record.len()));
                all.extend_from_slice(&first);
                all.extend_from_slice(&record);
                Self::Several(all)
            }
            Self::Several(mut all) => {
                all.extend_from_slice(&record);
                Self::Several(all)
            }
        };
    }

    fn len(&self) -> usize {
        match self {
            Self::Empty => 0,
            Self::One(record) => record.len(),
            Self::Several(all) => all.len(),
        }
    }

    fn bytes(self) -> Option<Bytes> {
        match self {
            Self::Empty => None,
            Self::One(record) => Some(record),
            Self::Several(all) => Some(all.freeze()),
        }
    }
}

/// A session after its handshake.
struct Session {
    connection: Connection,
    link: Link,
    protocol: Protocol,
    decoder: Decoder,
    times: ClientTimes,
    last_sent: Instant,
    last_heard: Instant,
    stateful: Option<Stateful>,
}

/// What a session has that outlives its transport.
struct Stateful {
    replay: Replay,
    /// Transports that take the place of the one before.
    links: mpsc::Receiver<Link>,
    /// Since when nothing more is sent, because the client has not acknowledged what it was sent.
    full_since: Option<Instant>,
}

/// Runs a session to its end. With `links`, it outlives its transport if the client is of a version that can take it up.
pub(super) async fn run(
    hub: Arc<Hub>,
    who: Who,
    mut link: Link,
    links: Option<mpsc::Receiver<Link>>,
    times: ClientTimes,
) {
    let mut decoder = Decoder::default();
    let error = match timeout(times.handshake, shake_hands(&mut link, &mut decoder)).await {
        Ok(None) => return,
        Ok(Some(Ok(Handshake { protocol, version }))) => {
            // In the hub before it is told so: what a client sends by REST on the news must find it.
            let connection = Connection::open_as(&hub, &who.id, who.user.as_deref(), std::time::Instant::now());
            let links = links.filter(|_| version >= STATEFUL_VERSION);
            let stateful = links.map(|links| Stateful { replay: Replay::default(), links, full_since: None });
            let (last_sent, last_heard) = (Instant::now(), Instant::now());
            // However it ends, dropping the session is what is left to do.
            Session { connection, link, protocol, decoder, times, last_sent, last_heard, stateful }.talk().await;
            return;
        }
        Ok(Some(Err(error))) => error.to_string(),
        Err(_) => format!("no handshake came within {} seconds", times.handshake.as_secs()),
    };
    let answer = Frame { bytes: handshake_answer(Some(&error)), binary: false };
    let _ = timeout(times.write, link.outbound.send(answer)).await;
}

/// Waits for the handshake. `None` if the client goes away before.
async fn shake_hands(link: &mut Link, decoder: &mut Decoder) -> Option<Result<Handshake, ProtocolError>> {
    loop {
        match decoder.handshake() {
            Ok(Some(handshake)) => return Some(Ok(handshake)),
            Ok(None) => {}
            Err(error) => return Some(Err(error)),
        }
        decoder.push(&link.inbound.recv().await?);
    }
}

impl Session {
    async fn talk(&mut self) {
        // One coarse clock for pings and silence: a timer for each delivery would cost more than the delivery.
        let mut clock = interval(self.times.keep_alive / 5);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = self.greet().await;
        loop {
            next = match next {
                Ok(Next::End) => return,
                Ok(Next::GoOn) => self.go_on(&mut clock).await,
                Err(Gone) => self.wait_for_return().await,
            };
        }
    }

    async fn greet(&mut self) -> Result<Next, Gone> {
        self.send(handshake_answer(None)).await?;
        // Records may have come along with the handshake.
        self.listen(&[]).await
    }

    async fn go_on(&mut self, clock: &mut Interval) -> Result<Next, Gone> {
        let is_full = self.is_full();
        tokio::select! {
            received = self.link.inbound.recv() => self.listen(&received.ok_or(Gone)?).await,
            delivery = self.connection.recv(), if !is_full => self.deliver(delivery.ok_or(Gone)?).await,
            _ = clock.tick(), if self.link.keep_alive => self.look_at_the_clock().await,
            link = another(&mut self.stateful) => self.take_up(link).await,
        }
    }

    /// Waits for a client that has lost its transport, if it asked for that.
    async fn wait_for_return(&mut self) -> Result<Next, Gone> {
        if self.stateful.is_none() {
            return Ok(Next::End);
        }
        match timeout(self.times.away, another(&mut self.stateful)).await {
            Ok(link) => self.take_up(link).await,
            Err(_) => Ok(Next::End),
        }
    }

    /// Goes on over another transport: says with which record, and sends again what the client may have missed.
    async fn take_up(&mut self, link: Link) -> Result<Next, Gone> {
        self.link = link;
        self.decoder = Decoder::default();
        self.last_heard = Instant::now();
        let Some(stateful) = &mut self.stateful else { return Ok(Next::End) };
        stateful.full_since = None;
        let (first, records) = stateful.replay.again();
        self.send(self.protocol.sequence(first)).await?;
        for record in records {
            self.send(record).await?;
        }
        Ok(Next::GoOn)
    }

    async fn listen(&mut self, bytes: &[u8]) -> Result<Next, Gone> {
        self.last_heard = Instant::now();
        self.decoder.push(bytes);
        let mut numbered = false;
        loop {
            match self.decoder.next(self.protocol) {
                Ok(Some(record)) => {
                    numbered |= record.is_numbered();
                    if self.hear(record).await?.is_end() {
                        return Ok(Next::End);
                    }
                }
                Ok(None) => break,
                Err(error) => return self.end(error.to_string()).await,
            }
        }
        if let (true, Some(stateful)) = (numbered, &self.stateful) {
            self.send(self.protocol.ack(stateful.replay.heard())).await?;
        }
        Ok(Next::GoOn)
    }

    async fn hear(&mut self, record: Record) -> Result<Next, Gone> {
        if let Some(Stateful { replay, full_since, .. }) = &mut self.stateful {
            if let Record::Sequence(number) = record {
                return match replay.begin(number) {
                    Ok(()) => Ok(Next::GoOn),
                    Err(gap) => self.end(gap.to_string()).await,
                };
            }
            if replay.awaits_sequence() || (record.is_numbered() && !replay.is_news()) {
                return Ok(Next::GoOn);
            }
            if let Record::Ack(number) = record
                && replay.acknowledge(number)
            {
                *full_since = None;
            }
        }
        match record {
            Record::Call { id: Some(id) } => return self.tell(self.protocol.call_failed(&id, NO_UPSTREAM)).await,
            Record::Completion { id, result } => drop(self.connection.complete(&id, result)),
            Record::Close => return Ok(Next::End),
            Record::Call { id: None } | Record::Stream | Record::Ack(_) | Record::Sequence(_) | Record::Other => {}
        }
        Ok(Next::GoOn)
    }

    /// Sends a delivery, and with it the others that wait: under load, a client then costs a write for each look at it
    /// and not for each message.
    async fn deliver(&mut self, first: Delivery) -> Result<Next, Gone> {
        let mut piece = Piece::default();
        let mut next = Some(first);
        while let Some(delivery) = next {
            if let Delivery::Close(close) = delivery {
                self.send_some(piece).await?;
                return self.close(&close).await;
            }
            if let Some(record) = self.protocol.delivery(&delivery) {
                self.keep(&record);
                piece.add(record);
            }
            let is_full = piece.len() >= MAX_PIECE || self.is_full();
            next = if is_full { None } else { self.connection.try_recv() };
        }
        self.send_some(piece).await?;
        Ok(Next::GoOn)
    }

    /// Sends what a client may come back for, which is kept until it has it.
    async fn tell(&mut self, record: Bytes) -> Result<Next, Gone> {
        self.keep(&record);
        self.send(record).await?;
        if self.stateful.as_ref().is_some_and(|stateful| stateful.replay.is_overdue()) {
            return self.end(String::from(NOT_ACKNOWLEDGED)).await;
        }
        Ok(Next::GoOn)
    }

    fn keep(&mut self, record: &Bytes) {
        if let Some(stateful) = &mut self.stateful {
            stateful.replay.keep(record.clone(), self.protocol.numbered_in(record));
        }
    }

    /// What a client may still have to be sent again is bounded; the rest waits in the hub, where it is, too.
    fn is_full(&self) -> bool {
        self.stateful.as_ref().is_some_and(|stateful| stateful.replay.is_full())
    }

    async fn send_some(&mut self, piece: Piece) -> Result<(), Gone> {
        match piece.bytes() {
            Some(bytes) => self.send(bytes).await,
            None => Ok(()),
        }
    }

    /// The last word: a client that does not get it finds no session when it comes back.
    async fn close(&mut self, close: &Close) -> Result<Next, Gone> {
        let _ = self.send(self.protocol.close(close)).await;
        Ok(Next::End)
    }

    async fn look_at_the_clock(&mut self) -> Result<Next, Gone> {
        if self.last_heard.elapsed() >= self.times.silence {
            return self.end(format!("nothing was heard of the client for {:?}", self.times.silence)).await;
        }
        let is_full = self.is_full();
        if let Some(Stateful { full_since, .. }) = &mut self.stateful {
            if !is_full {
                *full_since = None;
            } else if full_since.get_or_insert_with(Instant::now).elapsed() >= self.times.write {
                return self.end(String::from(NOT_ACKNOWLEDGED)).await;
            }
        }
        if self.last_sent.elapsed() >= self.times.keep_alive {
            self.send(self.protocol.ping()).await?;
        }
        Ok(Next::GoOn)
    }

    async fn end(&mut self, reason: String) -> Result<Next, Gone> {
        self.close(&Close { reason: Some(reason), allow_reconnect: false }).await
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

/// Another transport for the session. Never, if it does not outlive its own.
async fn another(stateful: &mut Option<Stateful>) -> Link {
    if let Some(link) = match stateful {
        Some(stateful) => stateful.links.recv().await,
        None => None,
    } {
        return link;
    }
    std::future::pending().await
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

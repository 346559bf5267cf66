//! The session of one client over any transport: handshake, records in both directions, pings and close.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval, timeout};

use super::hub_protocol::decoder::{Decoder, Handshake, count_numbered};
use super::hub_protocol::protocol::{Protocol, handshake_response};
use super::hub_protocol::record::{ProtocolError, Record};
use super::replay::Replay;
use super::timeouts::ClientTimeouts;
use crate::sandbox::signalr::authentication::Authentication;
use crate::sandbox::signalr::connection::Connection;
use crate::sandbox::signalr::delivery::{Close, Delivery};
use crate::sandbox::signalr::hub::Hub;

/// The error that completes every invocation by a client: in serverless mode, only an upstream handles invocations.
const NO_UPSTREAM: &str = "the sandbox is serverless and has no upstream for invocations by clients";

/// The reason for closing a client with stateful reconnect that sends no acknowledgements.
const NOT_ACKNOWLEDGED: &str = "the client sends no acknowledgements";

/// The lowest version of the hub protocol with stateful reconnect. Source: HubProtocol.md.
const STATEFUL_VERSION: u64 = 2;

/// The identity of a connection.
#[derive(Clone, Debug)]
pub(super) struct ConnectionIdentity {
    /// The connection id that the REST API uses.
    pub(super) id: String,
    /// The user, if the client's token names one.
    pub(super) user: Option<String>,
    /// The client's claims.
    pub(super) authentication: Authentication,
}

/// One or more whole records for a client.
#[derive(Clone, Debug)]
pub(super) struct Frame {
    /// The records.
    pub(super) bytes: Bytes,
    /// Whether the records are binary.
    pub(super) binary: bool,
}

/// The session's channels to and from a transport.
pub(super) struct SessionChannels {
    /// The client's bytes, in chunks of any size. The channel closes when the client disconnects.
    pub(super) inbound: mpsc::Receiver<Bytes>,
    /// The frames for the client. Dropping the sender closes the transport.
    pub(super) outbound: mpsc::Sender<Frame>,
    /// Whether both sides send pings.
    pub(super) keep_alive: bool,
}

/// A failed write or read: the client has disconnected or does not read.
struct Disconnected;

/// The size of a batch, in bytes, above which no further record is added.
const MAX_BATCH: usize = 16 * 1024;

/// Records that are sent together.
#[derive(Default)]
enum Batch {
    #[default]
    Empty,
    /// One record, not copied. All receivers of a message share its memory.
    One(Bytes),
    Several(BytesMut),
}

impl Batch {
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
    channels: SessionChannels,
    protocol: Protocol,
    decoder: Decoder,
    timeouts: ClientTimeouts,
    last_sent: Instant,
    last_received: Instant,
    stateful: Option<Stateful>,
}

/// The state of a session that outlives its transport.
struct Stateful {
    replay: Replay,
    /// Replacements of the transport.
    replacements: mpsc::Receiver<SessionChannels>,
    /// The time since which deliveries are paused because the client has not acknowledged enough records.
    full_since: Option<Instant>,
}

/// Runs a session until it ends. With `replacements`, the session outlives its transport if the protocol version allows it.
pub(super) async fn run(
    hub: Arc<Hub>,
    identity: ConnectionIdentity,
    mut channels: SessionChannels,
    replacements: Option<mpsc::Receiver<SessionChannels>>,
    timeouts: ClientTimeouts,
) {
    let mut decoder = Decoder::default();
    let error = match timeout(timeouts.handshake, receive_handshake(&mut channels, &mut decoder)).await {
        Ok(None) => return,
        Ok(Some(Ok(Handshake { protocol, version }))) => {
            // The connection joins the hub before the handshake response: a REST call that follows the response must find it.
            let ConnectionIdentity { id, user, authentication } = identity;
            let connection = Connection::open_as(&hub, &id, user.as_deref(), authentication, std::time::Instant::now());
            let replacements = replacements.filter(|_| version >= STATEFUL_VERSION);
            let stateful =
                replacements.map(|replacements| Stateful { replay: Replay::default(), replacements, full_since: None });
            let (last_sent, last_received) = (Instant::now(), Instant::now());
            Session { connection, channels, protocol, decoder, timeouts, last_sent, last_received, stateful }
                .run()
                .await;
            return;
        }
        Ok(Some(Err(error))) => error.to_string(),
        Err(_) => format!("no handshake arrived within {} seconds", timeouts.handshake.as_secs()),
    };
    let response = Frame { bytes: handshake_response(Some(&error)), binary: false };
    let _ = timeout(timeouts.write, channels.outbound.send(response)).await;
}

/// Waits for the handshake. Returns `None` if the client disconnects first.
async fn receive_handshake(
    channels: &mut SessionChannels,
    decoder: &mut Decoder,
) -> Option<Result<Handshake, ProtocolError>> {
    loop {
        match decoder.handshake() {
            Ok(Some(handshake)) => return Some(Ok(handshake)),
            Ok(None) => {}
            Err(error) => return Some(Err(error)),
        }
        decoder.push(&channels.inbound.recv().await?);
    }
}

impl Session {
    async fn run(&mut self) {
        // One coarse interval for pings and timeouts: a timer for each delivery would cost more than the delivery.
        let mut sweep = interval(self.timeouts.keep_alive / 5);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut next = self.send_handshake_response().await;
        loop {
            next = match next {
                Ok(Next::End) => return,
                Ok(Next::Continue) => self.handle_next_event(&mut sweep).await,
                Err(Disconnected) => self.wait_for_transport().await,
            };
        }
    }

    /// Sends the handshake response, and handles the records that arrived with the handshake.
    async fn send_handshake_response(&mut self) -> Result<Next, Disconnected> {
        self.send(handshake_response(None)).await?;
        self.receive(&[]).await
    }

    /// Waits for one event and handles it.
    async fn handle_next_event(&mut self, sweep: &mut Interval) -> Result<Next, Disconnected> {
        let is_full = self.is_full();
        tokio::select! {
            received = self.channels.inbound.recv() => self.receive(&received.ok_or(Disconnected)?).await,
            delivery = self.connection.recv(), if !is_full => self.deliver(delivery.ok_or(Disconnected)?).await,
            _ = sweep.tick(), if self.channels.keep_alive => self.check_timeouts().await,
            channels = next_replacement(&mut self.stateful) => self.replace_transport(channels).await,
        }
    }

    /// Waits for a replacement of the lost transport. Without stateful reconnect, the session ends.
    async fn wait_for_transport(&mut self) -> Result<Next, Disconnected> {
        if self.stateful.is_none() {
            return Ok(Next::End);
        }
        match timeout(self.timeouts.away, next_replacement(&mut self.stateful)).await {
            Ok(channels) => self.replace_transport(channels).await,
            Err(_) => Ok(Next::End),
        }
    }

    /// Continues on another transport: sends the number of the first unacknowledged record, and resends the records.
    async fn replace_transport(&mut self, channels: SessionChannels) -> Result<Next, Disconnected> {
        self.channels = channels;
        self.decoder = Decoder::default();
        self.last_received = Instant::now();
        let Some(stateful) = &mut self.stateful else { return Ok(Next::End) };
        stateful.full_since = None;
        let (first, records) = stateful.replay.resend();
        self.send(self.protocol.sequence(first)).await?;
        for record in records {
            self.send(record).await?;
        }
        Ok(Next::Continue)
    }

    /// Handles the records in the client's bytes.
    async fn receive(&mut self, bytes: &[u8]) -> Result<Next, Disconnected> {
        self.last_received = Instant::now();
        self.decoder.push(bytes);
        let mut numbered = false;
        loop {
            match self.decoder.next(self.protocol) {
                Ok(Some(record)) => {
                    numbered |= record.is_numbered();
                    if self.handle(record).await?.is_end() {
                        return Ok(Next::End);
                    }
                }
                Ok(None) => break,
                Err(error) => return self.close_with(error.to_string()).await,
            }
        }
        if let (true, Some(stateful)) = (numbered, &self.stateful) {
            self.send(self.protocol.ack(stateful.replay.received())).await?;
        }
        Ok(Next::Continue)
    }

    async fn handle(&mut self, record: Record) -> Result<Next, Disconnected> {
        if let Some(Stateful { replay, full_since, .. }) = &mut self.stateful {
            if let Record::Sequence(number) = record {
                return match replay.resume_at(number) {
                    Ok(()) => Ok(Next::Continue),
                    Err(gap) => self.close_with(gap.to_string()).await,
                };
            }
            if replay.awaits_sequence() || (record.is_numbered() && !replay.count_received()) {
                return Ok(Next::Continue);
            }
            if let Record::Ack(number) = record
                && replay.acknowledge(number)
            {
                *full_since = None;
            }
        }
        match record {
            Record::Invocation { id: Some(id) } => {
                return self.send_response(self.protocol.failure(&id, NO_UPSTREAM)).await;
            }
            Record::Completion { id, result } => drop(self.connection.complete(&id, result)),
            Record::Close => return Ok(Next::End),
            Record::Invocation { id: None } | Record::Stream | Record::Ack(_) | Record::Sequence(_) | Record::Other => {
            }
        }
        Ok(Next::Continue)
    }

    /// Sends a delivery together with the queued ones. Under load, this reduces one write per message to one write per batch.
    async fn deliver(&mut self, first: Delivery) -> Result<Next, Disconnected> {
        let mut batch = Batch::default();
        let mut next = Some(first);
        while let Some(delivery) = next {
            if let Delivery::Close(close) = delivery {
                self.send_batch(batch).await?;
                return self.close(&close).await;
            }
            if let Some(record) = self.protocol.delivery(&delivery) {
                self.keep(&record);
                batch.add(record);
            }
            let is_full = batch.len() >= MAX_BATCH || self.is_full();
            next = if is_full { None } else { self.connection.try_recv() };
        }
        self.send_batch(batch).await?;
        Ok(Next::Continue)
    }

    /// Sends a response to the client, and ends the session if too many records are unacknowledged.
    async fn send_response(&mut self, record: Bytes) -> Result<Next, Disconnected> {
        self.keep(&record);
        self.send(record).await?;
        if self.stateful.as_ref().is_some_and(|stateful| stateful.replay.is_exceeded()) {
            return self.close_with(String::from(NOT_ACKNOWLEDGED)).await;
        }
        Ok(Next::Continue)
    }

    /// Keeps a record until the client acknowledges it.
    fn keep(&mut self, record: &Bytes) {
        if let Some(stateful) = &mut self.stateful {
            stateful.replay.keep(record.clone(), count_numbered(self.protocol, record));
        }
    }

    /// Whether deliveries are paused because the unacknowledged records have reached their limit.
    fn is_full(&self) -> bool {
        self.stateful.as_ref().is_some_and(|stateful| stateful.replay.is_full())
    }

    async fn send_batch(&mut self, batch: Batch) -> Result<(), Disconnected> {
        match batch.bytes() {
            Some(bytes) => self.send(bytes).await,
            None => Ok(()),
        }
    }

    /// Sends a close record and ends the session. The record is not kept for a reconnect, because no session remains.
    async fn close(&mut self, close: &Close) -> Result<Next, Disconnected> {
        let _ = self.send(self.protocol.close(close)).await;
        Ok(Next::End)
    }

    /// Sends a ping if the session is idle. Ends the session if the client has exceeded a timeout.
    async fn check_timeouts(&mut self) -> Result<Next, Disconnected> {
        if self.last_received.elapsed() >= self.timeouts.silence {
            return self.close_with(format!("the client sent nothing for {:?}", self.timeouts.silence)).await;
        }
        let is_full = self.is_full();
        if let Some(Stateful { full_since, .. }) = &mut self.stateful {
            if !is_full {
                *full_since = None;
            } else if full_since.get_or_insert_with(Instant::now).elapsed() >= self.timeouts.write {
                return self.close_with(String::from(NOT_ACKNOWLEDGED)).await;
            }
        }
        if self.last_sent.elapsed() >= self.timeouts.keep_alive {
            self.send(self.protocol.ping()).await?;
        }
        Ok(Next::Continue)
    }

    /// Ends the session with a reason, without allowing a reconnect.
    async fn close_with(&mut self, reason: String) -> Result<Next, Disconnected> {
        self.close(&Close { reason: Some(reason), allow_reconnect: false }).await
    }

    async fn send(&mut self, bytes: Bytes) -> Result<(), Disconnected> {
        self.last_sent = Instant::now();
        let frame = Frame { bytes, binary: self.protocol.is_binary() };
        let frame = match self.channels.outbound.try_send(frame) {
            Ok(()) => return Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => return Err(Disconnected),
            Err(mpsc::error::TrySendError::Full(frame)) => frame,
        };
        match timeout(self.timeouts.write, self.channels.outbound.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Disconnected),
        }
    }
}

/// Waits for a replacement of the transport. Never completes without stateful reconnect.
async fn next_replacement(stateful: &mut Option<Stateful>) -> SessionChannels {
    if let Some(channels) = match stateful {
        Some(stateful) => stateful.replacements.recv().await,
        None => None,
    } {
        return channels;
    }
    std::future::pending().await
}

/// Whether a session continues.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    Continue,
    End,
}

impl Next {
    fn is_end(self) -> bool {
        self == Self::End
    }
}

//! The seam between a hub and one connected client: what is delivered, the queue it waits in, and how a connection
//! ends. Knows no transport and no hub protocol.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rmpv::Value;
use tokio::sync::mpsc;

use super::hub::Hub;
use super::message::Message;

/// How much may wait for one client, in bytes, and one delivery of any size where nothing waits. A client that lets more
/// pile up is closed, so a stuck one costs bounded memory and harms no other.
const MAX_WAITING: usize = 8 * 1024 * 1024;

/// What each delivery counts in addition to its message, in bytes: what was read from a small body takes about so much more
/// than the body.
const OVERHEAD: usize = 1024;

/// What a client is sent.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    /// A message that awaits no answer.
    Message(Arc<Message>),
    /// A call that the client is to answer, under its id.
    Invoke {
        /// The id of the call.
        id: String,
        /// The method and its arguments.
        message: Arc<Message>,
    },
    /// An item of a stream that the client reads.
    StreamItem {
        /// The stream.
        stream: String,
        /// The item.
        item: Value,
    },
    /// The end of a stream.
    StreamEnd {
        /// The stream.
        stream: String,
        /// Why it ended, if by an error.
        error: Option<String>,
    },
    /// The end of the connection; nothing follows.
    Close(Close),
}

/// How a connection ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Close {
    /// The reason that the client is told.
    pub reason: Option<String>,
    /// Whether the client may connect again by itself.
    pub allow_reconnect: bool,
}

/// A connected client. It leaves the hub when it is dropped.
#[derive(Debug)]
pub struct Connection {
    hub: Arc<Hub>,
    id: String,
    user: Option<String>,
    receiver: mpsc::UnboundedReceiver<(Delivery, usize)>,
    shared: Arc<Shared>,
    closed: bool,
}

/// The hub's end of a connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    sender: mpsc::UnboundedSender<(Delivery, usize)>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    waiting: AtomicUsize,
    close: OnceLock<Close>,
}

/// A hub's end and a client's end of a connection.
pub(crate) fn connection(hub: Arc<Hub>, id: String, user: Option<String>) -> (Outbox, Connection) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared::default());
    let outbox = Outbox { sender, shared: Arc::clone(&shared) };
    (outbox, Connection { hub, id, user, receiver, shared, closed: false })
}

impl Outbox {
    /// Queues a delivery. `false` if the client has let too much pile up, or is gone.
    pub(crate) fn push(&self, delivery: Delivery) -> bool {
        let size = OVERHEAD + delivery.size();
        let waiting = self.shared.waiting.fetch_add(size, Ordering::Relaxed);
        if waiting > 0 && waiting + size > MAX_WAITING {
            self.shared.waiting.fetch_sub(size, Ordering::Relaxed);
            return false;
        }
        self.sender.send((delivery, size)).is_ok()
    }

    /// Ends the connection: what waits is still delivered, then the close.
    pub(crate) fn close(self, close: Close) {
        // The hub gives up a connection once, so this is the first close.
        let _ = self.shared.close.set(close);
    }
}

impl Delivery {
    fn size(&self) -> usize {
        match self {
            Self::Message(message) | Self::Invoke { message, .. } => message.size,
            // An item came in a body of at most 1 MiB; its own text is a fair measure of what it takes.
            Self::StreamItem { item, .. } => approximate_size(item),
            Self::StreamEnd { .. } | Self::Close(_) => 0,
        }
    }
}

fn approximate_size(value: &Value) -> usize {
    let own = size_of::<Value>();
    match value {
        Value::String(text) => own + text.as_bytes().len(),
        Value::Binary(bytes) | Value::Ext(_, bytes) => own + bytes.len(),
        Value::Array(values) => own + values.iter().map(approximate_size).sum::<usize>(),
        Value::Map(fields) => {
            own + fields.iter().map(|(key, value)| approximate_size(key) + approximate_size(value)).sum::<usize>()
        }
        Value::Nil | Value::Boolean(_) | Value::Integer(_) | Value::F32(_) | Value::F64(_) => own,
    }
}

impl Connection {
    /// The connection id, by which the REST API names it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The user, if the client named one.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// The next delivery: everything that was sent, in order, then one close, then `None`.
    ///
    /// # Cancel safety
    /// Safe: no delivery is lost.
    pub async fn recv(&mut self) -> Option<Delivery> {
        match self.receiver.recv().await {
            Some(received) => Some(self.take(received)),
            None => self.end(),
        }
    }

    /// The next delivery if one waits.
    pub fn try_recv(&mut self) -> Option<Delivery> {
        match self.receiver.try_recv() {
            Ok(received) => Some(self.take(received)),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => self.end(),
        }
    }

    /// Answers a call, with a value or an error text. `false` if nobody waits for it.
    pub fn complete(&self, invocation: &str, result: Result<Value, String>) -> bool {
        self.hub.complete(&self.id, invocation, result)
    }

    fn take(&self, (delivery, size): (Delivery, usize)) -> Delivery {
        self.shared.waiting.fetch_sub(size, Ordering::Relaxed);
        delivery
    }

    fn end(&mut self) -> Option<Delivery> {
        if std::mem::replace(&mut self.closed, true) {
            return None;
        }
        Some(Delivery::Close(self.shared.close.get().cloned().unwrap_or_default()))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.hub.disconnect(&self.id);
    }
}

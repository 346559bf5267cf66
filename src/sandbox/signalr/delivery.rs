//! The queue of deliveries to one client. Deliveries are independent of the transport and the hub protocol.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use rmpv::Value;
use tokio::sync::mpsc;

use super::message::Message;

/// The maximum size of a queue, in bytes. An empty queue accepts one delivery of any size.
///
/// A client whose queue is full is disconnected: a client that does not read uses bounded memory and does not affect others.
const MAX_QUEUED_BYTES: usize = 8 * 1024 * 1024;

/// The size of a delivery beyond its message, in bytes. A parsed small body uses about this much more memory than its size.
const DELIVERY_OVERHEAD_BYTES: usize = 1024;

/// An element of the queue of a client.
#[derive(Clone, Debug, PartialEq)]
pub enum Delivery {
    /// A message without a response.
    Message(Arc<Message>),
    /// An invocation of a client method. The client returns a completion with the same id.
    Invoke {
        /// The invocation id.
        id: String,
        /// The method and its arguments.
        message: Arc<Message>,
    },
    /// An item of a stream that the client reads.
    StreamItem {
        /// The stream id.
        stream: String,
        /// The item.
        item: Value,
    },
    /// The end of a stream.
    StreamEnd {
        /// The stream id.
        stream: String,
        /// The error that ended it, if any.
        error: Option<String>,
    },
    /// The end of the connection, which is the last delivery.
    Close(Close),
}

/// How a connection ends.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Close {
    /// The reason sent to the client.
    pub reason: Option<String>,
    /// Whether the client may reconnect automatically.
    pub allow_reconnect: bool,
}

/// The sending half of a queue.
#[derive(Debug)]
pub(super) struct DeliverySender {
    sender: mpsc::UnboundedSender<(Delivery, usize)>,
    shared: Arc<Shared>,
}

/// The receiving half of a queue.
#[derive(Debug)]
pub(super) struct DeliveryReceiver {
    receiver: mpsc::UnboundedReceiver<(Delivery, usize)>,
    shared: Arc<Shared>,
    close_returned: bool,
}

#[derive(Debug, Default)]
struct Shared {
    queued_bytes: AtomicUsize,
    close: OnceLock<Close>,
}

/// Creates a queue.
pub(super) fn queue() -> (DeliverySender, DeliveryReceiver) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let shared = Arc::new(Shared::default());
    let sender = DeliverySender { sender, shared: Arc::clone(&shared) };
    (sender, DeliveryReceiver { receiver, shared, close_returned: false })
}

impl DeliverySender {
    /// Queues a delivery. Returns `false` if the queue is full or the client is disconnected.
    pub(super) fn push(&self, delivery: Delivery) -> bool {
        let size = DELIVERY_OVERHEAD_BYTES + delivery.size();
        let queued = self.shared.queued_bytes.fetch_add(size, Ordering::Relaxed);
        if queued > 0 && queued + size > MAX_QUEUED_BYTES {
            self.shared.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            return false;
        }
        self.sender.send((delivery, size)).is_ok()
    }

    /// Ends the connection after the queued deliveries.
    pub(super) fn close(self, close: Close) {
        // Setting cannot fail: `self` is consumed, so this is the only call.
        let _ = self.shared.close.set(close);
    }
}

impl DeliveryReceiver {
    /// Returns the next delivery in the order of sending. The last one is [`Delivery::Close`], then follows `None`.
    ///
    /// # Cancel safety
    /// Safe: no delivery is lost.
    pub(super) async fn recv(&mut self) -> Option<Delivery> {
        match self.receiver.recv().await {
            Some(received) => Some(self.release(received)),
            None => self.end(),
        }
    }

    /// Returns the next delivery, or `None` if none is queued.
    pub(super) fn try_recv(&mut self) -> Option<Delivery> {
        match self.receiver.try_recv() {
            Ok(received) => Some(self.release(received)),
            Err(mpsc::error::TryRecvError::Empty) => None,
            Err(mpsc::error::TryRecvError::Disconnected) => self.end(),
        }
    }

    fn release(&self, (delivery, size): (Delivery, usize)) -> Delivery {
        self.shared.queued_bytes.fetch_sub(size, Ordering::Relaxed);
        delivery
    }

    fn end(&mut self) -> Option<Delivery> {
        if std::mem::replace(&mut self.close_returned, true) {
            return None;
        }
        Some(Delivery::Close(self.shared.close.get().cloned().unwrap_or_default()))
    }
}

impl Delivery {
    fn size(&self) -> usize {
        match self {
            Self::Message(message) | Self::Invoke { message, .. } => message.size,
            Self::StreamItem { item, .. } => approximate_size(item),
            Self::StreamEnd { .. } | Self::Close(_) => 0,
        }
    }
}

/// Returns the approximate memory use of a value, in bytes.
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

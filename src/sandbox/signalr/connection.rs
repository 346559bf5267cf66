//! A connection of a client to a hub. Its owner receives the deliveries: a session over a transport, or a test in this process.

use std::sync::Arc;
use std::time::Instant;

use rmpv::Value;

use super::delivery::{self, Delivery, DeliveryReceiver};
use super::hub::Hub;
use crate::sandbox::crypto::ids::random_string;

/// A connection of a client to a hub. Dropping it removes it from the hub.
#[derive(Debug)]
pub struct Connection {
    hub: Arc<Hub>,
    id: String,
    user: Option<String>,
    deliveries: DeliveryReceiver,
}

impl Connection {
    /// Connects a client to a hub under a new id.
    pub(super) fn open(hub: &Arc<Hub>, user: Option<&str>, now: Instant) -> Self {
        Self::open_as(hub, &random_string(), user, now)
    }

    /// Connects a client to a hub under an id that negotiation assigned.
    pub(crate) fn open_as(hub: &Arc<Hub>, id: &str, user: Option<&str>, now: Instant) -> Self {
        let (sender, deliveries) = delivery::queue();
        hub.connect(id, user, sender, now);
        Self { hub: Arc::clone(hub), id: id.to_owned(), user: user.map(str::to_owned), deliveries }
    }

    /// Returns the connection id that the REST API uses.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the user, if the client has one.
    pub fn user(&self) -> Option<&str> {
        self.user.as_deref()
    }

    /// Returns the next delivery in the order of sending. The last one is [`Delivery::Close`], then follows `None`.
    ///
    /// # Cancel safety
    /// Safe: no delivery is lost.
    pub async fn recv(&mut self) -> Option<Delivery> {
        self.deliveries.recv().await
    }

    /// Returns the next delivery, or `None` if none is queued.
    pub fn try_recv(&mut self) -> Option<Delivery> {
        self.deliveries.try_recv()
    }

    /// Completes an invocation with a value or an error message. Returns `false` if no call awaits it.
    pub fn complete(&self, invocation: &str, result: Result<Value, String>) -> bool {
        self.hub.complete(&self.id, invocation, result)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.hub.disconnect(&self.id);
    }
}

//! A connection of a client to a hub. Its owner receives the deliveries: a session over a transport, or a test in this process.

use std::sync::Arc;
use std::time::Instant;

use rmpv::Value;

use super::authentication::Authentication;
use super::delivery::{self, Delivery, DeliveryReceiver};
use super::hub::Hub;
use crate::sandbox::crypto::ids::random_string;

/// A connection of a client to a hub. Dropping it removes it from the hub.
#[derive(Debug)]
pub struct Connection {
    hub: Arc<Hub>,
    id: String,
    user: Option<String>,
    token: Option<String>,
    deliveries: DeliveryReceiver,
}

impl Connection {
    /// Connects a client to a hub under a new id and a new token.
    pub(super) fn open(hub: &Arc<Hub>, user: Option<&str>, now: Instant) -> Self {
        let claims = user.map(|user| (String::from("nameid"), user.to_owned())).into_iter().collect();
        let authentication = Authentication { token: Some(random_string()), claims, expires: None };
        Self::open_as(hub, &random_string(), user, authentication, now)
    }

    /// Connects a client to a hub under an id that negotiation assigned.
    pub(crate) fn open_as(
        hub: &Arc<Hub>,
        id: &str,
        user: Option<&str>,
        authentication: Authentication,
        now: Instant,
    ) -> Self {
        let (sender, deliveries) = delivery::queue();
        let token = authentication.token.clone();
        hub.connect(id, user, authentication, sender, now);
        Self { hub: Arc::clone(hub), id: id.to_owned(), user: user.map(str::to_owned), token, deliveries }
    }

    /// Returns the connection id that the REST API uses.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Returns the connection token, which is secret; `None` if the client did not negotiate one.
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
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

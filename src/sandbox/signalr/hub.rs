//! One hub: its membership behind a mutex, so that each operation is atomic. Callers pass the current time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rmpv::Value;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::authentication::{Authentication, Claim, RefreshError};
use super::delivery::{Close, Delivery, DeliverySender};
use super::filter::Filter;
use super::membership::{ConnectionInfo, GroupTtl, Membership, Page, Selector};
use super::message::Message;
use crate::sandbox::crypto::ids::random_string;

/// One hub.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    membership: Mutex<Membership>,
}

/// One command of `:execute`.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Command {
    /// Send a message.
    Send(Arc<Message>),
    /// Join a group.
    Join(String),
    /// Leave a group.
    Leave(String),
    /// Close the connection.
    Close(Close),
}

/// An invocation that the client has not completed. Dropping it discards the completion.
#[derive(Debug)]
pub(super) struct PendingInvocation {
    hub: Arc<Hub>,
    connection: String,
    id: String,
    completion: oneshot::Receiver<Result<Value, String>>,
}

impl Hub {
    /// Adds a connection, with the groups of its user.
    pub(super) fn connect(
        &self,
        id: &str,
        user: Option<&str>,
        authentication: Authentication,
        deliveries: DeliverySender,
        now: Instant,
    ) {
        self.membership().connect(id, user, authentication, deliveries, now);
    }

    /// Returns the claims of the connection with this token.
    pub(super) fn claims(&self, token: &str) -> Option<Vec<Claim>> {
        self.membership().claims(token)
    }

    /// Replaces the expiry and the claims of the connection with this token, each if it is given. Returns the claims.
    pub(super) fn refresh(
        &self,
        token: &str,
        expires: Option<OffsetDateTime>,
        claims: Option<Vec<Claim>>,
    ) -> Result<Vec<Claim>, RefreshError> {
        self.membership().refresh(token, expires, claims)
    }

    /// Removes a connection.
    pub(super) fn disconnect(&self, connection: &str) {
        self.membership().disconnect(connection);
    }

    /// Returns the number of connections.
    pub(super) fn connection_count(&self) -> usize {
        self.membership().len()
    }

    /// Returns the number of connections and the first `limit` of them.
    pub(crate) fn first(&self, limit: usize, now: Instant) -> (usize, Vec<ConnectionInfo>) {
        let membership = self.membership();
        (membership.len(), membership.first(limit, now))
    }

    /// Sends a message to the selected connections except the excluded ones. Returns how many queues accepted it.
    pub(super) fn send(
        &self,
        selector: Selector<'_>,
        message: &Arc<Message>,
        excluded: &[String],
        now: Instant,
    ) -> usize {
        self.membership().deliver(selector, &Delivery::Message(Arc::clone(message)), excluded, now)
    }

    /// Queues a delivery for one connection. Returns `false` if there is no such connection, or its queue is full.
    pub(super) fn deliver(&self, connection: &str, delivery: &Delivery, now: Instant) -> bool {
        self.membership().deliver(Selector::Connection(connection), delivery, &[], now) == 1
    }

    /// Closes the selected connections except the excluded ones. Returns how many it closed.
    pub(super) fn close(&self, selector: Selector<'_>, excluded: &[String], close: &Close, now: Instant) -> usize {
        let mut membership = self.membership();
        membership.ids(selector, excluded, now).iter().filter(|id| membership.close(id, close.clone())).count()
    }

    /// Returns whether any connection is selected.
    pub(super) fn exists(&self, selector: Selector<'_>, now: Instant) -> bool {
        self.membership().exists(selector, now)
    }

    /// Returns whether a user is in a group, connected or not.
    pub(super) fn user_in_group(&self, user: &str, group: &str, now: Instant) -> bool {
        self.membership().user_in_group(user, group, now)
    }

    /// Adds a connection to a group. Returns `false` if there is no such connection.
    pub(crate) fn add_connection(&self, connection: &str, group: &str) -> bool {
        self.membership().add_connection(connection, group)
    }

    /// Removes a connection from a group. Returns `false` if there is no such connection.
    pub(super) fn remove_connection(&self, connection: &str, group: &str) -> bool {
        self.membership().remove_connection(connection, group)
    }

    /// Removes a connection from all groups. Returns `false` if there is no such connection.
    pub(super) fn remove_connection_from_all(&self, connection: &str) -> bool {
        self.membership().remove_connection_from_all(connection)
    }

    /// Adds the connections of a user to a group. `ttl` determines whether and how long later connections join.
    pub(super) fn add_user(&self, user: &str, group: &str, ttl: GroupTtl, now: Instant) {
        self.membership().add_user(user, group, ttl, now);
    }

    /// Removes a user and all its connections from a group.
    pub(super) fn remove_user(&self, user: &str, group: &str) {
        self.membership().remove_user(user, group);
    }

    /// Removes a user and all its connections from all groups.
    pub(super) fn remove_user_from_all(&self, user: &str) {
        self.membership().remove_user_from_all(user);
    }

    /// Returns up to `limit` connections of a group whose ids are greater than `after`, ordered by id.
    pub(super) fn list(&self, group: &str, after: Option<&str>, limit: usize, now: Instant) -> Page {
        self.membership().list(group, after, limit, now)
    }

    /// Executes commands for all connections that match a filter. Returns their number.
    pub(super) fn execute(&self, filter: Option<&Filter>, commands: &[Command], now: Instant) -> usize {
        let mut membership = self.membership();
        let ids = membership.filtered(filter, now);
        for command in commands {
            for id in &ids {
                match command {
                    Command::Send(message) => {
                        let message = Delivery::Message(Arc::clone(message));
                        membership.deliver(Selector::Connection(id), &message, &[], now);
                    }
                    Command::Join(group) => drop(membership.add_connection(id, group)),
                    Command::Leave(group) => drop(membership.remove_connection(id, group)),
                    Command::Close(close) => drop(membership.close(id, close.clone())),
                }
            }
        }
        ids.len()
    }

    /// Invokes a method of a client. Returns `None` if there is no such connection, or its queue is full.
    pub(super) fn invoke(
        self: &Arc<Self>,
        connection: &str,
        message: Arc<Message>,
        now: Instant,
    ) -> Option<PendingInvocation> {
        let id = random_string();
        let (sender, completion) = oneshot::channel();
        let mut membership = self.membership();
        let invocation = Delivery::Invoke { id: id.clone(), message };
        if membership.deliver(Selector::Connection(connection), &invocation, &[], now) == 0 {
            return None;
        }
        membership.insert_invocation(connection, &id, sender);
        drop(membership);
        Some(PendingInvocation { hub: Arc::clone(self), connection: connection.to_owned(), id, completion })
    }

    /// Completes an invocation of a client. Returns `false` if that client has no such pending invocation.
    pub(super) fn complete(&self, connection: &str, invocation: &str, result: Result<Value, String>) -> bool {
        let pending = self.membership().take_invocation(connection, invocation);
        pending.is_some_and(|completion| completion.send(result).is_ok())
    }

    fn membership(&self) -> MutexGuard<'_, Membership> {
        self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingInvocation {
    /// Waits for the client's completion. Returns `None` if the client disconnects first.
    ///
    /// # Cancel safety
    /// Safe: the completion can be awaited again.
    pub(super) async fn completion(&mut self) -> Option<Result<Value, String>> {
        (&mut self.completion).await.ok()
    }
}

impl Drop for PendingInvocation {
    fn drop(&mut self) {
        drop(self.hub.membership().take_invocation(&self.connection, &self.id));
    }
}

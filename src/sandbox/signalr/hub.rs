//! One hub: its membership behind a lock, so that each call applies to all its connections at once. Knows no HTTP, tokens
//! or transports. The caller passes the time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rmpv::Value;
use tokio::sync::oneshot;

use super::delivery::{Close, Delivery, DeliverySender};
use super::filter::Filter;
use super::membership::{Audience, ConnectionInfo, GroupTtl, Membership, Page};
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

/// An invocation whose completion is awaited. Dropping it discards the completion.
#[derive(Debug)]
pub(super) struct PendingInvocation {
    hub: Arc<Hub>,
    connection: String,
    id: String,
    completion: oneshot::Receiver<Result<Value, String>>,
}

impl Hub {
    /// Adds a connection, with the groups of its user.
    pub(super) fn connect(&self, id: &str, user: Option<&str>, deliveries: DeliverySender, now: Instant) {
        self.membership().connect(id, user, deliveries, now);
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

    /// Sends a message to an audience except the excluded connections, and returns how many queues took it.
    pub(super) fn send(&self, to: Audience<'_>, message: &Arc<Message>, excluded: &[String], now: Instant) -> usize {
        self.membership().deliver(to, &Delivery::Message(Arc::clone(message)), excluded, now)
    }

    /// Queues a delivery for one connection. Returns `false` if there is no such connection.
    pub(super) fn deliver(&self, connection: &str, delivery: &Delivery, now: Instant) -> bool {
        self.membership().deliver(Audience::Connection(connection), delivery, &[], now) == 1
    }

    /// Closes the connections of an audience except the excluded ones, and returns how many.
    pub(super) fn close(&self, audience: Audience<'_>, excluded: &[String], close: &Close, now: Instant) -> usize {
        let mut membership = self.membership();
        membership.ids(audience, excluded, now).iter().filter(|id| membership.close(id, close.clone())).count()
    }

    /// Returns whether an audience has any connection.
    pub(super) fn exists(&self, audience: Audience<'_>, now: Instant) -> bool {
        self.membership().exists(audience, now)
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

    /// Adds the connections of a user to a group, and its later ones as `ttl` says.
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

    /// Returns up to `limit` connections of a group, ordered by id and starting behind the id `after`.
    pub(super) fn list(&self, group: &str, after: Option<&str>, limit: usize, now: Instant) -> Page {
        self.membership().list(group, after, limit, now)
    }

    /// Executes commands for all connections that match a filter, under one lock, and returns their number.
    pub(super) fn execute(&self, filter: Option<&Filter>, commands: &[Command], now: Instant) -> usize {
        let mut membership = self.membership();
        let ids = membership.filtered(filter, now);
        for command in commands {
            for id in &ids {
                match command {
                    Command::Send(message) => {
                        let message = Delivery::Message(Arc::clone(message));
                        membership.deliver(Audience::Connection(id), &message, &[], now);
                    }
                    Command::Join(group) => drop(membership.add_connection(id, group)),
                    Command::Leave(group) => drop(membership.remove_connection(id, group)),
                    Command::Close(close) => drop(membership.close(id, close.clone())),
                }
            }
        }
        ids.len()
    }

    /// Invokes a method of a client. Returns `None` if there is no such connection.
    pub(super) fn invoke(self: &Arc<Self>, to: &str, message: Arc<Message>, now: Instant) -> Option<PendingInvocation> {
        let id = random_string();
        let (sender, completion) = oneshot::channel();
        let mut membership = self.membership();
        let invocation = Delivery::Invoke { id: id.clone(), message };
        if membership.deliver(Audience::Connection(to), &invocation, &[], now) == 0 {
            return None;
        }
        membership.insert_invocation(to, &id, sender);
        drop(membership);
        Some(PendingInvocation { hub: Arc::clone(self), connection: to.to_owned(), id, completion })
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
    /// Returns the client's completion, or `None` if the client disconnects first.
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

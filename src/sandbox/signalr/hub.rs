//! The hubs of one endpoint: each is a roster behind a lock, so that what one call does happens at once for all its
//! connections. Knows no HTTP, no tokens and no transport; time is passed in. Hub names are compared without case.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use rmpv::Value;
use tokio::sync::oneshot;

use super::connection::{Close, Connection, Delivery, connection};
use super::filter::Filter;
use super::message::Message;
use super::roster::{Audience, Page, Roster, Seen, Stay};
use crate::sandbox::crypto::ids::unique;

/// The hubs of one endpoint, made when first needed.
#[derive(Debug, Default)]
pub struct Hubs(Mutex<HashMap<String, Arc<Hub>>>);

/// One hub.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    roster: Mutex<Roster>,
}

/// One command of `:execute`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Command {
    /// Send a message.
    Send(Arc<Message>),
    /// Join a group.
    Join(String),
    /// Leave a group.
    Leave(String),
    /// Close the connection.
    Close(Close),
}

/// A call under way. Dropped before the answer, it is forgotten.
#[derive(Debug)]
pub(crate) struct PendingCall {
    hub: Arc<Hub>,
    connection: String,
    id: String,
    answer: oneshot::Receiver<Result<Value, String>>,
}

impl Hubs {
    /// The hub with this name, which is made if there is none yet.
    pub(crate) fn hub(&self, name: &str) -> Arc<Hub> {
        Arc::clone(self.hubs().entry(name.to_ascii_lowercase()).or_default())
    }

    /// The hub with this name, empty and forgotten if there is none: for calls that only look or send.
    pub(crate) fn existing(&self, name: &str) -> Arc<Hub> {
        self.hubs().get(&name.to_ascii_lowercase()).map(Arc::clone).unwrap_or_default()
    }

    /// Makes a hub, with users in groups before any of them connects.
    pub(crate) fn prepare(&self, name: &str, users: &[(String, Vec<String>)], now: Instant) {
        let hub = self.hub(name);
        for (user, groups) in users {
            for group in groups {
                hub.user_join(user, group, Stay::Lasting, now);
            }
        }
    }

    /// Connects a client to a hub, as `user` if it names one.
    pub fn connect(&self, hub: &str, user: Option<&str>) -> Connection {
        self.hub(hub).connect(user, Instant::now())
    }

    /// How many connections each hub has.
    pub fn connection_counts(&self) -> BTreeMap<String, usize> {
        self.hubs().iter().map(|(name, hub)| (name.clone(), hub.roster().len())).collect()
    }

    fn hubs(&self) -> MutexGuard<'_, HashMap<String, Arc<Hub>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Hub {
    /// Connects a client. It is in its user's groups at once.
    pub(crate) fn connect(self: &Arc<Self>, user: Option<&str>, now: Instant) -> Connection {
        self.connect_as(&unique(), user, now)
    }

    /// Connects a client under an id that it was given before.
    pub(crate) fn connect_as(self: &Arc<Self>, id: &str, user: Option<&str>, now: Instant) -> Connection {
        let (outbox, connection) = connection(Arc::clone(self), id.to_owned(), user.map(str::to_owned));
        self.roster().connect(id, user, outbox, now);
        connection
    }

    /// How many are connected, and the first of them, up to `limit`.
    pub(crate) fn first(&self, limit: usize, now: Instant) -> (usize, Vec<Seen>) {
        let roster = self.roster();
        (roster.len(), roster.first(limit, now))
    }

    /// The client is gone.
    pub(crate) fn disconnect(&self, connection: &str) {
        self.roster().disconnect(connection);
    }

    /// Sends a message to an audience but for the excluded connections, and returns how many it was queued for.
    pub(crate) fn send(&self, to: Audience<'_>, message: &Arc<Message>, excluded: &[String], now: Instant) -> usize {
        self.roster().deliver(to, &Delivery::Message(Arc::clone(message)), excluded, now)
    }

    /// Sends something that is neither a message nor a close to one connection. `false` if there is no such one.
    pub(crate) fn deliver(&self, connection: &str, delivery: &Delivery, now: Instant) -> bool {
        self.roster().deliver(Audience::Connection(connection), delivery, &[], now) == 1
    }

    /// Closes the connections of an audience but for the excluded ones, and returns how many.
    pub(crate) fn close(&self, whom: Audience<'_>, excluded: &[String], close: &Close, now: Instant) -> usize {
        let mut roster = self.roster();
        roster.ids(whom, excluded, now).iter().filter(|id| roster.close(id, close.clone())).count()
    }

    /// Whether an audience has anyone in it.
    pub(crate) fn exists(&self, whom: Audience<'_>, now: Instant) -> bool {
        self.roster().exists(whom, now)
    }

    /// Whether a user is in a group, connected or not.
    pub(crate) fn user_in_group(&self, user: &str, group: &str, now: Instant) -> bool {
        self.roster().user_in_group(user, group, now)
    }

    /// Puts a connection into a group. `false` if there is no such connection.
    pub(crate) fn join(&self, connection: &str, group: &str) -> bool {
        self.roster().join(connection, group)
    }

    /// Takes a connection out of a group. `false` if there is no such connection.
    pub(crate) fn leave(&self, connection: &str, group: &str) -> bool {
        self.roster().leave(connection, group)
    }

    /// Takes a connection out of all groups. `false` if there is no such connection.
    pub(crate) fn leave_all(&self, connection: &str) -> bool {
        self.roster().leave_all(connection)
    }

    /// Puts a user into a group: its connections, and those to come if `stay` says so.
    pub(crate) fn user_join(&self, user: &str, group: &str, stay: Stay, now: Instant) {
        self.roster().user_join(user, group, stay, now);
    }

    /// Takes a user, and all its connections, out of a group.
    pub(crate) fn user_leave(&self, user: &str, group: &str) {
        self.roster().user_leave(user, group);
    }

    /// Takes a user, and all its connections, out of all groups.
    pub(crate) fn user_leave_all(&self, user: &str) {
        self.roster().user_leave_all(user);
    }

    /// Lists up to `limit` connections of a group whose ids come after `after`.
    pub(crate) fn list(&self, group: &str, after: Option<&str>, limit: usize, now: Instant) -> Page {
        self.roster().list(group, after, limit, now)
    }

    /// Carries out commands for all connections that a filter lets pass, with nothing in between, and returns how
    /// many they were.
    pub(crate) fn execute(&self, filter: Option<&Filter>, commands: &[Command], now: Instant) -> usize {
        let mut roster = self.roster();
        let ids = roster.filtered(filter, now);
        for command in commands {
            for id in &ids {
                match command {
                    Command::Send(message) => {
                        let message = Delivery::Message(Arc::clone(message));
                        roster.deliver(Audience::Connection(id), &message, &[], now);
                    }
                    Command::Join(group) => drop(roster.join(id, group)),
                    Command::Leave(group) => drop(roster.leave(id, group)),
                    Command::Close(close) => drop(roster.close(id, close.clone())),
                }
            }
        }
        ids.len()
    }

    /// Calls a client. `None` if there is no such connection.
    pub(crate) fn invoke(self: &Arc<Self>, to: &str, message: Arc<Message>, now: Instant) -> Option<PendingCall> {
        let id = unique();
        let (sender, answer) = oneshot::channel();
        let mut roster = self.roster();
        let call = Delivery::Invoke { id: id.clone(), message };
        if roster.deliver(Audience::Connection(to), &call, &[], now) == 0 {
            return None;
        }
        roster.expect_answer(to, &id, sender);
        drop(roster);
        Some(PendingCall { hub: Arc::clone(self), connection: to.to_owned(), id, answer })
    }

    /// A client answers a call. `false` if nobody waits for it, or waits for another client's answer.
    pub(crate) fn complete(&self, connection: &str, call: &str, result: Result<Value, String>) -> bool {
        let answer = self.roster().take_call(connection, call);
        answer.is_some_and(|answer| answer.send(result).is_ok())
    }

    fn roster(&self) -> MutexGuard<'_, Roster> {
        self.roster.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PendingCall {
    /// The client's answer; `None` if it went away before.
    ///
    /// # Cancel safety
    /// Safe: the answer can be awaited again.
    pub(crate) async fn answer(&mut self) -> Option<Result<Value, String>> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        drop(self.hub.roster().take_call(&self.connection, &self.id));
    }
}

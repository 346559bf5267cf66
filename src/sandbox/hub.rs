//! The hubs of one endpoint: who is connected, as which user, in which groups, and what reaches whom. Knows no HTTP,
//! no tokens and no transport; time is passed in.
//!
//! Users and groups are told apart by case, hubs are not. A group belongs to a hub. A connection can be in a group
//! by itself and through its user, and gets a message once all the same.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rmpv::Value;
use tokio::sync::oneshot;

use super::connection::{Close, Connection, Delivery, Outbox, connection};
use super::filter::Filter;
use super::message::Message;
use super::token::unique;

/// How many groups without an end a user keeps; the oldest goes first.
///
/// Source: description of `ttl` in the data-plane swagger of 2024-12-01.
const MAX_LASTING_GROUPS: usize = 100;

/// How long a group without an end is kept for a user. Source: as above.
const LASTING: Duration = Duration::from_secs(365 * 24 * 3600);

/// The hubs of one endpoint, made when first needed.
#[derive(Debug, Default)]
pub struct Hubs(Mutex<HashMap<String, Arc<Hub>>>);

/// One hub.
#[derive(Debug, Default)]
pub(super) struct Hub {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    connections: BTreeMap<String, Member>,
    user_groups: HashMap<String, Vec<UserGroup>>,
    calls: HashMap<String, Call>,
}

/// A connected client.
#[derive(Debug)]
struct Member {
    user: Option<String>,
    groups: HashMap<String, Membership>,
    outbox: Outbox,
}

/// How a connection is in a group.
#[derive(Clone, Copy, Debug, Default)]
struct Membership {
    by_itself: bool,
    through_user: Option<Until>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    Disconnected,
    At(Instant),
}

/// A group that a user is in, connected or not.
#[derive(Debug)]
struct UserGroup {
    group: String,
    until: Instant,
    lasting: bool,
}

/// A call that a client is to answer.
#[derive(Debug)]
struct Call {
    connection: String,
    answer: oneshot::Sender<Result<Value, String>>,
}

/// Whom something is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Audience<'a> {
    /// Everyone in the hub.
    All,
    /// The connections of a user.
    User(&'a str),
    /// The connections in a group.
    Group(&'a str),
    /// One connection.
    Connection(&'a str),
}

/// For how long a user is added to a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stay {
    /// No end was said.
    Lasting,
    /// The connections that the user has now, and no later ones.
    ConnectedNow,
    /// A time.
    For(Duration),
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

/// A call under way. Dropped before the answer, it is forgotten.
pub(super) struct PendingCall {
    hub: Arc<Hub>,
    id: String,
    answer: oneshot::Receiver<Result<Value, String>>,
}

/// The members of a group, one page of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// Connection ids with their users, in the order of the ids.
    pub(super) members: Vec<(String, Option<String>)>,
    /// Whether there are more.
    pub(super) more: bool,
}

impl Hubs {
    /// The hub with this name, which is made if there is none yet. Names are compared without case.
    pub(super) fn hub(&self, name: &str) -> Arc<Hub> {
        let mut hubs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hubs.entry(name.to_ascii_lowercase()).or_default())
    }

    /// The hub with this name, empty and forgotten if there is none: for calls that only look or send.
    pub(super) fn existing(&self, name: &str) -> Arc<Hub> {
        let hubs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hubs.get(&name.to_ascii_lowercase()).map(Arc::clone).unwrap_or_default()
    }

    /// Connects a client to a hub, as `user` if it names one.
    pub fn connect(&self, hub: &str, user: Option<&str>) -> Connection {
        self.hub(hub).connect(user, Instant::now())
    }

    /// How many connections each hub has.
    pub fn connection_counts(&self) -> BTreeMap<String, usize> {
        let hubs = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        hubs.iter().map(|(name, hub)| (name.clone(), hub.state().connections.len())).collect()
    }
}

impl Hub {
    /// Connects a client. It is in its user's groups at once.
    pub(super) fn connect(self: &Arc<Self>, user: Option<&str>, now: Instant) -> Connection {
        let id = unique();
        let (outbox, connection) = connection(Arc::clone(self), id.clone(), user.map(str::to_owned));
        let mut state = self.state();
        let groups = user.and_then(|user| state.user_groups.get(user)).map(|groups| {
            let live = groups.iter().filter(|group| group.until > now);
            let through = |until| Membership { by_itself: false, through_user: Some(Until::At(until)) };
            live.map(|group| (group.group.clone(), through(group.until))).collect()
        });
        let member = Member { user: user.map(str::to_owned), groups: groups.unwrap_or_default(), outbox };
        state.connections.insert(id, member);
        connection
    }

    /// The client is gone. What it was in ends; what its user is in stays.
    pub(super) fn disconnect(&self, connection: &str) {
        let mut state = self.state();
        state.connections.remove(connection);
        state.calls.retain(|_, call| call.connection != connection);
    }

    /// Sends a message to an audience but for the excluded connections, and returns how many it was queued for.
    pub(super) fn send(&self, to: Audience<'_>, message: &Arc<Message>, excluded: &[String], now: Instant) -> usize {
        let mut state = self.state();
        let ids = state.members(to, excluded, now);
        ids.iter().filter(|id| state.deliver(id, Delivery::Message(Arc::clone(message)))).count()
    }

    /// Closes the connections of an audience but for the excluded ones, and returns how many.
    pub(super) fn close(&self, whom: Audience<'_>, excluded: &[String], close: &Close, now: Instant) -> usize {
        let mut state = self.state();
        let ids = state.members(whom, excluded, now);
        ids.iter().filter(|id| state.close(id, close.clone())).count()
    }

    /// Whether an audience has anyone in it.
    pub(super) fn exists(&self, whom: Audience<'_>, now: Instant) -> bool {
        let state = self.state();
        state.connections.iter().any(|(id, member)| member.is_in(id, whom, now))
    }

    /// Whether a user is in a group, connected or not.
    pub(super) fn user_in_group(&self, user: &str, group: &str, now: Instant) -> bool {
        let state = self.state();
        let kept = state.user_groups.get(user).into_iter().flatten();
        kept.into_iter().any(|kept| kept.group == group && kept.until > now)
            || state.connections.values().any(|member| {
                member.user.as_deref() == Some(user)
                    && member.groups.get(group).is_some_and(|membership| membership.through_user_live(now))
            })
    }

    /// Puts a connection into a group. `false` if there is no such connection.
    pub(super) fn join(&self, connection: &str, group: &str) -> bool {
        self.state().join(connection, group)
    }

    /// Takes a connection out of a group. `false` if there is no such connection.
    pub(super) fn leave(&self, connection: &str, group: &str) -> bool {
        self.state().connections.get_mut(connection).map(|member| member.groups.remove(group)).is_some()
    }

    /// Takes a connection out of all groups. `false` if there is no such connection.
    pub(super) fn leave_all(&self, connection: &str) -> bool {
        self.state().connections.get_mut(connection).map(|member| member.groups.clear()).is_some()
    }

    /// Puts a user into a group: its connections, and those to come if `stay` says so.
    pub(super) fn user_join(&self, user: &str, group: &str, stay: Stay, now: Instant) {
        let mut state = self.state();
        let through = match stay {
            Stay::ConnectedNow => Until::Disconnected,
            Stay::Lasting => Until::At(now + LASTING),
            Stay::For(time) => Until::At(now + time),
        };
        if let Until::At(until) = through {
            state.keep_user_group(
                user,
                UserGroup { group: group.to_owned(), until, lasting: stay == Stay::Lasting },
                now,
            );
        }
        for member in state.connections.values_mut().filter(|member| member.user.as_deref() == Some(user)) {
            member.groups.entry(group.to_owned()).or_default().through_user = Some(through);
        }
    }

    /// Takes a user, and all its connections, out of a group. What they joined by themselves ends too, as in the
    /// official emulator.
    pub(super) fn user_leave(&self, user: &str, group: &str) {
        let mut state = self.state();
        if let Some(groups) = state.user_groups.get_mut(user) {
            groups.retain(|kept| kept.group != group);
        }
        for member in state.connections.values_mut().filter(|member| member.user.as_deref() == Some(user)) {
            member.groups.remove(group);
        }
    }

    /// Takes a user, and all its connections, out of all groups.
    pub(super) fn user_leave_all(&self, user: &str) {
        let mut state = self.state();
        state.user_groups.remove(user);
        for member in state.connections.values_mut().filter(|member| member.user.as_deref() == Some(user)) {
            member.groups.clear();
        }
    }

    /// Lists up to `limit` connections of a group whose ids come after `after`.
    pub(super) fn list(&self, group: &str, after: Option<&str>, limit: usize, now: Instant) -> Page {
        let state = self.state();
        let mut members = state
            .connections
            .iter()
            .filter(|(id, member)| {
                after.is_none_or(|after| id.as_str() > after) && member.is_in(id, Audience::Group(group), now)
            })
            .map(|(id, member)| (id.clone(), member.user.clone()));
        let page: Vec<_> = members.by_ref().take(limit).collect();
        Page { members: page, more: members.next().is_some() }
    }

    /// Carries out commands for all connections that a filter lets pass, with nothing in between.
    pub(super) fn execute(&self, filter: Option<&Filter>, commands: &[Command], now: Instant) -> usize {
        let mut state = self.state();
        let passes = |(id, member): &(&String, &Member)| {
            let groups: Vec<&str> =
                member.groups.keys().map(String::as_str).filter(|g| member.in_group(g, now)).collect();
            filter.is_none_or(|filter| filter.passes(id, member.user.as_deref(), &groups))
        };
        let ids: Vec<String> = state.connections.iter().filter(passes).map(|(id, _)| id.clone()).collect();
        for command in commands {
            for id in &ids {
                match command {
                    Command::Send(message) => drop(state.deliver(id, Delivery::Message(Arc::clone(message)))),
                    Command::Join(group) => drop(state.join(id, group)),
                    Command::Leave(group) => {
                        if let Some(member) = state.connections.get_mut(id) {
                            member.groups.remove(group);
                        }
                    }
                    Command::Close(close) => drop(state.close(id, close.clone())),
                }
            }
        }
        ids.len()
    }

    /// Sends something that is neither a message nor a close to one connection. `false` if there is no such one.
    pub(super) fn deliver(&self, connection: &str, delivery: Delivery) -> bool {
        self.state().deliver(connection, delivery)
    }

    /// Calls a client. `None` if there is no such connection.
    pub(super) fn invoke(self: &Arc<Self>, connection: &str, message: Arc<Message>) -> Option<PendingCall> {
        let mut state = self.state();
        let id = unique();
        let (answer, receiver) = oneshot::channel();
        if !state.deliver(connection, Delivery::Invoke { id: id.clone(), message }) {
            return None;
        }
        state.calls.insert(id.clone(), Call { connection: connection.to_owned(), answer });
        Some(PendingCall { hub: Arc::clone(self), id, answer: receiver })
    }

    /// A client answers a call. `false` if nobody waits for it, or waits for another client's answer.
    pub(super) fn complete(&self, connection: &str, invocation: &str, result: Result<Value, String>) -> bool {
        let mut state = self.state();
        if state.calls.get(invocation).is_none_or(|call| call.connection != connection) {
            return false;
        }
        state.calls.remove(invocation).is_some_and(|call| call.answer.send(result).is_ok())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn members(&self, of: Audience<'_>, excluded: &[String], now: Instant) -> Vec<String> {
        if let Audience::Connection(id) = of {
            let found = self.connections.contains_key(id) && !excluded.iter().any(|excluded| excluded == id);
            return found.then(|| id.to_owned()).into_iter().collect();
        }
        self.connections
            .iter()
            .filter(|(id, member)| member.is_in(id, of, now) && !excluded.contains(id))
            .map(|(id, _)| id.clone())
            .collect()
    }

    fn deliver(&mut self, connection: &str, delivery: Delivery) -> bool {
        let Some(member) = self.connections.get(connection) else {
            return false;
        };
        if member.outbox.push(delivery) {
            return true;
        }
        let reason = Some(String::from("the client does not read what it is sent"));
        self.close(connection, Close { reason, allow_reconnect: false });
        false
    }

    fn close(&mut self, connection: &str, close: Close) -> bool {
        self.calls.retain(|_, call| call.connection != connection);
        self.connections.remove(connection).map(|member| member.outbox.close(close)).is_some()
    }

    fn join(&mut self, connection: &str, group: &str) -> bool {
        let member = self.connections.get_mut(connection);
        member.map(|member| member.groups.entry(group.to_owned()).or_default().by_itself = true).is_some()
    }

    fn keep_user_group(&mut self, user: &str, group: UserGroup, now: Instant) {
        let groups = self.user_groups.entry(user.to_owned()).or_default();
        groups.retain(|kept| kept.until > now && kept.group != group.group);
        groups.push(group);
        if groups.iter().filter(|kept| kept.lasting).count() <= MAX_LASTING_GROUPS {
            return;
        }
        let Some(oldest) = groups.iter().position(|kept| kept.lasting) else { return };
        let dropped = groups.remove(oldest).group;
        for member in self.connections.values_mut().filter(|member| member.user.as_deref() == Some(user)) {
            if let Some(membership) = member.groups.get_mut(&dropped) {
                membership.through_user = None;
            }
        }
    }
}

impl Member {
    fn is_in(&self, id: &str, whom: Audience<'_>, now: Instant) -> bool {
        match whom {
            Audience::All => true,
            Audience::User(user) => self.user.as_deref() == Some(user),
            Audience::Group(group) => self.in_group(group, now),
            Audience::Connection(connection) => id == connection,
        }
    }

    fn in_group(&self, group: &str, now: Instant) -> bool {
        let membership = self.groups.get(group);
        membership.is_some_and(|membership| membership.by_itself || membership.through_user_live(now))
    }
}

impl Membership {
    fn through_user_live(&self, now: Instant) -> bool {
        match self.through_user {
            Some(Until::At(until)) => until > now,
            Some(Until::Disconnected) => true,
            None => false,
        }
    }
}

impl PendingCall {
    /// The client's answer; `None` if it went away before.
    pub(super) async fn answer(&mut self) -> Option<Result<Value, String>> {
        (&mut self.answer).await.ok()
    }
}

impl Drop for PendingCall {
    fn drop(&mut self) {
        self.hub.state().calls.remove(&self.id);
    }
}

//! Who is connected to one hub, as which user and in which groups: plain state without a lock, a clock or HTTP.
//!
//! Users and groups are told apart by case. A connection can be in a group by itself and through its user, and gets
//! a message once all the same.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rmpv::Value;
use tokio::sync::oneshot;

use super::connection::{Close, Delivery, Outbox};
use super::filter::Filter;

/// How many groups without an end a user keeps; the oldest goes first.
///
/// Source: description of `ttl` in the data-plane swagger of 2024-12-01.
pub(crate) const MAX_LASTING_GROUPS: usize = 100;

/// How long a group without an end is kept for a user. Source: as above.
const LASTING: Duration = Duration::from_secs(365 * 24 * 3600);

/// Who is connected, and what users are in.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    /// The connections by their ids, in the order in which lists show them.
    connections: BTreeMap<String, Member>,
    /// What users are in, connected or not.
    user_groups: HashMap<String, Vec<UserGroup>>,
}

/// A connected client.
#[derive(Debug)]
struct Member {
    user: Option<String>,
    groups: HashMap<String, Membership>,
    outbox: Outbox,
    /// Calls that it is to answer. They end with it.
    calls: HashMap<String, Answer>,
}

/// Where the answer to a call goes.
pub(crate) type Answer = oneshot::Sender<Result<Value, String>>;

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

#[derive(Debug)]
struct UserGroup {
    group: String,
    until: Instant,
    lasting: bool,
}

/// Whom something is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Audience<'a> {
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
pub(crate) enum Stay {
    /// No end was said.
    Lasting,
    /// The connections that the user has now, and no later ones.
    ConnectedNow,
    /// A time.
    For(Duration),
}

/// A connected client, as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// The connection id.
    pub(crate) id: String,
    /// The user, if the client named one.
    pub(crate) user: Option<String>,
    /// The groups that it is in, in their order.
    pub(crate) groups: Vec<String>,
}

/// The members of a group, one page of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    /// Connection ids with their users, in the order of the ids.
    pub(crate) members: Vec<(String, Option<String>)>,
    /// Whether there are more.
    pub(crate) more: bool,
}

impl Roster {
    /// Adds a connection. It is in its user's groups at once.
    pub(crate) fn connect(&mut self, id: &str, user: Option<&str>, outbox: Outbox, now: Instant) {
        let kept = user.and_then(|user| self.user_groups.get(user)).into_iter().flatten();
        let groups = kept.filter(|kept| kept.until > now).map(|kept| {
            let membership = Membership { by_itself: false, through_user: Some(Until::At(kept.until)) };
            (kept.group.clone(), membership)
        });
        let member = Member { groups: groups.collect(), user: user.map(str::to_owned), outbox, calls: HashMap::new() };
        self.connections.insert(id.to_owned(), member);
    }

    /// Takes a connection out. What it was in ends; what its user is in stays.
    pub(crate) fn disconnect(&mut self, connection: &str) {
        self.connections.remove(connection);
    }

    /// How many are connected.
    pub(crate) fn len(&self) -> usize {
        self.connections.len()
    }

    /// The first connections, up to `limit`.
    pub(crate) fn first(&self, limit: usize, now: Instant) -> Vec<Seen> {
        let seen = |(id, member): (&String, &Member)| {
            let mut groups: Vec<_> =
                member.groups.keys().filter(|group| member.in_group(group, now)).cloned().collect();
            groups.sort_unstable();
            Seen { id: id.clone(), user: member.user.clone(), groups }
        };
        self.connections.iter().take(limit).map(seen).collect()
    }

    /// The ids of an audience but for the excluded ones.
    pub(crate) fn ids(&self, of: Audience<'_>, excluded: &[String], now: Instant) -> Vec<String> {
        let members = self.connections.iter().filter(|(id, member)| member.is_in(id, of, now));
        members.filter(|(id, _)| !excluded.contains(id)).map(|(id, _)| id.clone()).collect()
    }

    /// The ids that a filter lets pass; all of them without one.
    pub(crate) fn filtered(&self, filter: Option<&Filter>, now: Instant) -> Vec<String> {
        let passes = |id: &str, member: &Member| {
            let groups = member.groups.keys().map(String::as_str).filter(|group| member.in_group(group, now));
            let groups: Vec<&str> = groups.collect();
            filter.is_none_or(|filter| filter.passes(id, member.user.as_deref(), &groups))
        };
        self.connections.iter().filter(|(id, member)| passes(id, member)).map(|(id, _)| id.clone()).collect()
    }

    /// Whether an audience has anyone in it.
    pub(crate) fn exists(&self, whom: Audience<'_>, now: Instant) -> bool {
        self.connections.iter().any(|(id, member)| member.is_in(id, whom, now))
    }

    /// Queues a delivery for an audience but for the excluded connections, and returns how many get it. Whoever lets
    /// too much pile up is closed.
    pub(crate) fn deliver(
        &mut self,
        to: Audience<'_>,
        delivery: &Delivery,
        excluded: &[String],
        now: Instant,
    ) -> usize {
        let (mut reached, mut stuck) = (0, Vec::new());
        let members = self.connections.iter().filter(|(id, member)| member.is_in(id, to, now));
        for (id, member) in members.filter(|(id, _)| !excluded.contains(id)) {
            if member.outbox.push(delivery.clone()) {
                reached += 1;
            } else {
                stuck.push(id.clone());
            }
        }
        for id in stuck {
            let reason = Some(String::from("the client does not read what it is sent"));
            self.close(&id, Close { reason, allow_reconnect: false });
        }
        reached
    }

    /// Closes a connection. `false` if there is no such one.
    pub(crate) fn close(&mut self, connection: &str, close: Close) -> bool {
        self.connections.remove(connection).map(|member| member.outbox.close(close)).is_some()
    }

    /// Remembers a call that a connection is to answer.
    pub(crate) fn expect_answer(&mut self, connection: &str, call: &str, answer: Answer) {
        if let Some(member) = self.connections.get_mut(connection) {
            member.calls.insert(call.to_owned(), answer);
        }
    }

    /// Takes a call that a connection was to answer.
    pub(crate) fn take_call(&mut self, connection: &str, call: &str) -> Option<Answer> {
        self.connections.get_mut(connection)?.calls.remove(call)
    }

    /// Puts a connection into a group. `false` if there is no such connection.
    pub(crate) fn join(&mut self, connection: &str, group: &str) -> bool {
        let member = self.connections.get_mut(connection);
        member.map(|member| member.groups.entry(group.to_owned()).or_default().by_itself = true).is_some()
    }

    /// Takes a connection out of a group. `false` if there is no such connection.
    pub(crate) fn leave(&mut self, connection: &str, group: &str) -> bool {
        self.connections.get_mut(connection).map(|member| member.groups.remove(group)).is_some()
    }

    /// Takes a connection out of all groups. `false` if there is no such connection.
    pub(crate) fn leave_all(&mut self, connection: &str) -> bool {
        self.connections.get_mut(connection).map(|member| member.groups.clear()).is_some()
    }

    /// Puts a user into a group: its connections, and those to come if `stay` says so.
    pub(crate) fn user_join(&mut self, user: &str, group: &str, stay: Stay, now: Instant) {
        let through = match stay {
            Stay::ConnectedNow => Until::Disconnected,
            Stay::Lasting => Until::At(now + LASTING),
            Stay::For(time) => Until::At(now + time),
        };
        if let Until::At(until) = through {
            let lasting = stay == Stay::Lasting;
            self.keep_user_group(user, UserGroup { group: group.to_owned(), until, lasting }, now);
        }
        for member in self.of_user_mut(user) {
            member.groups.entry(group.to_owned()).or_default().through_user = Some(through);
        }
    }

    /// Takes a user, and all its connections, out of a group. What they joined by themselves ends too, as in the
    /// official emulator.
    pub(crate) fn user_leave(&mut self, user: &str, group: &str) {
        if let Some(groups) = self.user_groups.get_mut(user) {
            groups.retain(|kept| kept.group != group);
        }
        for member in self.of_user_mut(user) {
            member.groups.remove(group);
        }
    }

    /// Takes a user, and all its connections, out of all groups.
    pub(crate) fn user_leave_all(&mut self, user: &str) {
        self.user_groups.remove(user);
        for member in self.of_user_mut(user) {
            member.groups.clear();
        }
    }

    /// Whether a user is in a group, connected or not.
    pub(crate) fn user_in_group(&self, user: &str, group: &str, now: Instant) -> bool {
        let mut kept = self.user_groups.get(user).into_iter().flatten();
        kept.any(|kept| kept.group == group && kept.until > now)
            || self
                .connections
                .values()
                .filter(|member| member.user.as_deref() == Some(user))
                .any(|member| member.groups.get(group).is_some_and(|membership| membership.is_through_user(now)))
    }

    /// Lists up to `limit` connections of a group whose ids come after `after`.
    pub(crate) fn list(&self, group: &str, after: Option<&str>, limit: usize, now: Instant) -> Page {
        let members = self.connections.iter().filter(|(_, member)| member.in_group(group, now));
        let mut members = members.filter(|(id, _)| after.is_none_or(|after| id.as_str() > after));
        let page = members.by_ref().take(limit).map(|(id, member)| (id.clone(), member.user.clone())).collect();
        Page { members: page, more: members.next().is_some() }
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
        for member in self.of_user_mut(user) {
            if let Some(membership) = member.groups.get_mut(&dropped) {
                membership.through_user = None;
            }
        }
    }

    fn of_user_mut(&mut self, user: &str) -> impl Iterator<Item = &mut Member> {
        self.connections.values_mut().filter(move |member| member.user.as_deref() == Some(user))
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
        membership.is_some_and(|membership| membership.by_itself || membership.is_through_user(now))
    }
}

impl Membership {
    fn is_through_user(self, now: Instant) -> bool {
        match self.through_user {
            Some(Until::At(until)) => until > now,
            Some(Until::Disconnected) => true,
            None => false,
        }
    }
}

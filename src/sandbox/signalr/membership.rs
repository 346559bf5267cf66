//! The connections of one hub with their users and groups.
//!
//! The names of users and groups are case-sensitive. A connection can be in a group directly, through its user, or both; it
//! receives each message once. Callers synchronize access and pass the current time.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use rmpv::Value;
use time::OffsetDateTime;
use tokio::sync::oneshot;

use super::authentication::{Authentication, Claim, RefreshError};
use super::delivery::{Close, Delivery, DeliverySender};
use super::filter::Filter;

/// The maximum number of groups without a `ttl` that a user can be in. Adding one more removes the user from the oldest.
///
/// Source: description of `ttl` in the data-plane swagger of 2024-12-01.
pub(crate) const MAX_UNLIMITED_GROUPS: usize = 100;

/// How long a user stays in a group without a `ttl`. Source: as above.
const UNLIMITED_TTL: Duration = Duration::from_secs(365 * 24 * 3600);

/// The connections of a hub, and the groups of its users.
#[derive(Debug, Default)]
pub(super) struct Membership {
    /// The connections, ordered by id as in lists.
    connections: BTreeMap<String, Member>,
    /// The groups of each user, connected or not.
    user_groups: HashMap<String, Vec<UserGroup>>,
}

/// The state of one connection.
#[derive(Debug)]
struct Member {
    user: Option<String>,
    authentication: Authentication,
    groups: HashMap<String, GroupMembership>,
    deliveries: DeliverySender,
    /// The pending invocations by id. They fail when the client disconnects.
    invocations: HashMap<String, Completion>,
}

/// The sender of an invocation's completion.
pub(super) type Completion = oneshot::Sender<Result<Value, String>>;

/// How a connection is in a group: directly, through its user, or both.
#[derive(Clone, Copy, Debug, Default)]
struct GroupMembership {
    direct: bool,
    through_user: Option<Until>,
}

/// The end of a membership that a connection has through its user.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Until {
    /// The connection leaves the group when it disconnects.
    Disconnected,
    /// The connection leaves the group at this time.
    At(Instant),
}

/// The membership of a user in a group.
#[derive(Debug)]
struct UserGroup {
    group: String,
    until: Instant,
    /// Whether the user was added without a `ttl`.
    unlimited: bool,
}

/// Selects the connections that an operation applies to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Selector<'a> {
    /// All connections of the hub.
    All,
    /// The connections of a user.
    User(&'a str),
    /// The connections in a group.
    Group(&'a str),
    /// One connection.
    Connection(&'a str),
}

/// The query parameter `ttl`: how long a user stays in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GroupTtl {
    /// No `ttl`.
    Unlimited,
    /// A `ttl` of zero: current connections of the user join the group, later ones do not.
    CurrentConnections,
    /// A positive `ttl`.
    Limited(Duration),
}

/// The properties of a connection that the control listener shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ConnectionInfo {
    /// The connection id.
    pub(crate) id: String,
    /// The user, if the client has one.
    pub(crate) user: Option<String>,
    /// The groups, sorted.
    pub(crate) groups: Vec<String>,
    /// When the authentication of the client expires, in seconds since 1970.
    pub(crate) expires: Option<i64>,
}

/// A page of the members of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Page {
    /// Connection ids with their users, ordered by id.
    pub(super) members: Vec<(String, Option<String>)>,
    /// Whether another page follows.
    pub(super) more: bool,
}

impl Membership {
    /// Adds a connection. It joins the groups of its user.
    pub(super) fn connect(
        &mut self,
        id: &str,
        user: Option<&str>,
        authentication: Authentication,
        deliveries: DeliverySender,
        now: Instant,
    ) {
        let joined = user.and_then(|user| self.user_groups.get(user)).into_iter().flatten();
        let groups = joined.filter(|joined| joined.until > now).map(|joined| {
            let membership = GroupMembership { direct: false, through_user: Some(Until::At(joined.until)) };
            (joined.group.clone(), membership)
        });
        let groups = groups.collect();
        let user = user.map(str::to_owned);
        let member = Member { user, authentication, groups, deliveries, invocations: HashMap::new() };
        self.connections.insert(id.to_owned(), member);
    }

    /// Removes a connection. The user stays in its groups.
    pub(super) fn disconnect(&mut self, connection: &str) {
        self.connections.remove(connection);
    }

    /// Returns the claims of the connection with this token.
    pub(super) fn claims(&self, token: &str) -> Option<Vec<Claim>> {
        let mut members = self.connections.values();
        let member = members.find(|member| member.authentication.token.as_deref() == Some(token))?;
        Some(member.authentication.claims.clone())
    }

    /// Replaces the expiry and the claims of the connection with this token, each if it is given. Returns the claims.
    pub(super) fn refresh(
        &mut self,
        token: &str,
        expires: Option<OffsetDateTime>,
        claims: Option<Vec<Claim>>,
    ) -> Result<Vec<Claim>, RefreshError> {
        let mut members = self.connections.values_mut();
        let member = members.find(|member| member.authentication.token.as_deref() == Some(token));
        let member = member.ok_or(RefreshError::NotFound)?;
        member.authentication.refresh(member.user.as_deref(), expires, claims)?;
        Ok(member.authentication.claims.clone())
    }

    /// Returns the number of connections.
    pub(super) fn len(&self) -> usize {
        self.connections.len()
    }

    /// Returns the first `limit` connections.
    pub(super) fn first(&self, limit: usize, now: Instant) -> Vec<ConnectionInfo> {
        let info = |(id, member): (&String, &Member)| {
            let mut groups: Vec<_> =
                member.groups.keys().filter(|group| member.in_group(group, now)).cloned().collect();
            groups.sort_unstable();
            let expires = member.authentication.expires.map(OffsetDateTime::unix_timestamp);
            ConnectionInfo { id: id.clone(), user: member.user.clone(), groups, expires }
        };
        self.connections.iter().take(limit).map(info).collect()
    }

    /// Returns the ids of the selected connections except the excluded ones.
    pub(super) fn ids(&self, selector: Selector<'_>, excluded: &[String], now: Instant) -> Vec<String> {
        let members = self.connections.iter().filter(|(id, member)| member.is_in(id, selector, now));
        members.filter(|(id, _)| !excluded.contains(id)).map(|(id, _)| id.clone()).collect()
    }

    /// Returns the ids of the connections that match a filter, or of all connections without a filter.
    pub(super) fn filtered(&self, filter: Option<&Filter>, now: Instant) -> Vec<String> {
        let matches = |id: &str, member: &Member| {
            let groups = member.groups.keys().map(String::as_str).filter(|group| member.in_group(group, now));
            let groups: Vec<&str> = groups.collect();
            filter.is_none_or(|filter| filter.matches(id, member.user.as_deref(), &groups))
        };
        self.connections.iter().filter(|(id, member)| matches(id, member)).map(|(id, _)| id.clone()).collect()
    }

    /// Returns whether any connection is selected.
    pub(super) fn exists(&self, selector: Selector<'_>, now: Instant) -> bool {
        self.connections.iter().any(|(id, member)| member.is_in(id, selector, now))
    }

    /// Queues a delivery for the selected connections except the excluded ones. Returns how many queues accepted it.
    ///
    /// Closes the connections whose queues are full.
    pub(super) fn deliver(
        &mut self,
        selector: Selector<'_>,
        delivery: &Delivery,
        excluded: &[String],
        now: Instant,
    ) -> usize {
        let (mut reached, mut overflowed) = (0, Vec::new());
        let members = self.connections.iter().filter(|(id, member)| member.is_in(id, selector, now));
        for (id, member) in members.filter(|(id, _)| !excluded.contains(id)) {
            if member.deliveries.push(delivery.clone()) {
                reached += 1;
            } else {
                overflowed.push(id.clone());
            }
        }
        for id in overflowed {
            let reason = Some(String::from("the client does not read its messages"));
            self.close(&id, Close { reason, allow_reconnect: false });
        }
        reached
    }

    /// Closes a connection. Returns `false` if there is no such connection.
    pub(super) fn close(&mut self, connection: &str, close: Close) -> bool {
        self.connections.remove(connection).map(|member| member.deliveries.close(close)).is_some()
    }

    /// Adds a pending invocation to a connection.
    pub(super) fn insert_invocation(&mut self, connection: &str, invocation: &str, completion: Completion) {
        if let Some(member) = self.connections.get_mut(connection) {
            member.invocations.insert(invocation.to_owned(), completion);
        }
    }

    /// Removes a pending invocation from a connection. Returns the sender of its completion.
    pub(super) fn take_invocation(&mut self, connection: &str, invocation: &str) -> Option<Completion> {
        self.connections.get_mut(connection)?.invocations.remove(invocation)
    }

    /// Adds a connection to a group. Returns `false` if there is no such connection.
    pub(super) fn add_connection(&mut self, connection: &str, group: &str) -> bool {
        let member = self.connections.get_mut(connection);
        member.map(|member| member.groups.entry(group.to_owned()).or_default().direct = true).is_some()
    }

    /// Removes a connection from a group. Returns `false` if there is no such connection.
    pub(super) fn remove_connection(&mut self, connection: &str, group: &str) -> bool {
        self.connections.get_mut(connection).map(|member| member.groups.remove(group)).is_some()
    }

    /// Removes a connection from all groups. Returns `false` if there is no such connection.
    pub(super) fn remove_connection_from_all(&mut self, connection: &str) -> bool {
        self.connections.get_mut(connection).map(|member| member.groups.clear()).is_some()
    }

    /// Adds the connections of a user to a group. `ttl` determines whether and how long later connections join.
    pub(super) fn add_user(&mut self, user: &str, group: &str, ttl: GroupTtl, now: Instant) {
        let through = match ttl {
            GroupTtl::CurrentConnections => Until::Disconnected,
            GroupTtl::Unlimited => Until::At(now + UNLIMITED_TTL),
            GroupTtl::Limited(time) => Until::At(now + time),
        };
        if let Until::At(until) = through {
            let unlimited = ttl == GroupTtl::Unlimited;
            self.insert_user_group(user, UserGroup { group: group.to_owned(), until, unlimited }, now);
        }
        for member in self.user_connections_mut(user) {
            member.groups.entry(group.to_owned()).or_default().through_user = Some(through);
        }
    }

    /// Removes a user and all its connections from a group, even those that joined directly.
    ///
    /// Source: the official emulator.
    pub(super) fn remove_user(&mut self, user: &str, group: &str) {
        if let Some(groups) = self.user_groups.get_mut(user) {
            groups.retain(|joined| joined.group != group);
        }
        for member in self.user_connections_mut(user) {
            member.groups.remove(group);
        }
    }

    /// Removes a user and all its connections from all groups.
    pub(super) fn remove_user_from_all(&mut self, user: &str) {
        self.user_groups.remove(user);
        for member in self.user_connections_mut(user) {
            member.groups.clear();
        }
    }

    /// Returns whether a user is in a group, connected or not.
    pub(super) fn user_in_group(&self, user: &str, group: &str, now: Instant) -> bool {
        let mut joined = self.user_groups.get(user).into_iter().flatten();
        joined.any(|joined| joined.group == group && joined.until > now)
            || self
                .connections
                .values()
                .filter(|member| member.user.as_deref() == Some(user))
                .any(|member| member.groups.get(group).is_some_and(|membership| membership.is_through_user(now)))
    }

    /// Returns up to `limit` connections of a group whose ids are greater than `after`, ordered by id.
    pub(super) fn list(&self, group: &str, after: Option<&str>, limit: usize, now: Instant) -> Page {
        let members = self.connections.iter().filter(|(_, member)| member.in_group(group, now));
        let mut members = members.filter(|(id, _)| after.is_none_or(|after| id.as_str() > after));
        let page = members.by_ref().take(limit).map(|(id, member)| (id.clone(), member.user.clone())).collect();
        Page { members: page, more: members.next().is_some() }
    }

    fn insert_user_group(&mut self, user: &str, group: UserGroup, now: Instant) {
        let groups = self.user_groups.entry(user.to_owned()).or_default();
        groups.retain(|joined| joined.until > now && joined.group != group.group);
        groups.push(group);
        if groups.iter().filter(|joined| joined.unlimited).count() <= MAX_UNLIMITED_GROUPS {
            return;
        }
        let Some(oldest) = groups.iter().position(|joined| joined.unlimited) else { return };
        let removed = groups.remove(oldest).group;
        for member in self.user_connections_mut(user) {
            if let Some(membership) = member.groups.get_mut(&removed) {
                membership.through_user = None;
            }
        }
    }

    fn user_connections_mut(&mut self, user: &str) -> impl Iterator<Item = &mut Member> {
        self.connections.values_mut().filter(move |member| member.user.as_deref() == Some(user))
    }
}

impl Member {
    fn is_in(&self, id: &str, selector: Selector<'_>, now: Instant) -> bool {
        match selector {
            Selector::All => true,
            Selector::User(user) => self.user.as_deref() == Some(user),
            Selector::Group(group) => self.in_group(group, now),
            Selector::Connection(connection) => id == connection,
        }
    }

    fn in_group(&self, group: &str, now: Instant) -> bool {
        self.groups.get(group).is_some_and(|membership| membership.direct || membership.is_through_user(now))
    }
}

impl GroupMembership {
    fn is_through_user(self, now: Instant) -> bool {
        match self.through_user {
            Some(Until::At(until)) => until > now,
            Some(Until::Disconnected) => true,
            None => false,
        }
    }
}

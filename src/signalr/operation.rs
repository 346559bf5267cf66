//! The operations of the REST API, one for each row of its newest definition, and sets of them.

use std::fmt;

/// One operation of the SignalR REST API (api-version 2024-12-01). The v1 and emulator path forms map onto the same
/// operations. The names are metric labels, route matchers and allow-list entries.
///
/// Source: `Azure/azure-signalr`, `docs/swagger/v20241201.json`; v1 forms from `docs/swagger/v1.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Operation {
    /// `HEAD /api/health`.
    Health,
    /// `GET /api/auth/accessKey`: hands out a temporary signing key.
    AccessKey,
    /// `POST …/hubs/{hub}/:send`: broadcast.
    HubSend,
    /// `POST …/hubs/{hub}/:closeConnections`.
    HubCloseConnections,
    /// `POST …/hubs/{hub}/:execute`: commands for connections chosen by a filter. Its body can send, join and leave groups
    /// and close connections.
    HubExecute,
    /// `POST …/hubs/{hub}/:generateToken`: hands out a client token.
    GenerateToken,
    /// `HEAD …/connections/{connection}`.
    ConnectionExists,
    /// `DELETE …/connections/{connection}`.
    ConnectionClose,
    /// `POST …/connections/{connection}/:send`.
    ConnectionSend,
    /// `POST …/connections/{connection}/:invoke`: waits for the client's answer.
    ConnectionInvoke,
    /// `DELETE …/connections/{connection}/groups`.
    ConnectionLeaveAllGroups,
    /// `POST …/connections/{connection}/streams/{stream}/:send`.
    StreamSend,
    /// `POST …/connections/{connection}/streams/{stream}/:complete`.
    StreamComplete,
    /// `HEAD …/groups/{group}`.
    GroupExists,
    /// `POST …/groups/{group}/:send`.
    GroupSend,
    /// `POST …/groups/{group}/:closeConnections`.
    GroupCloseConnections,
    /// `GET …/groups/{group}/connections`.
    GroupListConnections,
    /// `PUT …/groups/{group}/connections/{connection}`.
    GroupAddConnection,
    /// `DELETE …/groups/{group}/connections/{connection}`.
    GroupRemoveConnection,
    /// `HEAD …/users/{user}`.
    UserExists,
    /// `POST …/users/{user}/:send`.
    UserSend,
    /// `POST …/users/{user}/:closeConnections`.
    UserCloseConnections,
    /// `DELETE …/users/{user}/groups`.
    UserLeaveAllGroups,
    /// `HEAD …/users/{user}/groups/{group}`.
    UserInGroup,
    /// `PUT …/users/{user}/groups/{group}`.
    UserAddToGroup,
    /// `DELETE …/users/{user}/groups/{group}`.
    UserRemoveFromGroup,
}

impl Operation {
    /// Every operation, in the order of the definition.
    pub const ALL: [Self; 26] = [
        Self::Health,
        Self::AccessKey,
        Self::HubSend,
        Self::HubCloseConnections,
        Self::HubExecute,
        Self::GenerateToken,
        Self::ConnectionExists,
        Self::ConnectionClose,
        Self::ConnectionSend,
        Self::ConnectionInvoke,
        Self::ConnectionLeaveAllGroups,
        Self::StreamSend,
        Self::StreamComplete,
        Self::GroupExists,
        Self::GroupSend,
        Self::GroupCloseConnections,
        Self::GroupListConnections,
        Self::GroupAddConnection,
        Self::GroupRemoveConnection,
        Self::UserExists,
        Self::UserSend,
        Self::UserCloseConnections,
        Self::UserLeaveAllGroups,
        Self::UserInGroup,
        Self::UserAddToGroup,
        Self::UserRemoveFromGroup,
    ];

    /// Returns the operation's name: metric label, route matcher, allow-list entry.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::AccessKey => "access_key",
            Self::HubSend => "hub_send",
            Self::HubCloseConnections => "hub_close_connections",
            Self::HubExecute => "hub_execute",
            Self::GenerateToken => "generate_token",
            Self::ConnectionExists => "connection_exists",
            Self::ConnectionClose => "connection_close",
            Self::ConnectionSend => "connection_send",
            Self::ConnectionInvoke => "connection_invoke",
            Self::ConnectionLeaveAllGroups => "connection_leave_all_groups",
            Self::StreamSend => "stream_send",
            Self::StreamComplete => "stream_complete",
            Self::GroupExists => "group_exists",
            Self::GroupSend => "group_send",
            Self::GroupCloseConnections => "group_close_connections",
            Self::GroupListConnections => "group_list_connections",
            Self::GroupAddConnection => "group_add_connection",
            Self::GroupRemoveConnection => "group_remove_connection",
            Self::UserExists => "user_exists",
            Self::UserSend => "user_send",
            Self::UserCloseConnections => "user_close_connections",
            Self::UserLeaveAllGroups => "user_leave_all_groups",
            Self::UserInGroup => "user_in_group",
            Self::UserAddToGroup => "user_add_to_group",
            Self::UserRemoveFromGroup => "user_remove_from_group",
        }
    }

    /// Returns the operation of that name, if there is one.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }

    /// Returns the operation's place in [`Operation::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns the place in [`OperationSet::NAMED`] of the set that the operation is in.
    pub fn class(self) -> usize {
        const CLASSES: [usize; Operation::ALL.len()] = classes();
        CLASSES.get(self.index()).copied().unwrap_or_default()
    }

    /// Whether how long the operation takes is up to a client of the hub, so that its duration says nothing of the endpoint.
    pub const fn waits_for_client(self) -> bool {
        matches!(self, Self::ConnectionInvoke)
    }

    /// Whether the operation delivers something to clients, so that sending it twice may be seen twice. `:execute` does:
    /// its commands can be messages.
    ///
    /// Source: the Management SDK's split in `DependencyInjectionExtensions.cs` (message and non-message calls).
    pub const fn is_message(self) -> bool {
        OperationSet::MESSAGES.union(OperationSet::EXECUTE).contains(self)
    }
}

#[expect(clippy::indexing_slicing, reason = "the compiler evaluates it, and refuses an index out of bounds")]
const fn classes() -> [usize; Operation::ALL.len()] {
    let mut classes = [0; Operation::ALL.len()];
    let mut rest = OperationSet::NAMED.as_slice();
    while let [others @ .., (_, set)] = rest {
        let mut operation = 0;
        while operation < classes.len() {
            if set.0 & (1 << operation) != 0 {
                classes[operation] = others.len();
            }
            operation += 1;
        }
        rest = others;
    }
    classes
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of operations, as a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OperationSet(u32);

impl OperationSet {
    /// No operation.
    pub const EMPTY: Self = Self(0);
    /// `messages`: all sends, invoke and streams. Their queries only narrow (`excluded`) or end (`completed`) what the name
    /// says; what `:invoke` returns is the answer of the client method that it names.
    pub const MESSAGES: Self = Self::of(&[
        Operation::HubSend,
        Operation::ConnectionSend,
        Operation::ConnectionInvoke,
        Operation::StreamSend,
        Operation::StreamComplete,
        Operation::GroupSend,
        Operation::UserSend,
    ]);
    /// `execute`: `:execute` alone. What it does is in its body, which the gateway does not read: everything that
    /// `messages`, `groups` and `close` do.
    pub const EXECUTE: Self = Self::of(&[Operation::HubExecute]);
    /// `groups`: changes of membership.
    pub const GROUPS: Self = Self::of(&[
        Operation::ConnectionLeaveAllGroups,
        Operation::GroupAddConnection,
        Operation::GroupRemoveConnection,
        Operation::UserLeaveAllGroups,
        Operation::UserAddToGroup,
        Operation::UserRemoveFromGroup,
    ]);
    /// `queries`: existence checks and lists.
    pub const QUERIES: Self = Self::of(&[
        Operation::Health,
        Operation::ConnectionExists,
        Operation::GroupExists,
        Operation::GroupListConnections,
        Operation::UserExists,
        Operation::UserInGroup,
    ]);
    /// `close`: what closes connections.
    pub const CLOSE: Self = Self::of(&[
        Operation::HubCloseConnections,
        Operation::ConnectionClose,
        Operation::GroupCloseConnections,
        Operation::UserCloseConnections,
    ]);
    /// `credentials`: what hands out credentials, for whichever user and claims the caller names.
    pub const CREDENTIALS: Self = Self::of(&[Operation::GenerateToken, Operation::AccessKey]);

    /// The named sets, in the order in which they are documented.
    pub const NAMED: [(&'static str, Self); 6] = [
        ("messages", Self::MESSAGES),
        ("execute", Self::EXECUTE),
        ("groups", Self::GROUPS),
        ("queries", Self::QUERIES),
        ("close", Self::CLOSE),
        ("credentials", Self::CREDENTIALS),
    ];

    /// The set of these operations.
    pub const fn of(operations: &[Operation]) -> Self {
        let mut bits = 0;
        let mut rest = operations;
        while let [first, others @ ..] = rest {
            bits |= 1 << *first as u32;
            rest = others;
        }
        Self(bits)
    }

    /// Returns the operations that `name` stands for: a named set or a single operation.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::NAMED
            .into_iter()
            .find_map(|(set_name, set)| (set_name == name).then_some(set))
            .or_else(|| Operation::from_name(name).map(|operation| Self::of(&[operation])))
    }

    /// Whether `operation` is in the set.
    pub const fn contains(self, operation: Operation) -> bool {
        self.0 & (1 << operation as u32) != 0
    }

    /// Returns the operations of both sets.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the set holds nothing.
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Iterates over the operations of the set, in the order of the definition.
    pub fn iter(self) -> impl Iterator<Item = Operation> {
        Operation::ALL.into_iter().filter(move |operation| self.contains(*operation))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_in_exactly_one_named_set() {
        for operation in Operation::ALL {
            let sets = OperationSet::NAMED.iter().filter(|(_, set)| set.contains(operation)).count();
            assert_eq!(sets, 1, "{operation}");
        }
    }

    #[test]
    fn execute_is_a_delivery_that_no_other_set_allows() {
        assert!(Operation::HubExecute.is_message());
        let allowing = OperationSet::NAMED.into_iter().filter(|(_, set)| set.contains(Operation::HubExecute));
        assert_eq!(allowing.map(|(name, _)| name).collect::<Vec<_>>(), ["execute"]);
    }

    #[test]
    fn class_is_the_place_of_the_set() {
        for operation in Operation::ALL {
            assert!(OperationSet::NAMED[operation.class()].1.contains(operation), "{operation}");
        }
    }

    #[test]
    fn names_lead_back_to_their_operation() {
        for operation in Operation::ALL {
            assert_eq!(Operation::from_name(operation.name()), Some(operation));
            assert_eq!(Operation::ALL[operation.index()], operation);
        }
        assert_eq!(Operation::from_name("nope"), None);
    }
}

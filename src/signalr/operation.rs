//! The operations of the REST API in one table: name, class, fan-out kind and the names that their paths carry.
//!
//! To add an operation, add a row here and its path in [`Call::parse`](super::Call::parse).

use std::fmt;

use super::FanOutKind;

/// Declares [`Operation`] from the table of operations. A row that lacks a column does not compile.
macro_rules! operations {
    ($(
        $(#[$doc:meta])*
        $variant:ident = $name:literal, $class:ident, $fan_out_kind:ident, [$($carried:ident),*];
    )+) => {
        /// One operation of the SignalR REST API (api-versions up to 2026-07-01). Its name is a metric label, a route condition and
        /// an entry of a listener's allow-list. The path forms of v1 and of the emulator map to the same operations.
        ///
        /// Source: `Azure/azure-signalr`, `docs/swagger/v20241201.json`; v1 forms from `docs/swagger/v1.json`; 2026-07-01 from
        /// issue 2281, since its swagger is not published.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        pub enum Operation { $($(#[$doc])* $variant,)+ }

        impl Operation {
            /// The number of operations.
            pub const COUNT: usize = [$(Self::$variant),+].len();

            /// Every operation, in the order of the table.
            pub const ALL: [Self; Self::COUNT] = [$(Self::$variant),+];

            /// Returns the name of the operation.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Returns the class of the operation.
            pub const fn class(self) -> OperationClass {
                match self { $(Self::$variant => OperationClass::$class,)+ }
            }

            /// Returns how the operation is carried out on several endpoints.
            pub const fn fan_out_kind(self) -> FanOutKind {
                match self { $(Self::$variant => FanOutKind::$fan_out_kind,)+ }
            }

            const fn carried_names(self) -> &'static [NameKind] {
                match self { $(Self::$variant => &[$(NameKind::$carried),*],)+ }
            }
        }
    };
}

operations! {
    /// `HEAD /api/health`. The gateway responds to it without an endpoint.
    Health = "health", Queries, SingleEndpoint, [];
    /// `GET /api/auth/accessKey`: returns a temporary signing key.
    AccessKey = "access_key", Credentials, SingleEndpoint, [];

    /// `POST …/hubs/{hub}/:send`: broadcast.
    HubSend = "hub_send", Messages, Deliver, [Hub];
    /// `POST …/hubs/{hub}/:closeConnections`.
    HubCloseConnections = "hub_close_connections", Close, Deliver, [Hub];
    /// `POST …/hubs/{hub}/:execute`: commands for connections chosen by a filter. Its body can send messages, change groups
    /// and close connections.
    HubExecute = "hub_execute", Execute, Deliver, [Hub];
    /// `POST …/hubs/{hub}/:generateToken`: returns a client token.
    GenerateToken = "generate_token", Credentials, SingleEndpoint, [Hub];

    /// `HEAD …/connections/{connection}`.
    ConnectionExists = "connection_exists", Queries, FirstSuccess, [Hub, Connection];
    /// `DELETE …/connections/{connection}`.
    ConnectionClose = "connection_close", Close, FirstSuccess, [Hub, Connection];
    /// `POST …/connections/{connection}/:send`.
    ConnectionSend = "connection_send", Messages, Deliver, [Hub, Connection];
    /// `POST …/connections/{connection}/:invoke`: waits for the client's result.
    ConnectionInvoke = "connection_invoke", Messages, FirstSuccess, [Hub, Connection];
    /// `POST …/hubs/{hub}/connections/:refreshAuth`: replaces the expiry and the claims of the connection that the body names.
    ConnectionRefreshAuth = "connection_refresh_auth", Claims, SingleOwner, [Hub];
    /// `POST …/hubs/{hub}/connections/claims`, or `QUERY`: returns the claims of the connection that the body names.
    ConnectionClaims = "connection_claims", Claims, SingleOwner, [Hub];
    /// `DELETE …/connections/{connection}/groups`.
    ConnectionLeaveAllGroups = "connection_leave_all_groups", Groups, Deliver, [Hub, Connection];
    /// `POST …/connections/{connection}/streams/{stream}/:send`.
    StreamSend = "stream_send", Messages, Deliver, [Hub, Connection];
    /// `POST …/connections/{connection}/streams/{stream}/:complete`.
    StreamComplete = "stream_complete", Messages, Deliver, [Hub, Connection];

    /// `HEAD …/groups/{group}`.
    GroupExists = "group_exists", Queries, FirstSuccess, [Hub, Group];
    /// `POST …/groups/{group}/:send`.
    GroupSend = "group_send", Messages, Deliver, [Hub, Group];
    /// `POST …/groups/{group}/:closeConnections`.
    GroupCloseConnections = "group_close_connections", Close, Deliver, [Hub, Group];
    /// `GET …/groups/{group}/connections`.
    GroupListConnections = "group_list_connections", Queries, List, [Hub, Group];
    /// `PUT …/groups/{group}/connections/{connection}`.
    GroupAddConnection = "group_add_connection", Groups, FirstSuccess, [Hub, Group, Connection];
    /// `DELETE …/groups/{group}/connections/{connection}`.
    GroupRemoveConnection = "group_remove_connection", Groups, FirstSuccess, [Hub, Group, Connection];

    /// `HEAD …/users/{user}`.
    UserExists = "user_exists", Queries, FirstSuccess, [Hub, User];
    /// `POST …/users/{user}/:send`.
    UserSend = "user_send", Messages, Deliver, [Hub, User];
    /// `POST …/users/{user}/:closeConnections`.
    UserCloseConnections = "user_close_connections", Close, Deliver, [Hub, User];
    /// `DELETE …/users/{user}/groups`.
    UserLeaveAllGroups = "user_leave_all_groups", Groups, Deliver, [Hub, User];
    /// `HEAD …/users/{user}/groups/{group}`.
    UserInGroup = "user_in_group", Queries, FirstSuccess, [Hub, User, Group];
    /// `PUT …/users/{user}/groups/{group}`.
    UserAddToGroup = "user_add_to_group", Groups, Deliver, [Hub, User, Group];
    /// `DELETE …/users/{user}/groups/{group}`.
    UserRemoveFromGroup = "user_remove_from_group", Groups, Deliver, [Hub, User, Group];
}

/// A class of operations, named in allow-lists and routes. Every operation is in exactly one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationClass {
    /// Sends, `:invoke` and streams.
    Messages,
    /// `:execute` alone. Its body, which the gateway does not read, can do everything that `messages`, `groups` and `close`
    /// do.
    Execute,
    /// Changes of group membership.
    Groups,
    /// Existence checks and lists.
    Queries,
    /// Operations that close connections.
    Close,
    /// Operations that return credentials, for any user and claims that the caller names.
    Credentials,
    /// Operations that read or replace the claims of a client.
    Claims,
}

impl OperationClass {
    /// Every class, in the order of the documentation.
    pub const ALL: [Self; 7] =
        [Self::Messages, Self::Execute, Self::Groups, Self::Queries, Self::Close, Self::Credentials, Self::Claims];

    /// Returns the name of the class.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Messages => "messages",
            Self::Execute => "execute",
            Self::Groups => "groups",
            Self::Queries => "queries",
            Self::Close => "close",
            Self::Credentials => "credentials",
            Self::Claims => "claims",
        }
    }

    /// Returns the index of the class in [`OperationClass::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A kind of name that the path of a call carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// The hub.
    Hub,
    /// The group.
    Group,
    /// The user.
    User,
    /// The connection.
    Connection,
}

impl Operation {
    /// Returns the operation with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|operation| operation.name() == name)
    }

    /// Returns the index of the operation in [`Operation::ALL`].
    pub const fn index(self) -> usize {
        self as usize
    }

    /// Returns whether the path of the operation carries a name of this kind.
    pub fn has_name(self, kind: NameKind) -> bool {
        self.carried_names().contains(&kind)
    }

    /// Returns whether a client of the hub determines how long the operation takes. Its duration then says nothing about the
    /// endpoint.
    pub const fn waits_for_client(self) -> bool {
        matches!(self, Self::ConnectionInvoke)
    }

    /// Returns whether the operation has an effect: it delivers something, changes a membership or closes a connection. A
    /// repeat of such a call with the same `Idempotency-Key` is not carried out again.
    pub const fn has_effect(self) -> bool {
        match self.class() {
            OperationClass::Messages | OperationClass::Execute | OperationClass::Groups | OperationClass::Close => true,
            // A repeated refresh of claims has the same result.
            OperationClass::Queries | OperationClass::Credentials | OperationClass::Claims => false,
        }
    }

    /// Returns whether the operation delivers something to clients, so that they may see it twice if it is sent twice.
    /// `:execute` is included: its commands can be messages.
    ///
    /// Source: the Management SDK's split in `DependencyInjectionExtensions.cs` (message and non-message calls).
    pub const fn is_message(self) -> bool {
        matches!(self.class(), OperationClass::Messages | OperationClass::Execute)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn execute_may_deliver_messages() {
        assert!(Operation::HubExecute.is_message());
    }

    #[test]
    fn finds_every_operation_by_name_and_by_index() {
        for operation in Operation::ALL {
            assert_eq!(Operation::from_name(operation.name()), Some(operation));
            assert_eq!(Operation::ALL[operation.index()], operation);
        }
        assert_eq!(Operation::from_name("nope"), None);
    }

    #[test]
    fn finds_every_class_by_index() {
        for class in OperationClass::ALL {
            assert_eq!(OperationClass::ALL[class.index()], class);
        }
    }

    #[test]
    fn operations_are_shown_by_their_configured_name() {
        assert_eq!(format!("{} {}", Operation::HubSend, Operation::UserInGroup), "hub_send user_in_group");
    }
}

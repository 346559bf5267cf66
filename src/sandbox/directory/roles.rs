//! The built-in roles of Azure SignalR Service and their data actions.

/// A built-in role for the data plane of Azure SignalR Service.
///
/// Source: Azure's list of built-in roles ("Web and Mobile").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// SignalR App Server: server connections, and access keys for negotiation.
    AppServer,
    /// SignalR REST API Owner: the REST API except access keys.
    RestApiOwner,
    /// SignalR REST API Reader: existence checks.
    RestApiReader,
    /// SignalR Service Owner: everything.
    ServiceOwner,
}

impl Role {
    /// All roles.
    pub const ALL: [Self; 4] = [Self::AppServer, Self::RestApiOwner, Self::RestApiReader, Self::ServiceOwner];

    /// Returns the role's name in the portal and in `az role assignment create --role`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::AppServer => "SignalR App Server",
            Self::RestApiOwner => "SignalR REST API Owner",
            Self::RestApiReader => "SignalR REST API Reader",
            Self::ServiceOwner => "SignalR Service Owner",
        }
    }

    /// Returns whether the role allows a data action, given without `Microsoft.SignalRService/SignalR/`.
    pub fn allows(self, action: &str) -> bool {
        match self {
            Self::AppServer => {
                matches!(action, "auth/accessKey/action" | "serverConnection/write" | "clientConnection/write")
            }
            Self::RestApiOwner => {
                action == "auth/clientToken/action"
                    || ["hub/", "group/", "clientConnection/", "user/"].iter().any(|area| action.starts_with(area))
            }
            Self::RestApiReader => matches!(action, "group/read" | "clientConnection/read" | "user/read"),
            Self::ServiceOwner => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_allow_what_the_documentation_lists() {
        let rows = [
            ("auth/accessKey/action", [true, false, false, true]),
            ("auth/clientToken/action", [false, true, false, true]),
            ("hub/send/action", [false, true, false, true]),
            ("group/read", [false, true, true, true]),
            ("group/write", [false, true, false, true]),
            ("clientConnection/write", [true, true, false, true]),
            ("user/read", [false, true, true, true]),
        ];
        for (action, expected) in rows {
            assert_eq!(Role::ALL.map(|role| role.allows(action)), expected, "{action}");
        }
    }
}

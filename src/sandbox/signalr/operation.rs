//! Parses a method and a path into an operation of the REST API.
//!
//! It accepts the current path form, the v1 form, and the alternative forms that the official emulator accepts. It shares no
//! code with the gateway's parser, so that tests detect an error in either.

use http::Method;
use percent_encoding::percent_decode_str;

/// A parsed call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    /// Whether the path has the v1 form. Such calls have no `api-version` and get other statuses.
    pub(crate) v1: bool,
    /// The operation.
    pub(crate) operation: Operation,
}

/// An operation. The names in it are percent-decoded once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Health,
    AccessKey,
    Hub(String, HubOperation),
}

/// An operation of a hub.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HubOperation {
    Send,
    CloseConnections,
    Execute,
    GenerateToken,
    ConnectionExists { connection: String },
    ConnectionClose { connection: String },
    ConnectionSend { connection: String },
    ConnectionInvoke { connection: String },
    ConnectionRefreshAuth,
    ConnectionClaims,
    ConnectionLeaveAllGroups { connection: String },
    StreamSend { connection: String, stream: String },
    StreamComplete { connection: String, stream: String },
    GroupExists { group: String },
    GroupSend { group: String },
    GroupCloseConnections { group: String },
    GroupListConnections { group: String },
    GroupAddConnection { group: String, connection: String },
    GroupRemoveConnection { group: String, connection: String },
    UserExists { user: String },
    UserSend { user: String },
    UserCloseConnections { user: String },
    UserLeaveAllGroups { user: String },
    UserInGroup { user: String, group: String },
    UserAddToGroup { user: String, group: String },
    UserRemoveFromGroup { user: String, group: String },
}

/// The reason why a method and a path match no operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ParseError {
    /// The path is unknown.
    NotFound,
    /// The path does not support the method.
    MethodNotAllowed,
    /// A segment does not percent-decode to UTF-8.
    Malformed,
}

/// Parses a method and a path, which is percent-encoded as sent.
///
/// Literals are compared without case after percent-decoding, and a slash at the end is ignored, as in ASP.NET Core.
pub(crate) fn parse(method: &Method, path: &str) -> Result<Call, ParseError> {
    let path = path.strip_prefix('/').ok_or(ParseError::NotFound)?;
    let path = path.strip_suffix('/').unwrap_or(path);
    let segments = path
        .split('/')
        .map(|segment| percent_decode_str(segment).decode_utf8().map(String::from))
        .collect::<Result<Vec<String>, _>>();
    let mut segments = segments.map_err(|_err| ParseError::Malformed)?;
    let v1 = segments.get(1).is_some_and(|version| version.eq_ignore_ascii_case("v1"));
    // Literals and names alternate after the prefix.
    let start = if v1 { 2 } else { 1 };
    segments.iter_mut().take(start).for_each(|segment| segment.make_ascii_lowercase());
    segments.iter_mut().skip(start).step_by(2).for_each(|segment| segment.make_ascii_lowercase());
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let rest = segments.get(start..).filter(|_| segments.first() == Some(&"api")).ok_or(ParseError::NotFound)?;
    let operation = match rest {
        ["health"] => if_allowed(method, &[Method::GET, Method::HEAD], Operation::Health)?,
        ["auth", key] if key.eq_ignore_ascii_case("accessKey") => {
            if_allowed(method, &[Method::GET], Operation::AccessKey)?
        }
        ["hubs", hub, rest @ ..] => Operation::Hub((*hub).to_owned(), hub_operation(method, rest)?),
        _ => return Err(ParseError::NotFound),
    };
    Ok(Call { v1, operation })
}

fn hub_operation(method: &Method, rest: &[&str]) -> Result<HubOperation, ParseError> {
    use HubOperation as Op;
    let get_or_head = [Method::GET, Method::HEAD];
    let post = [Method::POST];
    match rest {
        [] | [":send"] => if_allowed(method, &post, Op::Send),
        [":closeconnections"] => if_allowed(method, &post, Op::CloseConnections),
        [":execute"] => if_allowed(method, &post, Op::Execute),
        [":generatetoken"] => if_allowed(method, &post, Op::GenerateToken),
        ["connections", connection] => {
            let connection = (*connection).to_owned();
            match *method {
                Method::GET | Method::HEAD => Ok(Op::ConnectionExists { connection }),
                Method::DELETE => Ok(Op::ConnectionClose { connection }),
                Method::POST if connection.eq_ignore_ascii_case(":refreshAuth") => Ok(Op::ConnectionRefreshAuth),
                Method::POST | Method::QUERY if connection.eq_ignore_ascii_case("claims") => Ok(Op::ConnectionClaims),
                Method::POST => Ok(Op::ConnectionSend { connection }),
                _ => Err(ParseError::MethodNotAllowed),
            }
        }
        ["connections", connection, last] => {
            let connection = (*connection).to_owned();
            match *last {
                ":send" => if_allowed(method, &post, Op::ConnectionSend { connection }),
                ":invoke" => if_allowed(method, &post, Op::ConnectionInvoke { connection }),
                "groups" => if_allowed(method, &[Method::DELETE], Op::ConnectionLeaveAllGroups { connection }),
                _ => Err(ParseError::NotFound),
            }
        }
        ["connections", connection, "streams", stream, last] => {
            let (connection, stream) = ((*connection).to_owned(), (*stream).to_owned());
            match *last {
                ":send" => if_allowed(method, &post, Op::StreamSend { connection, stream }),
                ":complete" => if_allowed(method, &post, Op::StreamComplete { connection, stream }),
                _ => Err(ParseError::NotFound),
            }
        }
        ["groups", group, "connections", connection] | ["connections", connection, "groups", group] => {
            let (group, connection) = ((*group).to_owned(), (*connection).to_owned());
            match *method {
                Method::PUT => Ok(Op::GroupAddConnection { group, connection }),
                Method::DELETE => Ok(Op::GroupRemoveConnection { group, connection }),
                _ => Err(ParseError::MethodNotAllowed),
            }
        }
        ["groups", group] => {
            let group = (*group).to_owned();
            match *method {
                Method::POST => Ok(Op::GroupSend { group }),
                _ => if_allowed(method, &get_or_head, Op::GroupExists { group }),
            }
        }
        ["groups", group, last] => {
            let group = (*group).to_owned();
            match *last {
                ":send" => if_allowed(method, &post, Op::GroupSend { group }),
                ":closeconnections" => if_allowed(method, &post, Op::GroupCloseConnections { group }),
                "connections" => if_allowed(method, &[Method::GET], Op::GroupListConnections { group }),
                _ => Err(ParseError::NotFound),
            }
        }
        ["users", user, "groups", group] | ["groups", group, "users", user] => {
            let (user, group) = ((*user).to_owned(), (*group).to_owned());
            match *method {
                Method::PUT => Ok(Op::UserAddToGroup { user, group }),
                Method::DELETE => Ok(Op::UserRemoveFromGroup { user, group }),
                _ => if_allowed(method, &get_or_head, Op::UserInGroup { user, group }),
            }
        }
        ["users", user] => {
            let user = (*user).to_owned();
            match *method {
                Method::POST => Ok(Op::UserSend { user }),
                _ => if_allowed(method, &get_or_head, Op::UserExists { user }),
            }
        }
        ["users", user, last] => {
            let user = (*user).to_owned();
            match *last {
                ":send" => if_allowed(method, &post, Op::UserSend { user }),
                ":closeconnections" => if_allowed(method, &post, Op::UserCloseConnections { user }),
                "groups" => if_allowed(method, &[Method::DELETE], Op::UserLeaveAllGroups { user }),
                _ => Err(ParseError::NotFound),
            }
        }
        _ => Err(ParseError::NotFound),
    }
}

fn if_allowed<T>(method: &Method, allowed: &[Method], operation: T) -> Result<T, ParseError> {
    if allowed.contains(method) { Ok(operation) } else { Err(ParseError::MethodNotAllowed) }
}

impl Operation {
    /// Returns the data action that the operation requires, without the prefix `Microsoft.SignalRService/SignalR/`.
    ///
    /// Returns `None` if it requires no token.
    ///
    /// Source: the actions are documented. Which operation requires which action is inferred from their descriptions.
    pub(crate) const fn data_action(&self) -> Option<&'static str> {
        use HubOperation as Op;
        Some(match self {
            Self::Health => return None,
            Self::AccessKey => "auth/accessKey/action",
            Self::Hub(_, operation) => match operation {
                Op::GenerateToken => "auth/clientToken/action",
                Op::Send | Op::Execute => "hub/send/action",
                Op::GroupSend { .. } => "group/send/action",
                Op::UserSend { .. } => "user/send/action",
                Op::ConnectionSend { .. }
                | Op::ConnectionInvoke { .. }
                | Op::StreamSend { .. }
                | Op::StreamComplete { .. } => "clientConnection/send/action",
                Op::GroupExists { .. } | Op::UserInGroup { .. } | Op::GroupListConnections { .. } => "group/read",
                Op::UserExists { .. } => "user/read",
                Op::ConnectionExists { .. } | Op::ConnectionClaims => "clientConnection/read",
                Op::ConnectionLeaveAllGroups { .. }
                | Op::GroupAddConnection { .. }
                | Op::GroupRemoveConnection { .. }
                | Op::UserLeaveAllGroups { .. }
                | Op::UserAddToGroup { .. }
                | Op::UserRemoveFromGroup { .. } => "group/write",
                Op::CloseConnections
                | Op::ConnectionClose { .. }
                | Op::ConnectionRefreshAuth
                | Op::GroupCloseConnections { .. }
                | Op::UserCloseConnections { .. } => "clientConnection/write",
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(text: &str) -> String {
        text.to_owned()
    }

    #[test]
    fn parses_every_path_form() {
        use HubOperation as Op;
        let (connection, group, user, stream) = (string("c"), string("g"), string("u"), string("s"));
        let rows = [
            ("POST /api/hubs/h/:send", Op::Send),
            ("POST /%61pi/HUBS/h/%3ASend/", Op::Send),
            ("POST /api/hubs/h/connections/:refreshAuth", Op::ConnectionRefreshAuth),
            ("POST /API/hubs/h/connections/%3Arefreshauth/", Op::ConnectionRefreshAuth),
            ("POST /api/hubs/h/connections/claims", Op::ConnectionClaims),
            ("QUERY /api/hubs/h/Connections/Claims", Op::ConnectionClaims),
            ("HEAD /api/hubs/h/connections/claims", Op::ConnectionExists { connection: string("claims") }),
            ("POST /api/hubs/h", Op::Send),
            ("POST /api/v1/hubs/h", Op::Send),
            ("POST /api/hubs/h/:closeConnections", Op::CloseConnections),
            ("POST /api/hubs/h/:execute", Op::Execute),
            ("POST /api/hubs/h/:generateToken", Op::GenerateToken),
            ("HEAD /api/hubs/h/connections/c", Op::ConnectionExists { connection: connection.clone() }),
            ("GET /api/v1/hubs/h/connections/c", Op::ConnectionExists { connection: connection.clone() }),
            ("DELETE /api/hubs/h/connections/c", Op::ConnectionClose { connection: connection.clone() }),
            ("POST /api/hubs/h/connections/c/:send", Op::ConnectionSend { connection: connection.clone() }),
            ("POST /api/v1/hubs/h/connections/c", Op::ConnectionSend { connection: connection.clone() }),
            ("POST /api/hubs/h/connections/c/:invoke", Op::ConnectionInvoke { connection: connection.clone() }),
            (
                "DELETE /api/hubs/h/connections/c/groups",
                Op::ConnectionLeaveAllGroups { connection: connection.clone() },
            ),
            (
                "POST /api/hubs/h/connections/c/streams/s/:send",
                Op::StreamSend { connection: connection.clone(), stream: stream.clone() },
            ),
            (
                "POST /api/hubs/h/connections/c/streams/s/:complete",
                Op::StreamComplete { connection: connection.clone(), stream },
            ),
            ("HEAD /api/hubs/h/groups/g", Op::GroupExists { group: group.clone() }),
            ("POST /api/hubs/h/groups/g/:closeConnections", Op::GroupCloseConnections { group: group.clone() }),
            ("POST /api/hubs/h/groups/g/:send", Op::GroupSend { group: group.clone() }),
            ("POST /api/v1/hubs/h/groups/g", Op::GroupSend { group: group.clone() }),
            ("GET /api/hubs/h/groups/g/connections", Op::GroupListConnections { group: group.clone() }),
            (
                "PUT /api/hubs/h/groups/g/connections/c",
                Op::GroupAddConnection { group: group.clone(), connection: connection.clone() },
            ),
            (
                "DELETE /api/v1/hubs/h/connections/c/groups/g",
                Op::GroupRemoveConnection { group: group.clone(), connection },
            ),
            ("HEAD /api/hubs/h/users/u", Op::UserExists { user: user.clone() }),
            ("POST /api/hubs/h/users/u/:closeConnections", Op::UserCloseConnections { user: user.clone() }),
            ("POST /api/hubs/h/users/u/:send", Op::UserSend { user: user.clone() }),
            ("POST /api/v1/hubs/h/users/u", Op::UserSend { user: user.clone() }),
            ("DELETE /api/hubs/h/users/u/groups", Op::UserLeaveAllGroups { user: user.clone() }),
            ("HEAD /api/hubs/h/users/u/groups/g", Op::UserInGroup { user: user.clone(), group: group.clone() }),
            ("GET /api/v1/hubs/h/groups/g/users/u", Op::UserInGroup { user: user.clone(), group: group.clone() }),
            ("PUT /api/hubs/h/users/u/groups/g", Op::UserAddToGroup { user: user.clone(), group: group.clone() }),
            ("DELETE /api/v1/hubs/h/groups/g/users/u/", Op::UserRemoveFromGroup { user, group }),
        ];
        for (line, expected) in rows {
            let (method, path) = line.split_once(' ').unwrap();
            let call = parse(&method.parse().unwrap(), path).unwrap();
            assert_eq!(call.operation, Operation::Hub(string("h"), expected), "{line}");
            assert_eq!(call.v1, path.starts_with("/api/v1/"), "{line}");
        }
        for line in ["GET /api/health", "HEAD /api/v1/health"] {
            let (method, path) = line.split_once(' ').unwrap();
            assert_eq!(parse(&method.parse().unwrap(), path).unwrap().operation, Operation::Health);
        }
        assert_eq!(parse(&Method::GET, "/api/v1/auth/accessKey").unwrap().operation, Operation::AccessKey);
    }

    #[test]
    fn decodes_names_once_and_keeps_an_encoded_slash() {
        let call = parse(&Method::HEAD, "/api/hubs/hub%2Fx/users/user%2Fa%2525").unwrap();
        assert_eq!(
            call.operation,
            Operation::Hub(string("hub/x"), HubOperation::UserExists { user: string("user/a%25") })
        );
        assert_eq!(parse(&Method::HEAD, "/api/hubs/h/users/%ff"), Err(ParseError::Malformed));
    }

    #[test]
    fn rejects_other_paths_and_methods() {
        for path in ["/", "/api", "/api/", "/api/hubs", "/api/hubs/h/x", "/api/v2/hubs/h", "/client/negotiate"] {
            assert_eq!(parse(&Method::POST, path), Err(ParseError::NotFound), "{path}");
        }
        for line in
            ["GET /api/hubs/h/:send", "POST /api/health", "PATCH /api/hubs/h/groups/g", "PUT /api/hubs/h/users/u"]
        {
            let (method, path) = line.split_once(' ').unwrap();
            assert_eq!(parse(&method.parse().unwrap(), path), Err(ParseError::MethodNotAllowed), "{line}");
        }
    }
}

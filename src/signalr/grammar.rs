//! Parses a method and a path into an operation and its names. Decides neither whether the call is allowed nor how it is routed.
//!
//! The method and the shape of the path determine the operation. Paths are split only at unencoded slashes and are
//! case-sensitive, so percent-encoding cannot change the operation.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use super::{Name, Operation};

/// A SignalR REST call: its operation and its names, borrowed from the request's URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// The operation.
    pub operation: Operation,
    /// The hub; `None` for `health` and `access_key`.
    pub hub: Option<Name<'a>>,
    /// The group, if the path has one.
    pub group: Option<Name<'a>>,
    /// The user, if the path has one.
    pub user: Option<Name<'a>>,
    /// The connection, if the path has one.
    pub connection: Option<Name<'a>>,
    query: &'a str,
}

/// Why a request is not a SignalR REST call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseCallError {
    /// No operation has a path of this shape.
    #[error("the path is not part of the SignalR REST API")]
    UnknownPath,
    /// The path belongs to an operation, but not with this method.
    #[error("this path supports only {allowed}")]
    WrongMethod {
        /// The methods that the path supports, as in an `Allow` header.
        allowed: &'static str,
    },
    /// The path has the shape of an operation, but a part of it is not valid.
    #[error("{0}")]
    Malformed(&'static str),
}

impl<'a> Call<'a> {
    /// Parses the method, path and query of a request line.
    ///
    /// All shapes are valid after both prefixes, `/api/` and `/api/v1/`, as in Microsoft's emulator: the forms of v1
    /// (`POST …/users/{user}`), the current ones (`POST …/users/{user}/:send`), and both orders of user and group.
    ///
    /// # Errors
    /// [`ParseCallError`] if the request is not a call.
    ///
    /// Source: `docs/swagger/v20241201.json` and `v1.json`; `SignalRServiceWebApiDefinition.cs` of the emulator.
    pub fn parse(method: &Method, path: &'a str, query: Option<&'a str>) -> Result<Self, ParseCallError> {
        if path.bytes().any(|byte| !byte.is_ascii_graphic() || matches!(byte, b'\\' | b'"')) {
            return Err(ParseCallError::Malformed("the path has characters that must be percent-encoded"));
        }
        if query.is_some_and(|query| !query.is_ascii()) {
            return Err(ParseCallError::Malformed("the query has characters that must be percent-encoded"));
        }
        let rest = path.strip_prefix("/api/").ok_or(ParseCallError::UnknownPath)?;
        let rest = rest.strip_prefix("v1/").unwrap_or(rest);
        let shape = Shape::parse(rest).ok_or(ParseCallError::UnknownPath)?;
        let name = |segment: Option<&'a str>| segment.map(Name::new).transpose().map_err(ParseCallError::Malformed);
        let call = Self {
            operation: shape.operation(method)?,
            hub: shape.hub.map(Name::hub).transpose().map_err(ParseCallError::Malformed)?,
            group: name(shape.group)?,
            user: name(shape.user)?,
            connection: name(shape.connection)?,
            query: query.unwrap_or_default(),
        };
        name(shape.stream)?;
        if has_escape(&shape) && is_another_path(rest) {
            return Err(ParseCallError::Malformed(
                "the path is ambiguous: percent-decoded again, it has dot segments or becomes another call",
            ));
        }
        Ok(call)
    }

    /// Returns the first value of a query parameter; see [`query_value`].
    pub fn query_value(&self, key: &str) -> Option<Cow<'a, str>> {
        query_value(self.query, key)
    }
}

/// Returns the first value of a parameter in a query, percent-decoded. Keys are case-insensitive, since the SDKs and the API
/// definitions spell them differently (`maxPageSize`, `maxpagesize`).
pub fn query_value<'q>(query: &'q str, key: &str) -> Option<Cow<'q, str>> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| name.eq_ignore_ascii_case(key))
        .map(|(_, value)| percent_decode_str(value).decode_utf8_lossy())
}

/// The shape of a path: its names and the operation of each method.
struct Shape<'a> {
    hub: Option<&'a str>,
    group: Option<&'a str>,
    user: Option<&'a str>,
    connection: Option<&'a str>,
    stream: Option<&'a str>,
    methods: Methods,
}

/// The methods that a path supports and the operation of each.
struct Methods {
    /// The value of an `Allow` header.
    allowed: &'static str,
    operations: &'static [(Method, Operation)],
}

/// Declares the methods of a path. Every existence check supports `HEAD` and `GET`: the API definition has `HEAD`, the SDK
/// sends `GET` to check a user in a group, v1 and the emulator support both.
macro_rules! methods {
    ($allowed:literal: $($method:ident $operation:ident),+) => {
        Methods { allowed: $allowed, operations: &[$((Method::$method, Operation::$operation)),+] }
    };
}

impl<'a> Shape<'a> {
    /// Parses a path without its prefix.
    fn parse(path: &'a str) -> Option<Self> {
        let mut segments = [""; 7];
        let mut count = 0;
        let mut left = Some(path);
        while let Some(path) = left {
            // Names are short, so a loop over the bytes is faster than `memchr`.
            let end = path.bytes().position(|byte| byte == b'/');
            let (segment, after) = end.and_then(|end| path.split_at_checked(end)).unwrap_or((path, ""));
            *segments.get_mut(count)? = segment;
            count += 1;
            left = after.strip_prefix('/');
        }
        Self::of(segments.get(..count).unwrap_or_default())
    }

    fn of(segments: &[&'a str]) -> Option<Self> {
        let unnamed = |methods| Self { hub: None, group: None, user: None, connection: None, stream: None, methods };
        let (hub, rest) = match segments {
            ["health"] => return Some(unnamed(methods!("GET, HEAD": HEAD Health, GET Health))),
            ["auth", "accessKey"] => return Some(unnamed(methods!("GET": GET AccessKey))),
            ["hubs", hub, rest @ ..] => (*hub, rest),
            _ => return None,
        };
        let hub = |methods| Self { hub: Some(hub), ..unnamed(methods) };
        let group = |group: &'a str, methods| Self { group: Some(group), ..hub(methods) };
        let user = |user: &'a str, methods| Self { user: Some(user), ..hub(methods) };
        let connection = |connection: &'a str, methods| Self { connection: Some(connection), ..hub(methods) };
        let stream = |id: &'a str, stream: &'a str, methods| Self { stream: Some(stream), ..connection(id, methods) };
        let member = |id: &'a str, connection: &'a str| Self {
            connection: Some(connection),
            ..group(id, methods!("PUT, DELETE": PUT GroupAddConnection, DELETE GroupRemoveConnection))
        };
        let user_member = |id: &'a str, user: &'a str| Self {
            user: Some(user),
            ..group(
                id,
                methods!("GET, HEAD, PUT, DELETE":
                    HEAD UserInGroup, GET UserInGroup, PUT UserAddToGroup, DELETE UserRemoveFromGroup),
            )
        };
        let shape = match rest {
            [] | [":send"] => hub(methods!("POST": POST HubSend)),
            [":closeConnections"] => hub(methods!("POST": POST HubCloseConnections)),
            [":execute"] => hub(methods!("POST": POST HubExecute)),
            [":generateToken"] => hub(methods!("POST": POST GenerateToken)),

            ["connections", id] => connection(
                id,
                methods!("GET, HEAD, POST, DELETE":
                    HEAD ConnectionExists, GET ConnectionExists, POST ConnectionSend, DELETE ConnectionClose),
            ),
            ["connections", id, ":send"] => connection(id, methods!("POST": POST ConnectionSend)),
            ["connections", id, ":invoke"] => connection(id, methods!("POST": POST ConnectionInvoke)),
            ["connections", id, "groups"] => connection(id, methods!("DELETE": DELETE ConnectionLeaveAllGroups)),
            ["connections", id, "streams", sid, ":send"] => stream(id, sid, methods!("POST": POST StreamSend)),
            ["connections", id, "streams", sid, ":complete"] => stream(id, sid, methods!("POST": POST StreamComplete)),

            ["groups", id] => group(id, methods!("GET, HEAD, POST": HEAD GroupExists, GET GroupExists, POST GroupSend)),
            ["groups", id, ":send"] => group(id, methods!("POST": POST GroupSend)),
            ["groups", id, ":closeConnections"] => group(id, methods!("POST": POST GroupCloseConnections)),
            ["groups", id, "connections"] => group(id, methods!("GET": GET GroupListConnections)),

            ["users", id] => user(id, methods!("GET, HEAD, POST": HEAD UserExists, GET UserExists, POST UserSend)),
            ["users", id, ":send"] => user(id, methods!("POST": POST UserSend)),
            ["users", id, ":closeConnections"] => user(id, methods!("POST": POST UserCloseConnections)),
            ["users", id, "groups"] => user(id, methods!("DELETE": DELETE UserLeaveAllGroups)),

            ["groups", id, "connections", cid] | ["connections", cid, "groups", id] => member(id, cid),
            ["groups", id, "users", uid] | ["users", uid, "groups", id] => user_member(id, uid),
            _ => return None,
        };
        let names = [shape.group, shape.user, shape.connection, shape.stream];
        if names.contains(&Some("")) { None } else { Some(shape) }
    }

    fn operation(&self, method: &Method) -> Result<Operation, ParseCallError> {
        let Methods { allowed, operations } = self.methods;
        operations
            .iter()
            .find_map(|(supported, operation)| (supported == method).then_some(*operation))
            .ok_or(ParseCallError::WrongMethod { allowed })
    }
}

fn has_escape(shape: &Shape<'_>) -> bool {
    [shape.group, shape.user, shape.connection, shape.stream].iter().flatten().any(|name| name.contains('%'))
}

/// The number of times that a path is percent-decoded to detect whether it becomes the path of another call: once as the service
/// does, and once more.
const DECODINGS: usize = 2;

/// Returns whether percent-decoding gives the path dot segments or turns it into the path of another call. A proxy in front of
/// the service might decode it.
///
/// A name may contain an encoded slash: the Management SDK sends user `user/a` as `user%2Fa`, and the service routes before it
/// decodes slashes. But `users/u%2f:closeConnections`, which the gateway parses as a message to one user, would be another
/// operation behind a proxy that decodes it. The same is true of dot segments after an encoded slash. A decoded path that has
/// more segments but matches no operation is accepted.
#[cold]
fn is_another_path(path: &str) -> bool {
    let mut path = Cow::Borrowed(path);
    for _ in 0..DECODINGS {
        let Ok(decoded) = percent_decode_str(&path).decode_utf8() else { return false };
        if decoded == path {
            return false;
        }
        let has_dots = decoded.split(['/', '\\']).any(|segment| matches!(segment, "." | ".."));
        let has_more_segments = decoded.matches('/').count() != path.matches('/').count();
        if has_dots || (has_more_segments && Shape::parse(&decoded).is_some()) {
            return true;
        }
        path = Cow::Owned(decoded.into_owned());
    }
    false
}

#[cfg(test)]
#[path = "grammar_tests.rs"]
mod tests;

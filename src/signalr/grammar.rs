//! Which operation a method and a path are. Decides nothing about whether it is allowed or where it goes.
//!
//! An operation is fully determined by the method and the shape of the path; the literal last segments keep their
//! colon (`:send`). Paths are split at raw slashes alone and compared with case, so nothing that is encoded can
//! change the operation.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use super::{Name, Operation};

/// A request that is a SignalR REST call: its operation and the names in it, borrowed from the request's URI.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call<'a> {
    /// What is asked for.
    pub operation: Operation,
    /// The hub; `None` for `health` and `access_key`.
    pub hub: Option<Name<'a>>,
    /// The group, if the path names one.
    pub group: Option<Name<'a>>,
    /// The user, if the path names one.
    pub user: Option<Name<'a>>,
    /// The connection, if the path names one.
    pub connection: Option<Name<'a>>,
    query: &'a str,
}

/// Why a request is not a SignalR REST call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseCallError {
    /// No operation has a path of this shape.
    #[error("the path is not one of the SignalR REST API")]
    UnknownPath,
    /// The path is an operation's, the method is not.
    #[error("this path takes {allowed}")]
    WrongMethod {
        /// The methods the path takes, as in an `Allow` header.
        allowed: &'static str,
    },
    /// The path has the shape of an operation's but a part of it cannot be.
    #[error("{0}")]
    Malformed(&'static str),
}

impl<'a> Call<'a> {
    /// Reads a request line's method, path and query.
    ///
    /// The v1 prefix and the current one take the same shapes, as Microsoft's emulator does: old forms
    /// (`POST …/users/{user}`) and new (`POST …/users/{user}/:send`), and both orders of user and group.
    ///
    /// # Errors
    /// [`ParseCallError`] says which answer the caller deserves.
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
                "the path would be another one if it were percent-decoded once more",
            ));
        }
        Ok(call)
    }

    /// Returns the first value of a query parameter, decoded. Keys are compared without case, since the SDKs and the
    /// definitions spell them differently (`maxPageSize`, `maxpagesize`).
    pub fn query_value(&self, key: &str) -> Option<Cow<'a, str>> {
        self.query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| name.eq_ignore_ascii_case(key))
            .map(|(_, value)| percent_decode_str(value).decode_utf8_lossy())
    }
}

/// A path's shape: the names in it and the operation of each method.
struct Shape<'a> {
    hub: Option<&'a str>,
    group: Option<&'a str>,
    user: Option<&'a str>,
    connection: Option<&'a str>,
    stream: Option<&'a str>,
    methods: Methods,
}

/// The methods a path takes, as in an `Allow` header, and what each of them asks for.
struct Methods {
    allowed: &'static str,
    operations: &'static [(Method, Operation)],
}

/// Declares the methods of a path. `HEAD` and `GET` stand together in every existence check: the definition has
/// `HEAD`, the SDK asks `GET` for user-in-group, v1 and the emulator take both.
macro_rules! methods {
    ($allowed:literal: $($method:ident $operation:ident),+) => {
        Methods { allowed: $allowed, operations: &[$((Method::$method, Operation::$operation)),+] }
    };
}

impl<'a> Shape<'a> {
    /// Reads a path behind its prefix.
    fn parse(path: &'a str) -> Option<Self> {
        let mut segments = [""; 7];
        let mut count = 0;
        let mut left = Some(path);
        while let Some(path) = left {
            // Names are short: a look at each byte is cheaper than a search that is made for long texts.
            let end = path.bytes().position(|byte| byte == b'/');
            let (segment, after) = end.and_then(|end| path.split_at_checked(end)).unwrap_or((path, ""));
            *segments.get_mut(count)? = segment;
            count += 1;
            left = after.strip_prefix('/');
        }
        Self::of(segments.get(..count).unwrap_or_default())
    }

    fn of(segments: &[&'a str]) -> Option<Self> {
        let nothing = |methods| Self { hub: None, group: None, user: None, connection: None, stream: None, methods };
        let (hub, rest) = match segments {
            ["health"] => return Some(nothing(methods!("GET, HEAD": HEAD Health, GET Health))),
            ["auth", "accessKey"] => return Some(nothing(methods!("GET": GET AccessKey))),
            ["hubs", hub, rest @ ..] => (*hub, rest),
            _ => return None,
        };
        let hub = |methods| Self { hub: Some(hub), ..nothing(methods) };
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
            .find_map(|(taken, operation)| (taken == method).then_some(*operation))
            .ok_or(ParseCallError::WrongMethod { allowed })
    }
}

fn has_escape(shape: &Shape<'_>) -> bool {
    [shape.group, shape.user, shape.connection, shape.stream].iter().flatten().any(|name| name.contains('%'))
}

/// How often a path is decoded to see whether it becomes another one: as the service does, and once more.
const DECODINGS: usize = 2;

/// Whether a path turns into that of another call when it is percent-decoded, as something on the way to the service may do.
///
/// A name may have an encoded slash (the Management SDK sends user `user/a` as `user%2Fa`), and the service decodes no slash
/// before it looks the path up. But `users/u%2f:closeConnections` would be allowed here as a message to one user and be another
/// operation behind a proxy that does; the same goes for dot segments behind an encoded slash. What is only longer, and no
/// call at all, stays what it is.
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

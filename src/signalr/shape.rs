//! The shapes of paths: where their literals and names stand, and the operation of each method.
//!
//! A path is a sequence of segments in which literals and names alternate, so a name never stands where another path has a
//! literal. The exceptions are `:refreshAuth` and `claims`, which stand in place of a connection.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use super::Operation;

/// The largest number of segments of a path, without its prefix.
pub(super) const MAX_SEGMENTS: usize = 7;

/// Stands in place of a connection.
const REFRESH_AUTH: &str = ":refreshAuth";
/// Stands in place of a connection.
const CLAIMS: &str = "claims";

/// The shape of a path: its names and the operation of each method.
#[derive(Clone, Copy)]
pub(super) struct Shape<'a> {
    pub(super) hub: Option<&'a str>,
    pub(super) group: Option<&'a str>,
    pub(super) user: Option<&'a str>,
    pub(super) connection: Option<&'a str>,
    pub(super) stream: Option<&'a str>,
    methods: Methods,
}

/// The methods that a path supports and the operation of each.
#[derive(Clone, Copy)]
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
    /// Parses a path without its prefix, whose literals are spelled as in the API definition.
    pub(super) fn parse(path: &'a str) -> Option<Self> {
        let mut segments = [""; MAX_SEGMENTS];
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

    /// Returns the shape of these segments; `None` if no operation has it.
    pub(super) fn of(segments: &[&'a str]) -> Option<Self> {
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

            ["connections", id] if id.eq_ignore_ascii_case(REFRESH_AUTH) => {
                hub(methods!("POST": POST ConnectionRefreshAuth))
            }
            ["connections", id] => connection(id, connection_methods(id)),
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
        if names.into_iter().flatten().all(may_be_name) { Some(shape) } else { None }
    }

    /// Returns the operation of a method.
    ///
    /// # Errors
    /// The supported methods, as in an `Allow` header.
    pub(super) fn operation(&self, method: &Method) -> Result<Operation, &'static str> {
        let Methods { allowed, operations } = self.methods;
        operations.iter().find_map(|(supported, operation)| (supported == method).then_some(*operation)).ok_or(allowed)
    }
}

/// Returns the methods of `connections/{id}`. Two literals of 2026-07-01 take precedence over the name, in every spelling and
/// with their own methods only: `POST …/connections/claims` reads claims, `DELETE …/connections/claims` closes a connection.
fn connection_methods(id: &str) -> Methods {
    match decoded_literal(id) {
        None => methods!("GET, HEAD, POST, DELETE":
            HEAD ConnectionExists, GET ConnectionExists, POST ConnectionSend, DELETE ConnectionClose),
        Some(CLAIMS) => methods!("GET, HEAD, POST, QUERY, DELETE":
            HEAD ConnectionExists, GET ConnectionExists, POST ConnectionClaims, QUERY ConnectionClaims,
            DELETE ConnectionClose),
        Some(_) => methods!("GET, HEAD, POST, DELETE":
            HEAD ConnectionExists, GET ConnectionExists, POST ConnectionRefreshAuth, DELETE ConnectionClose),
    }
}

/// Returns which literal this segment spells in place of a connection, if any.
fn decoded_literal(segment: &str) -> Option<&'static str> {
    if segment.len() != CLAIMS.len() && !segment.contains('%') {
        return None;
    }
    [CLAIMS, REFRESH_AUTH].into_iter().find(|literal| spells(segment, literal))
}

/// Returns whether a segment is a spelling of an ASCII literal: percent-decoded once, and compared without case.
pub(super) fn spells(segment: &str, literal: &str) -> bool {
    if segment.len() <= literal.len() || !segment.contains('%') {
        return segment.eq_ignore_ascii_case(literal);
    }
    let decoded = Cow::from(percent_decode_str(segment));
    decoded.eq_ignore_ascii_case(literal.as_bytes())
}

/// Returns whether a segment may be a name. An unencoded `:` begins an operation, which the API may have in place of a name.
fn may_be_name(segment: &str) -> bool {
    !matches!(segment.as_bytes().first(), None | Some(b':'))
}

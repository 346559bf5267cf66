//! Parses a method and a path into an operation and its names. Decides neither whether the call is allowed nor how it is routed.
//!
//! The method and the shape of the path determine the operation. The gateway must see the operation that the service sees:
//! its allow-lists and routes are of no use otherwise.
//!
//! # Spellings
//!
//! The service is an ASP.NET Core application, like Microsoft's emulator. How it reads a path was decided from the source of
//! both (`HttpRequest` of Kestrel and endpoint routing), since no page documents it:
//!
//! - The path is percent-decoded once, except `%2F`, which never separates segments.
//! - Literals are compared without ASCII case: `/API/Hubs/chat/:SEND`, `%3Asend`.
//! - One slash at the end is ignored. Other empty segments match nothing.
//! - A literal takes precedence over a name in the same place if it has the method: `POST …/connections/claims`, however it is
//!   spelled, reads claims; `DELETE …/connections/claims` closes the connection `claims`.
//!
//! The gateway accepts these spellings and forwards them unchanged. It refuses what the service would change before it routes
//! (dot segments), what a proxy in front of the service might change (see [`is_another_path`]), and a name that begins with an
//! unencoded `:`: it is the name of an operation that the API may gain. Encoded (`%3Abob`) it is a name.
//!
//! Paths in the spelling of the API definition are parsed without an allocation or a search; only others take the slow way.
//! A property test compares both with a model of ASP.NET Core's routing.

use std::borrow::Cow;

use http::Method;
use percent_encoding::percent_decode_str;

use super::parse_error::ParseCallError;
use super::shape::Shape;
use super::spelling::{Spelled, is_another_path};
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
        let (shape, is_v1, is_canonical) = match canonical(path) {
            Some((shape, is_v1)) => (shape, is_v1, true),
            None => Spelled::parse(path).map(|Spelled { shape, is_v1, .. }| (shape, is_v1, false))?,
        };
        let name = |segment: Option<&'a str>| segment.map(Name::new).transpose().map_err(ParseCallError::Malformed);
        let operation = shape.operation(method).map_err(|allowed| ParseCallError::WrongMethod { allowed })?;
        // Their literals stand in place of a connection.
        let has_connection = !matches!(operation, Operation::ConnectionRefreshAuth | Operation::ConnectionClaims);
        let connection = name(shape.connection.filter(|_| has_connection))?;
        let hub = |segment| if is_v1 { Name::v1_hub(segment) } else { Name::hub(segment) };
        let call = Self {
            operation,
            hub: shape.hub.map(hub).transpose().map_err(ParseCallError::Malformed)?,
            group: name(shape.group)?,
            user: name(shape.user)?,
            connection,
            query: query.unwrap_or_default(),
        };
        name(shape.stream)?;
        // Of the names, only one in place of a connection may decode to a literal.
        let may_become_literal = !is_canonical || operation == Operation::ConnectionSend;
        if (has_escape(&shape) || !is_canonical)
            && is_another_path(path, may_become_literal, |shape| {
                shape.operation(method).is_ok_and(|seen| seen != operation)
            })
        {
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

/// Returns the shape of a path in the spelling of the API definition, and whether it is of v1.
fn canonical(path: &str) -> Option<(Shape<'_>, bool)> {
    let rest = path.strip_prefix("/api/")?;
    let of_v1 = rest.strip_prefix("v1/");
    Some((Shape::parse(of_v1.unwrap_or(rest))?, of_v1.is_some()))
}

fn has_escape(shape: &Shape<'_>) -> bool {
    [shape.group, shape.user, shape.connection, shape.stream].iter().flatten().any(|name| name.contains('%'))
}

#[cfg(test)]
#[path = "grammar_tests.rs"]
mod tests;

//! Paths that are spelled differently from the API definition, and that the service reads as the same: `%3Asend`, `:SEND`,
//! a trailing slash.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use super::parse_error::ParseCallError;
use super::shape::{MAX_SEGMENTS, Shape, spells};

/// The literals of paths, without those that stand in place of a connection.
const LITERALS: [&str; 14] = [
    "health",
    "auth",
    "accessKey",
    "hubs",
    "connections",
    "groups",
    "users",
    "streams",
    ":send",
    ":closeConnections",
    ":execute",
    ":generateToken",
    ":invoke",
    ":complete",
];

/// The longest segment in an error, in bytes.
const MAX_SHOWN: usize = 100;

/// A path in any spelling.
pub(super) struct Spelled<'a> {
    pub(super) shape: Shape<'a>,
    pub(super) is_v1: bool,
    /// The number of segments without the prefix.
    segments: usize,
}

impl<'a> Spelled<'a> {
    /// Parses a path in any spelling.
    ///
    /// # Errors
    /// [`ParseCallError::UnknownPath`], or [`ParseCallError::UnknownOperation`] if a segment has the form of an operation.
    #[cold]
    pub(super) fn parse(path: &'a str) -> Result<Self, ParseCallError> {
        let path = path.strip_prefix('/').ok_or(ParseCallError::UnknownPath)?;
        let segments: Vec<&str> = path.strip_suffix('/').unwrap_or(path).split('/').collect();
        let [prefix, segments @ ..] = segments.as_slice() else { return Err(ParseCallError::UnknownPath) };
        let (is_v1, segments) = match segments {
            [version, segments @ ..] if spells(version, "v1") => (true, segments),
            segments => (false, segments),
        };
        if !spells(prefix, "api") || segments.len() > MAX_SEGMENTS {
            return Err(other_path(prefix));
        }
        let canonical: Vec<&str> =
            segments.iter().zip(0..).map(|(segment, index)| canonical(segments, segment, index)).collect();
        let shape = Shape::of(&canonical).ok_or_else(|| unknown(segments))?;
        Ok(Self { shape, is_v1, segments: segments.len() })
    }
}

/// Returns the error of a path that is not of the REST API. The names with `asp` are those of ASP.NET SignalR.
fn other_path(first: &str) -> ParseCallError {
    if ["server", "aspnetserver"].iter().any(|path| spells(first, path)) {
        ParseCallError::AppServerPath
    } else if ["client", "aspnetclient"].iter().any(|path| spells(first, path)) {
        ParseCallError::ClientPath
    } else {
        ParseCallError::UnknownPath
    }
}

/// Returns the literal that the segment at `index` spells, or the segment if it is a name or no literal.
fn canonical<'a>(segments: &[&'a str], segment: &'a str, index: usize) -> &'a str {
    let is_literal = index.is_multiple_of(2) || segments.first().is_some_and(|first| spells(first, "auth"));
    let literal = LITERALS.into_iter().filter(|_| is_literal).find(|literal| spells(segment, literal));
    literal.unwrap_or(segment)
}

/// Returns the error of a path that no operation has.
fn unknown(segments: &[&str]) -> ParseCallError {
    let is_hub_call = segments.first().is_some_and(|first| spells(first, "hubs")) && !segments.contains(&"");
    let is_operation = |segment: &str| is_hub_call && segment.starts_with(':');
    let is_known = |segment: &str| LITERALS.into_iter().any(|literal| segment.eq_ignore_ascii_case(literal));
    let mut unknown = segments.iter().enumerate();
    let unknown = unknown.find(|(index, segment)| is_operation(segment) && (index % 2 == 1 || !is_known(segment)));
    unknown.map_or(ParseCallError::UnknownPath, |(_, segment)| {
        let shown = segment.get(..MAX_SHOWN).unwrap_or(segment);
        ParseCallError::UnknownOperation { segment: shown.into() }
    })
}

/// The number of times that a path is percent-decoded to detect whether it becomes the path of another call: once as the service
/// does, and once more.
const DECODINGS: usize = 2;

/// Returns whether percent-decoding gives the path dot segments or turns it into the path of another call. A proxy in front of
/// the service might decode it. `is_other` says whether a shape has another operation than the call.
///
/// A name may contain an encoded slash: the Management SDK sends user `user/a` as `user%2Fa`, and the service routes before it
/// decodes slashes. But `users/u%2f:closeConnections`, which the gateway parses as a message to one user, would be another
/// operation behind a proxy that decodes it. The same is true of dot segments after an encoded slash. A decoded path that has
/// more segments but matches no operation is accepted.
#[cold]
pub(super) fn is_another_path(path: &str, is_other: impl Fn(&Shape<'_>) -> bool) -> bool {
    let segments = Spelled::parse(path).map(|spelled| spelled.segments);
    let mut path = Cow::Borrowed(path);
    for _ in 0..DECODINGS {
        let Ok(decoded) = percent_decode_str(&path).decode_utf8() else { return false };
        if decoded == path {
            return false;
        }
        let has_dots = decoded.split(['/', '\\']).any(|segment| matches!(segment, "." | ".."));
        let is_other = |spelled: Spelled<'_>| Ok(spelled.segments) != segments || is_other(&spelled.shape);
        if has_dots || Spelled::parse(&decoded).is_ok_and(is_other) {
            return true;
        }
        path = Cow::Owned(decoded.into_owned());
    }
    false
}

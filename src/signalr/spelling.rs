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

/// The segments of a path.
struct Segments<'a> {
    /// The first one, which is `api`.
    prefix: &'a str,
    is_v1: bool,
    /// Those without the prefix.
    rest: Vec<&'a str>,
}

impl<'a> Segments<'a> {
    fn of(path: &'a str) -> Option<Self> {
        let path = path.strip_prefix('/')?;
        let mut segments = path.strip_suffix('/').unwrap_or(path).split('/');
        let prefix = segments.next()?;
        let mut rest: Vec<&str> = segments.collect();
        let is_v1 = rest.first().is_some_and(|version| spells(version, "v1"));
        if is_v1 {
            rest.remove(0);
        }
        Some(Self { prefix, is_v1, rest })
    }

    /// Returns the error of a path that no operation has.
    fn unknown(&self) -> ParseCallError {
        if spells(self.prefix, "api") { unknown(&self.rest) } else { other_path(self.prefix) }
    }
}

impl<'a> Spelled<'a> {
    /// Parses a path in any spelling.
    ///
    /// # Errors
    /// [`ParseCallError`] says what the path is instead.
    #[cold]
    pub(super) fn parse(path: &'a str) -> Result<Self, ParseCallError> {
        let unknown = || Segments::of(path).map_or(ParseCallError::UnknownPath, |segments| segments.unknown());
        Self::find(path).ok_or_else(unknown)
    }

    fn find(path: &'a str) -> Option<Self> {
        let Segments { prefix, is_v1, mut rest } = Segments::of(path)?;
        if !spells(prefix, "api") || rest.len() > MAX_SEGMENTS {
            return None;
        }
        let has_only_literals = rest.first().is_some_and(|first| spells(first, "auth"));
        let step = if has_only_literals { 1 } else { 2 };
        // Most paths that are no call differ at the end.
        for segment in rest.iter_mut().step_by(step).rev() {
            *segment = literal(segment)?;
        }
        Some(Self { shape: Shape::of(&rest)?, is_v1, segments: rest.len() })
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

/// Returns the literal that a segment spells, if any.
fn literal(segment: &str) -> Option<&'static str> {
    LITERALS.into_iter().find(|literal| spells(segment, literal))
}

/// Returns the error of a path of the REST API that no operation has.
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
/// the service might decode it. `is_other` says whether a shape has another operation than the
/// call. `may_become_literal` says whether a decoded segment may be a literal that has another operation.
///
/// A name may contain an encoded slash: the Management SDK sends user `user/a` as `user%2Fa`, and the service routes before it
/// decodes slashes. But `users/u%2f:closeConnections`, which the gateway parses as a message to one user, would be another
/// operation behind a proxy that decodes it. The same is true of dot segments after an encoded slash. A decoded path that has
/// more segments but matches no operation is accepted.
#[cold]
pub(super) fn is_another_path(path: &str, may_become_literal: bool, is_other: impl Fn(&Shape<'_>) -> bool) -> bool {
    let slashes = |path: &str| path.bytes().filter(|byte| *byte == b'/').count();
    let sent = path;
    let mut path = Cow::Borrowed(path);
    for _ in 0..DECODINGS {
        let Ok(decoded) = percent_decode_str(&path).decode_utf8() else { return false };
        if decoded == path {
            return false;
        }
        let has_dots = decoded.split(['/', '\\']).any(|segment| matches!(segment, "." | ".."));
        let must_compare = may_become_literal || slashes(&decoded) != slashes(sent);
        if has_dots || (must_compare && differs(sent, &decoded, &is_other)) {
            return true;
        }
        path = Cow::Owned(decoded.into_owned());
    }
    false
}

/// Returns whether a decoded path has the shape of another call than the path that was sent.
fn differs(sent: &str, decoded: &str, is_other: &impl Fn(&Shape<'_>) -> bool) -> bool {
    let Some(seen) = Spelled::find(decoded) else { return false };
    is_other(&seen.shape) || Spelled::find(sent).is_some_and(|sent| sent.segments != seen.segments)
}

//! A name inside a path (hub, group, user, connection), kept as the caller sent it.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// One path segment that names something, in the percent-encoded form in which it came and goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a>(&'a str);

impl<'a> Name<'a> {
    /// Takes a segment; says what is wrong with it otherwise.
    ///
    /// Dot segments are refused in every spelling, since what lies between us and the service may resolve them and
    /// so make another path of it (RFC 3986 section 5.2.4). An encoded slash stays inside its segment: the Management
    /// SDK sends user `user/a` as `user%2Fa`.
    pub(super) fn new(segment: &'a str) -> Result<Self, &'static str> {
        let name = Self(segment);
        let decoded = name.try_decoded().ok_or("a name in the path is not valid percent-encoded UTF-8")?;
        match &*decoded {
            "." | ".." => Err("a path segment is `.` or `..`"),
            _ => Ok(name),
        }
    }

    /// Takes a hub name.
    ///
    /// Source: the pattern in `docs/swagger/v20241201.json`; the emulator's `ParameterValidator.cs` has the same.
    pub(super) fn hub(segment: &'a str) -> Result<Self, &'static str> {
        let name = Self(segment);
        let decoded = name.try_decoded().unwrap_or_default();
        let is_hub = decoded.len() <= 128
            && decoded.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
            && decoded.bytes().all(Self::is_of_hub);
        if is_hub {
            Ok(name)
        } else {
            Err("the hub name must start with a letter and have at most 128 letters, digits or _`,.[]")
        }
    }

    /// Whether a byte may stand in a hub name.
    pub fn is_of_hub(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || b"_`,.[]".contains(&byte)
    }

    /// Returns the segment as it came.
    pub fn raw(self) -> &'a str {
        self.0
    }

    /// Returns the name itself, percent-decoded once.
    pub fn decoded(self) -> Cow<'a, str> {
        // Checked on construction, so the fallback is never taken.
        self.try_decoded().unwrap_or(Cow::Borrowed(self.0))
    }

    /// Iterates over the bytes of the name itself, percent-decoded once. Allocates nothing.
    pub fn bytes(self) -> impl Iterator<Item = u8> + 'a {
        percent_decode_str(self.0)
    }

    fn try_decoded(self) -> Option<Cow<'a, str>> {
        if !self.0.contains('%') {
            return Some(Cow::Borrowed(self.0));
        }
        let well_formed =
            self.0.split('%').skip(1).all(|escape| {
                escape.as_bytes().get(..2).is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
            });
        if well_formed { percent_decode_str(self.0).decode_utf8().ok() } else { None }
    }
}

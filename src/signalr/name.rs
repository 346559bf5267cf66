//! Names in paths (hub, group, user, connection), validated and kept as the caller sent them.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

/// A name in a path, still percent-encoded. It is forwarded in the same form.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<'a>(&'a str);

impl<'a> Name<'a> {
    /// Parses a path segment. The error describes what is invalid.
    ///
    /// Dot segments are errors in every spelling, since a proxy in front of the service may remove them and so change the path
    /// (RFC 3986 section 5.2.4). An encoded slash is part of the name: the Management SDK sends user `user/a` as `user%2Fa`.
    pub(super) fn new(segment: &'a str) -> Result<Self, &'static str> {
        let name = Self(segment);
        let decoded = name.try_decoded().ok_or("a name in the path is not valid percent-encoded UTF-8")?;
        match &*decoded {
            "." | ".." => Err("a path segment is `.` or `..`"),
            _ => Ok(name),
        }
    }

    /// Parses a hub name. The error describes what is invalid.
    ///
    /// Source: the pattern in `docs/swagger/v20241201.json`; the emulator's `ParameterValidator.cs` has the same.
    pub(super) fn hub(segment: &'a str) -> Result<Self, &'static str> {
        let name = Self(segment);
        let decoded = name.try_decoded().unwrap_or_default();
        let is_hub = decoded.len() <= 128
            && decoded.bytes().next().is_some_and(|first| first.is_ascii_alphabetic())
            && decoded.bytes().all(Self::is_hub_byte);
        if is_hub {
            Ok(name)
        } else {
            Err("the hub name must start with a letter and consist of at most 128 letters, digits and _`,.[]")
        }
    }

    /// Parses a hub name in a path of v1, where older SDKs write `application_hub`. The application may have a hyphen.
    pub(super) fn v1_hub(segment: &'a str) -> Result<Self, &'static str> {
        Self::hub(segment).or_else(|invalid| {
            let name = Self(segment);
            let decoded = name.try_decoded().unwrap_or_default();
            let is_application = |name: &str| {
                name.starts_with(|first: char| first.is_ascii_alphabetic())
                    && name.bytes().all(|byte| byte == b'-' || Self::is_hub_byte(byte))
            };
            let is_valid = decoded.rsplit_once('_').is_some_and(|(application, hub)| {
                decoded.len() <= 128 && is_application(application) && hub.bytes().all(Self::is_hub_byte)
            });
            if is_valid { Ok(name) } else { Err(invalid) }
        })
    }

    /// Returns whether a hub name may contain the byte.
    pub fn is_hub_byte(byte: u8) -> bool {
        byte.is_ascii_alphanumeric() || b"_`,.[]".contains(&byte)
    }

    /// Returns the name as the caller sent it.
    pub fn raw(self) -> &'a str {
        self.0
    }

    /// Returns the name, percent-decoded once.
    pub fn decoded(self) -> Cow<'a, str> {
        // The constructor has decoded it once, so the fallback is not reached.
        self.try_decoded().unwrap_or(Cow::Borrowed(self.0))
    }

    /// Iterates over the bytes of the name, percent-decoded once. Does not allocate.
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

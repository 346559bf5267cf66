//! Warnings about files that can be used: invisible characters that tools add, and access by other users.

use std::fmt;

/// A warning about a file or variable, without any part of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileWarning {
    /// White space before or after a secret.
    Whitespace,
    /// Quotes around a secret.
    Quotes,
    /// More than one line in a secret.
    SeveralLines,
    /// Characters that no editor shows.
    InvisibleCharacters,
    /// PEM that lacks the required line breaks.
    PemInOneLine,
    /// Every user of this host can read it.
    ReadableByAll {
        /// Its mode.
        mode: u32,
    },
    /// Every user of this host can write it.
    WritableByAll {
        /// Its mode.
        mode: u32,
    },
}

impl fmt::Display for FileWarning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Whitespace => {
                "begins or ends with white space, which is sent as part of the secret: remove it unless it belongs to the secret"
            }
            Self::Quotes => "is in quotes, which are sent as part of the secret: remove them unless they belong to it",
            Self::SeveralLines => {
                "has several lines, which are sent as one secret: keep the line that is the secret, and no other"
            }
            Self::InvisibleCharacters => {
                "has invisible characters (such as a zero-width or a non-breaking space), which are sent as part of the \
                 secret: enter it again"
            }
            Self::PemInOneLine => {
                "has its PEM in one line, which other programs may not accept: convert `\\n` to line breaks with \
                 `printf '%b' \"$(cat FILE)\"`"
            }
            Self::ReadableByAll { mode } => {
                return write!(f, "has mode {mode:04o}, so every user of this host can read it: remove that with `chmod o-rwx FILE`, which keeps its group");
            }
            Self::WritableByAll { mode } => {
                return write!(f, "has mode {mode:04o}, so every user of this host can replace its content: remove that with `chmod o-rwx FILE`, which keeps its group");
            }
        })
    }
}

/// Returns the warnings about a secret. Its trailing line breaks must have been removed.
pub fn warnings_about_secret(secret: &str) -> Vec<FileWarning> {
    let inside = secret.trim();
    let is_quoted = |quote| inside.len() > 1 && inside.starts_with(quote) && inside.ends_with(quote);
    let is_invisible = |ch: char| {
        matches!(ch, '\u{a0}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2060}' | '\u{feff}')
            || ch.is_control() && !ch.is_whitespace()
    };
    let found = [
        (inside != secret, FileWarning::Whitespace),
        (is_quoted('"') || is_quoted('\''), FileWarning::Quotes),
        (inside.contains(['\n', '\r']), FileWarning::SeveralLines),
        (inside.contains(is_invisible), FileWarning::InvisibleCharacters),
    ];
    found.into_iter().filter(|(applies, _)| *applies).map(|(_, warning)| warning).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_about_characters_that_tools_add_to_a_secret() {
        for (secret, expected) in [
            ("s3cret", vec![]),
            ("s3cret ", vec![FileWarning::Whitespace]),
            ("\"s3cret\"", vec![FileWarning::Quotes]),
            ("'s3cret' ", vec![FileWarning::Whitespace, FileWarning::Quotes]),
            ("one\ntwo", vec![FileWarning::SeveralLines]),
            ("s3\u{200b}cret", vec![FileWarning::InvisibleCharacters]),
            ("s3\0cret", vec![FileWarning::InvisibleCharacters]),
            ("\"", vec![]),
        ] {
            assert_eq!(warnings_about_secret(secret), expected, "{secret:?}");
        }
    }
}

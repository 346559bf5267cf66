//! Warnings about files that do not prevent their use: characters that tools add invisibly, and access by other users.

use std::fmt;

/// A warning about a file or variable, without any part of its content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remark {
    /// White space before or after a secret.
    Blanks,
    /// Quotes around a secret.
    Quotes,
    /// A secret of several lines.
    SeveralLines,
    /// Characters that no editor shows.
    Invisible,
    /// PEM without line breaks.
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

impl fmt::Display for Remark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Blanks => {
                "begins or ends with white space, which is sent as part of the secret: remove it unless it belongs to the secret"
            }
            Self::Quotes => "is in quotes, which are sent as part of the secret: remove them unless they belong to it",
            Self::SeveralLines => {
                "has several lines, which are sent as one secret: keep the line that is the secret, and no other"
            }
            Self::Invisible => {
                "has invisible characters (such as a zero-width or a non-breaking space), which are sent as part of the \
                 secret: enter it again"
            }
            Self::PemInOneLine => {
                "has its PEM in one line, which other programs may not accept: convert `\\n` to line breaks with \
                 `printf '%b' \"$(cat FILE)\"`"
            }
            Self::ReadableByAll { mode } => {
                return write!(f, "has mode {mode:04o}, so every user of this host can read it: chmod 600");
            }
            Self::WritableByAll { mode } => {
                return write!(f, "has mode {mode:04o}, so every user of this host can replace its content: chmod 600");
            }
        })
    }
}

/// Returns the warnings about a secret, given without its trailing line break.
pub fn remarks_on_secret(secret: &str) -> Vec<Remark> {
    let inside = secret.trim();
    let is_quoted = |quote| inside.len() > 1 && inside.starts_with(quote) && inside.ends_with(quote);
    let is_invisible = |letter: char| {
        matches!(letter, '\u{a0}' | '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202f}' | '\u{2060}' | '\u{feff}')
            || letter.is_control() && !letter.is_whitespace()
    };
    let found = [
        (inside != secret, Remark::Blanks),
        (is_quoted('"') || is_quoted('\''), Remark::Quotes),
        (inside.contains(['\n', '\r']), Remark::SeveralLines),
        (inside.contains(is_invisible), Remark::Invisible),
    ];
    found.into_iter().filter(|(is_so, _)| *is_so).map(|(_, remark)| remark).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warns_about_what_tools_add_to_a_secret() {
        for (secret, expected) in [
            ("s3cret", vec![]),
            ("s3cret ", vec![Remark::Blanks]),
            ("\"s3cret\"", vec![Remark::Quotes]),
            ("'s3cret' ", vec![Remark::Blanks, Remark::Quotes]),
            ("one\ntwo", vec![Remark::SeveralLines]),
            ("s3\u{200b}cret", vec![Remark::Invisible]),
            ("s3\0cret", vec![Remark::Invisible]),
            ("\"", vec![]),
        ] {
            assert_eq!(remarks_on_secret(secret), expected, "{secret:?}");
        }
    }
}

//! What is odd about a file and does not stop its use: bytes that tools add unseen, and who else can reach it.

use std::fmt;

/// Something odd about a file or variable. It repeats nothing of what is in it.
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
    /// PEM whose line breaks are not line breaks.
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
                "begins or ends with blanks, which are sent as part of the secret: remove them unless they belong to it"
            }
            Self::Quotes => "is in quotes, which are sent as part of the secret: remove them unless they belong to it",
            Self::SeveralLines => {
                "has several lines, which are sent as one secret: keep the line that is the secret, and no other"
            }
            Self::Invisible => {
                "has characters that no editor shows (such as a zero-width or a non-breaking space), which are sent as part \
                 of the secret: write it anew"
            }
            Self::PemInOneLine => {
                "has its PEM in one line; it is understood here, but other programs want line breaks, such as \
                 `printf '%b' \"$(cat FILE)\"` makes of `\\n`"
            }
            Self::ReadableByAll { mode } => {
                return write!(f, "has mode {mode:04o}, so every user of this host can read it: chmod 600");
            }
            Self::WritableByAll { mode } => {
                return write!(f, "has mode {mode:04o}, so every user of this host can replace what is in it: chmod 600");
            }
        })
    }
}

/// Says what is odd about a secret, whose last line break is gone already.
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
    fn says_what_tools_add_unseen() {
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

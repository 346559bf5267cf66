//! `*` patterns over names.

use std::fmt;

/// A name, or a pattern in which `*` stands for any run of characters (an empty one too).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    case: Case,
    is_exact: bool,
}

/// Whether letters of different case are different.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// `Chat` and `chat` are two names (groups, users).
    Sensitive,
    /// `Chat` and `chat` are one name (hubs, applications). ASCII letters alone: hub names have no others.
    Insensitive,
}

impl Pattern {
    /// Makes a pattern of what the operator wrote.
    pub fn new(text: &str, case: Case) -> Self {
        let text = match case {
            Case::Sensitive => text.to_owned(),
            Case::Insensitive => text.to_ascii_lowercase(),
        };
        let is_exact = !text.contains('*');
        Self { text, case, is_exact }
    }

    /// Returns the one name this matches, in lower case where case does not count; `None` if it has a `*`.
    pub fn exact(&self) -> Option<&str> {
        self.is_exact.then_some(&self.text)
    }

    /// Whether `name` matches. Takes time in proportion to both lengths at most, whatever the pattern.
    pub fn matches(&self, name: &str) -> bool {
        let same = |pattern: u8, byte: u8| match self.case {
            Case::Sensitive => pattern == byte,
            Case::Insensitive => pattern == byte.to_ascii_lowercase(),
        };
        let equal = |pattern: &[u8], bytes: &[u8]| {
            pattern.len() == bytes.len() && pattern.iter().zip(bytes).all(|(p, b)| same(*p, *b))
        };
        let name = name.as_bytes();
        if self.is_exact {
            return equal(self.text.as_bytes(), name);
        }
        // The first and the last piece are anchored; those between are found greedily from the left, which is
        // enough since `*` is the only wildcard.
        let mut pieces = self.text.as_bytes().split(|byte| *byte == b'*');
        let first = pieces.next().unwrap_or_default();
        let last = pieces.next_back().unwrap_or_default();
        let Some((head, rest)) = name.split_at_checked(first.len()) else { return false };
        let Some((middle, tail)) = rest.len().checked_sub(last.len()).and_then(|at| rest.split_at_checked(at)) else {
            return false;
        };
        if !equal(first, head) || !equal(last, tail) {
            return false;
        }
        let mut middle = middle;
        pieces.filter(|piece| !piece.is_empty()).all(|piece| {
            let found = middle.windows(piece.len()).position(|window| equal(piece, window));
            middle = found.and_then(|at| middle.get(at + piece.len()..)).unwrap_or_default();
            found.is_some()
        })
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn matches_as_a_person_would_expect() {
        for (pattern, name, expected) in [
            ("chat", "chat", true),
            ("chat", "chats", false),
            ("chat*", "chat", true),
            ("chat*", "chatroom", true),
            ("*room", "chatroom", true),
            ("*room", "chatrooms", false),
            ("c*t*m", "chatroom", true),
            ("c*t*m", "cm", false),
            ("a*a", "a", false),
            ("*", "", true),
            ("**", "anything", true),
            ("*ab*ab*", "xabab", true),
            ("*ab*ab*", "xaba", false),
        ] {
            assert_eq!(Pattern::new(pattern, Case::Sensitive).matches(name), expected, "{pattern} {name}");
        }
    }

    #[test]
    fn case_counts_only_where_it_should() {
        assert!(Pattern::new("Chat*", Case::Insensitive).matches("cHATroom"));
        assert!(!Pattern::new("Chat*", Case::Sensitive).matches("chatroom"));
    }

    /// The textbook recursion, slow and plainly right.
    fn reference(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), None) => reference(rest, name),
            (Some((b'*', rest)), Some((_, tail))) => reference(rest, name) || reference(pattern, tail),
            (Some((p, rest)), Some((b, tail))) => p == b && reference(rest, tail),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn agrees_with_the_textbook(pattern in "[ab*]{0,8}", name in "[ab]{0,10}") {
            let ours = Pattern::new(&pattern, Case::Sensitive).matches(&name);
            prop_assert_eq!(ours, reference(pattern.as_bytes(), name.as_bytes()));
        }
    }
}

//! Patterns with `*` for names.

use std::fmt;

/// A name, or a pattern in which `*` matches any number of characters, including none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    text: String,
    case: Case,
    is_exact: bool,
}

/// Whether case is significant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// `Chat` and `chat` are different names (groups, users).
    Sensitive,
    /// `Chat` and `chat` are the same name (hubs, applications). Only ASCII letters are folded: hub names have no others.
    Insensitive,
}

/// A hub, or what the names of several hubs begin with. In lower case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct HubKey<'a> {
    text: &'a str,
    is_prefix: bool,
}

impl<'a> HubKey<'a> {
    /// Returns the name or the prefix.
    pub(super) fn text(self) -> &'a str {
        self.text
    }

    /// Returns whether longer names match too.
    pub(super) fn is_prefix(self) -> bool {
        self.is_prefix
    }
}

impl Pattern {
    /// Parses a configured name or pattern.
    pub fn new(text: &str, case: Case) -> Self {
        let text = match case {
            Case::Sensitive => text.to_owned(),
            Case::Insensitive => text.to_ascii_lowercase(),
        };
        let is_exact = !text.contains('*');
        Self { text, case, is_exact }
    }

    /// Returns the key by which the hub index finds the pattern. `None` if its `*` is not at the end, or if case is
    /// significant.
    pub(super) fn hub_key(&self) -> Option<HubKey<'_>> {
        let text = self.text.trim_end_matches('*');
        let is_key = self.case == Case::Insensitive && !text.contains('*');
        is_key.then_some(HubKey { text, is_prefix: !self.is_exact })
    }

    /// Returns whether `name` matches. The time is at most proportional to the product of both lengths.
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
        // The first and the last piece are anchored. Those between are matched greedily from the left, which is sufficient
        // since `*` is the only wildcard.
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
    fn star_matches_any_number_of_characters() {
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
    fn case_is_significant_only_if_configured() {
        assert!(Pattern::new("Chat*", Case::Insensitive).matches("cHATroom"));
        assert!(!Pattern::new("Chat*", Case::Sensitive).matches("chatroom"));
    }

    /// The textbook recursion: slow and obviously correct.
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
        fn agrees_with_the_reference(pattern in "[ab*]{0,8}", name in "[ab]{0,10}") {
            let ours = Pattern::new(&pattern, Case::Sensitive).matches(&name);
            prop_assert_eq!(ours, reference(pattern.as_bytes(), name.as_bytes()));
        }
    }
}

//! Whether case is significant in names.

/// Whether case is significant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Case {
    /// `Chat` and `chat` are different names (groups, users).
    Sensitive,
    /// `Chat` and `chat` are the same name (hubs, applications). Only ASCII letters are folded: hub names have no others.
    Insensitive,
}

impl Case {
    /// Returns the form of a configured text that names are compared with.
    pub(super) fn fold(self, text: &str) -> String {
        match self {
            Self::Sensitive => text.to_owned(),
            Self::Insensitive => text.to_ascii_lowercase(),
        }
    }

    /// Returns whether a name is the same as a folded text.
    pub(super) fn is_same(self, folded: &[u8], name: &[u8]) -> bool {
        match self {
            Self::Sensitive => folded == name,
            Self::Insensitive => folded.eq_ignore_ascii_case(name),
        }
    }
}

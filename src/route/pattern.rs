//! Patterns with `*` for names.

use std::fmt;

use super::capture::{Capture, CaptureError};
use super::case::Case;

/// A name, or a pattern in which `*` matches any number of characters, including none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern {
    /// Folded, with `*` in place of the capture.
    text: String,
    case: Case,
    is_exact: bool,
    capture: Option<Box<Capture>>,
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
    /// Parses a configured name or pattern that names no endpoint.
    pub fn new(text: &str, case: Case) -> Self {
        Self { text: case.fold(text), case, is_exact: !text.contains('*'), capture: None }
    }

    /// Parses a configured name or pattern whose `{endpoint}` names the endpoint.
    ///
    /// # Errors
    /// [`CaptureError`] if it is not clear what names the endpoint.
    pub fn with_capture(text: &str, case: Case) -> Result<Self, CaptureError> {
        Ok(match Capture::parse(text, case)? {
            None => Self::new(text, case),
            Some((text, capture)) => Self { capture: Some(Box::new(capture)), ..Self::new(&text, case) },
        })
    }

    /// Returns whether a part of the name that matches names the endpoint.
    pub fn names_endpoint(&self) -> bool {
        self.capture.is_some()
    }

    /// Returns whether case is significant.
    pub fn case(&self) -> Case {
        self.case
    }

    /// Returns the text at which the endpoint's name ends, folded if case is not significant. `None` if the name ends the
    /// pattern, or if there is none.
    pub fn capture_end(&self) -> Option<&str> {
        self.capture.as_ref().map(|capture| capture.end()).filter(|end| !end.is_empty())
    }

    /// Returns whether the endpoint's name begins the pattern.
    pub fn begins_with_capture(&self) -> bool {
        self.capture.as_ref().is_some_and(|capture| capture.start() == 0)
    }

    /// Returns the part of `name`, which matches, that names the endpoint. `None` if the text after that part occurs in it.
    pub(super) fn captured<'n>(&self, name: &'n str) -> Option<&'n str> {
        self.capture.as_ref()?.find(name, self.case)
    }

    /// Returns the name if it is one, and no pattern.
    pub fn exact(&self) -> Option<&str> {
        self.is_exact.then_some(self.text.as_str())
    }

    /// Returns the text before the first `*`.
    pub fn fixed_start(&self) -> &str {
        self.text.split_once('*').map_or(&*self.text, |(start, _)| start)
    }

    /// Returns a key by which narrower patterns sort before wider ones.
    pub(super) fn breadth(&self) -> (std::cmp::Reverse<usize>, usize) {
        let stars = self.text.bytes().filter(|byte| *byte == b'*').count();
        // Adjacent `*` match what one does.
        let pieces = self.text.split('*').filter(|piece| !piece.is_empty()).count();
        let ends = usize::from(self.text.starts_with('*')) + usize::from(self.text.ends_with('*'));
        (std::cmp::Reverse(self.text.len() - stars), pieces + ends)
    }

    /// Returns whether every name that `other` matches matches this pattern too. Both must have the same case.
    pub fn includes(&self, other: &Self) -> bool {
        // Only a `*` of this pattern can match a `*` of the other one.
        self.matches(&other.text)
    }

    /// Returns whether a name exists that matches both patterns. Both must have the same case. The time is proportional to the
    /// product of both lengths.
    pub fn overlaps(&self, other: &Self) -> bool {
        let (one, other) = (self.text.as_bytes(), other.text.as_bytes());
        // Whether the rest of this pattern, from each byte on, overlaps the rest of the other one that was looked at last.
        let ends = |rest: &[u8]| rest.iter().all(|byte| *byte == b'*');
        let mut after: Vec<bool> = (0..=one.len()).map(|at| ends(one.get(at..).unwrap_or_default())).collect();
        for (at, theirs) in other.iter().enumerate().rev() {
            let mut now = vec![ends(other.get(at..).unwrap_or_default()); one.len() + 1];
            for (index, ours) in one.iter().enumerate().rev() {
                let get = |row: &[bool], index: usize| row.get(index).copied().unwrap_or_default();
                let (skips_ours, skips_theirs, skips_both) =
                    (get(&now, index + 1), get(&after, index), get(&after, index + 1));
                let overlap = match (*ours, *theirs) {
                    // A `*` matches nothing more, or the next byte of the other pattern.
                    (b'*', _) | (_, b'*') => skips_ours || skips_theirs,
                    (ours, theirs) => ours == theirs && skips_both,
                };
                if let Some(slot) = now.get_mut(index) {
                    *slot = overlap;
                }
            }
            after = now;
        }
        after.first().copied().unwrap_or_default()
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
        let equal = |pattern: &[u8], bytes: &[u8]| self.case.is_same(pattern, bytes);
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
        match &self.capture {
            None => f.write_str(&self.text),
            Some(capture) => f.write_str(&capture.restore(&self.text)),
        }
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

    #[test]
    fn endpoint_name_ends_at_the_first_text_after_it() {
        for (pattern, name, captured) in [
            ("{endpoint}_*", "Contoso_chat", Some("Contoso")),
            ("{endpoint}_*", "contoso_eu_chat", Some("contoso")),
            ("{endpoint}_*", "_chat", Some("")),
            ("{endpoint}_Chat", "contoso_eu_cHAT", Some("contoso_eu")),
            ("{endpoint}_chat", "contoso_chat_chat", None),
            ("{endpoint}_chat*", "contoso_chat_chat", Some("contoso")),
            ("app_{endpoint}", "APP_contoso_eu", Some("contoso_eu")),
            ("{endpoint}", "contoso", Some("contoso")),
            ("app_{endpoint}_*_x", "app_a_b_x", Some("a")),
            ("chat", "chat", None),
        ] {
            let pattern = Pattern::with_capture(pattern, Case::Insensitive).unwrap();
            assert!(pattern.matches(name), "{pattern} {name}");
            assert_eq!(pattern.captured(name), captured, "{pattern} {name}");
        }
        let sensitive = Pattern::with_capture("{endpoint}X*", Case::Sensitive).unwrap();
        assert_eq!(sensitive.captured("axbXc"), Some("axb"));
        assert_eq!(sensitive.to_string(), "{endpoint}X*");
    }

    #[test]
    fn unclear_captures_are_rejected() {
        for (pattern, expected) in [
            ("{endpoint}{endpoint}", CaptureError::Repeated),
            ("*_{endpoint}", CaptureError::AfterStar),
            ("{endpoint}*", CaptureError::BeforeStar),
        ] {
            assert_eq!(Pattern::with_capture(pattern, Case::Sensitive), Err(expected), "{pattern}");
        }
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

        #[test]
        fn overlap_and_inclusion_are_those_of_the_names_that_match(one in "[ab*]{0,5}", other in "[ab*]{0,5}") {
            // Every name up to a length at which patterns of this size have shown all that they match; `c` is in no pattern.
            let mut names = vec![String::new()];
            let mut from = 0;
            for _ in 0..6 {
                let longer: Vec<_> = names[from..].iter().flat_map(|name| ["a", "b", "c"].map(|ch| name.clone() + ch)).collect();
                from = names.len();
                names.extend(longer);
            }
            let (first, second) = (Pattern::new(&one, Case::Sensitive), Pattern::new(&other, Case::Sensitive));
            let both = names.iter().any(|name| first.matches(name) && second.matches(name));
            let includes = names.iter().all(|name| first.matches(name) || !second.matches(name));
            // Two patterns of five characters overlap in a name of up to ten, so only one direction is certain.
            prop_assert!(!both || first.overlaps(&second), "{one} {other}");
            prop_assert_eq!(first.overlaps(&second), second.overlaps(&first));
            if one.len() + other.len() <= 6 {
                prop_assert_eq!(both, first.overlaps(&second), "{} {}", &one, &other);
                prop_assert_eq!(includes, first.includes(&second), "{} {}", &one, &other);
            }
            if first.includes(&second) && !second.includes(&first) {
                prop_assert!(second.breadth() < first.breadth(), "{one} {other}");
            }
        }
    }
}

//! Names and texts in the lines of the verdict.

use crate::redact::one_line;

/// The most names in a line.
const MAX_NAMES: usize = 3;
/// The longest error in a line, in characters.
const MAX_ERROR: usize = 240;

/// Returns the first names, and how many more there are.
pub(super) fn names(names: impl Iterator<Item = String>, count: usize) -> String {
    let first: Vec<String> = names.take(MAX_NAMES).collect();
    match count.saturating_sub(first.len()) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Returns a text in one line, and its first words if it is long.
pub(super) fn shortened(text: &str) -> String {
    let text = one_line(text);
    let Some((end, _)) = text.char_indices().nth(MAX_ERROR) else { return text };
    let cut = text.get(..end).unwrap_or(&text);
    // The last part is left out if enough remains. A word that is as long as the limit is cut.
    let parts = cut.rsplit_once("; ").map(|(parts, _)| parts).filter(|parts| parts.len() > MAX_ERROR / 2);
    let words = parts.unwrap_or_else(|| cut.rsplit_once(' ').map_or(cut, |(words, _)| words));
    format!("{words} …")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_text_ends_with_a_whole_word() {
        let text = "word ".repeat(100);
        let shortened = shortened(&text);
        assert!(shortened.ends_with("word …") && shortened.chars().count() <= MAX_ERROR + 2, "{shortened}");
        assert_eq!(super::shortened("a\n b"), "a b");
        let parts = format!("{}; it sent no {}", "issuer ".repeat(20).trim_end(), "certificate ".repeat(10));
        assert!(super::shortened(&parts).ends_with("issuer …"), "{}", super::shortened(&parts));
        assert_eq!(super::shortened(&"x".repeat(300)).chars().count(), MAX_ERROR + 2);
    }
}

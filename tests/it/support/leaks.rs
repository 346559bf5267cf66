//! Finds parts of secrets in text: any 8 consecutive bytes, as text, decimal numbers, hex or base64.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD_INDIFFERENT;

const WINDOW: usize = 8;

/// The parts of secrets that no text may contain.
#[derive(Default)]
pub(crate) struct Leaks(HashSet<Vec<u8>>);

impl Leaks {
    /// Adds a secret. It must be random enough that 8 of its bytes occur nowhere by chance.
    pub(crate) fn add(&mut self, secret: &[u8]) {
        self.0.extend(secret.windows(WINDOW).map(<[u8]>::to_vec));
    }

    /// Returns the first part of a secret in a text, and its encoding.
    pub(crate) fn find(&self, text: &str) -> Option<String> {
        let found = |how: &str, bytes: &[u8]| {
            let window = bytes.windows(WINDOW).find(|window| self.0.contains(*window))?;
            Some(format!("{:?} {how}", String::from_utf8_lossy(window)))
        };
        let decimal = decimal(text);
        let without_spaces: String = text.chars().filter(|letter| !letter.is_whitespace() && *letter != '\0').collect();
        let found_in_text = found("as text", text.as_bytes())
            .or_else(|| found("spaced out", without_spaces.as_bytes()))
            .or_else(|| found("as decimal numbers", &decimal));
        found_in_text
            .or_else(|| hex(text).iter().find_map(|bytes| found("in hex", bytes)))
            .or_else(|| base64(text).iter().find_map(|bytes| found("in base64", bytes)))
    }
}

/// Returns all decimal numbers of a text as bytes, 0 for those above 255.
fn decimal(text: &str) -> Vec<u8> {
    let numbers = text.split(|letter: char| !letter.is_ascii_digit()).filter(|digits| !digits.is_empty());
    numbers.map(|digits| digits.parse().unwrap_or(0)).collect()
}

/// Decodes runs of hex digits, with or without separators, at both alignments.
fn hex(text: &str) -> Vec<Vec<u8>> {
    let bare = text.replace("0x", "").replace("\\x", "");
    let bare: String = bare.chars().filter(|letter| !" :,-_[]".contains(*letter)).collect();
    let runs = bare.split(|letter: char| !letter.is_ascii_hexdigit()).filter(|run| run.len() >= 2 * WINDOW);
    let decode = |run: &str| {
        let digits: Vec<u8> = run.chars().filter_map(|digit| digit.to_digit(16)?.try_into().ok()).collect();
        digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
    };
    runs.flat_map(|run| [decode(run), decode(&run[1..])]).collect()
}

/// Decodes runs of base64 in either alphabet, at all four alignments.
fn base64(text: &str) -> Vec<Vec<u8>> {
    let standard = text.replace('-', "+").replace('_', "/");
    let is_base64 = |letter: char| letter.is_ascii_alphanumeric() || letter == '+' || letter == '/';
    let runs = standard.split(|letter: char| !is_base64(letter)).filter(|run| run.len() >= WINDOW);
    let decode = |run: &str| STANDARD_NO_PAD_INDIFFERENT.decode(&run[..run.len() / 4 * 4]).unwrap_or_default();
    runs.flat_map(|run| (0..4).map(move |skipped| decode(run.get(skipped..).unwrap_or_default()))).collect()
}

#[test]
fn finds_a_secret_in_every_encoding() {
    let mut leaks = Leaks::default();
    leaks.add(b"Abc8Q~dEfGhIjKl");
    for text in [
        "x8Q~dEfGhIx",
        "8 Q ~ d E f G h",
        "[65, 98, 99, 56, 81, 126, 100, 69]",
        "65 98 99 56 81 126 100 69",
        "41 62 63 38 51 7e 64 45",
        "4162633851:7E:64:45",
        "0x41, 0x62, 0x63, 0x38, 0x51, 0x7e, 0x64, 0x45",
        "QWJjOFF+ZEVmR2hJaktsxx",
        "xQWJjOFF-ZEVmR2hJaktsxx",
        "YmM4UX5kRWZHaElqS2w",
    ] {
        assert!(leaks.find(text).is_some(), "{text}");
    }
    for text in ["", "x8Q~dEfGx", "a description of 12 words, at 2030-01-15T08:00:00Z"] {
        assert_eq!(leaks.find(text), None, "{text}");
    }
}

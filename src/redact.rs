//! Masks secrets in text from outside the gateway: error descriptions of identity providers, the stderr of programs, messages
//! of parsers.
//!
//! There are two filters. The first masks every part of 8 bytes of a secret that was sent, in all usual encodings. The second
//! is for unknown secrets: it keeps words that look like prose, an identifier, a number, a time or an address, and replaces all
//! others by `…`.

use std::collections::HashSet;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// The length of the shortest part of a sent secret that is masked. Shorter parts occur in prose by chance.
const WINDOW: usize = 8;

/// The character that replaces masked text.
const MASK: char = '…';

/// The endings of names whose values are always masked.
const SECRET_NAMES: [&str; 12] = [
    "secret",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "token",
    "key",
    "assertion",
    "authorization",
    "credential",
    "signature",
    "sig",
];

/// The secrets in a request, to be masked in its response.
#[derive(Default)]
pub struct SentSecrets {
    windows: HashSet<[u8; WINDOW]>,
    /// The secrets that are shorter than a window.
    short: Vec<String>,
}

impl SentSecrets {
    /// Adds a secret, to be masked in plain text, form encoding, hex and base64.
    pub fn add(&mut self, secret: &str) {
        if secret.is_empty() {
            return;
        }
        if secret.len() < WINDOW {
            self.short.push(secret.to_owned());
            return;
        }
        let hex = secret.bytes().fold(String::with_capacity(2 * secret.len()), |mut hex, byte| {
            let _infallible = write!(hex, "{byte:02x}");
            hex
        });
        let form: String = form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let mut forms = vec![secret.to_owned(), form, hex.to_ascii_uppercase(), hex];
        for skipped in 0..3 {
            let aligned = secret.as_bytes().get(skipped..).unwrap_or_default();
            // The last group depends on the text after the secret, so it is omitted.
            let whole = aligned.len() / 3 * 3;
            let aligned = aligned.get(..whole).unwrap_or_default();
            forms.extend([STANDARD_NO_PAD.encode(aligned), URL_SAFE_NO_PAD.encode(aligned)]);
        }
        for form in forms {
            self.windows
                .extend(form.as_bytes().windows(WINDOW).filter_map(|window| <[u8; WINDOW]>::try_from(window).ok()));
        }
    }

    /// Masks all parts of the secrets in a text.
    fn mask(&self, text: &str) -> String {
        let mut hidden = vec![false; text.len()];
        let mut hide = |from: usize, length: usize| {
            hidden.iter_mut().skip(from).take(length).for_each(|hidden| *hidden = true);
        };
        for (at, window) in text.as_bytes().windows(WINDOW).enumerate() {
            if <[u8; WINDOW]>::try_from(window).is_ok_and(|window| self.windows.contains(&window)) {
                hide(at, WINDOW);
            }
        }
        for short in &self.short {
            text.match_indices(short.as_str()).for_each(|(at, found)| hide(at, found.len()));
        }
        let mut shown = String::with_capacity(text.len());
        for (at, ch) in text.char_indices() {
            match hidden.get(at) {
                Some(true) if shown.ends_with(MASK) => {}
                Some(true) => shown.push(MASK),
                _ => shown.push(ch),
            }
        }
        shown
    }
}

impl std::fmt::Debug for SentSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SentSecrets")
    }
}

/// Masks the secrets in a text. Returns one line without control characters.
pub fn prose(text: &str, sent: &SentSecrets) -> String {
    let text = sent.mask(text);
    let mut words = Vec::new();
    let mut value_follows = false;
    for word in text.split(|ch: char| ch.is_whitespace() || ch.is_control()).filter(|word| !word.is_empty()) {
        let hidden = value_follows || !is_harmless(word);
        value_follows = word.ends_with([':', '=']) && !word.contains('/') && names_a_secret(word);
        words.push((word, hidden));
    }
    mask_byte_dumps(&mut words);
    let (mut shown, mut was_hidden) = (String::with_capacity(text.len()), false);
    for (word, hidden) in words {
        let continues_mask = hidden && was_hidden;
        if !shown.is_empty() && !continues_mask {
            shown.push(' ');
        }
        match (hidden, was_hidden) {
            (false, _) => shown.push_str(word),
            (true, true) => {}
            (true, false) => push_masked(word, &mut shown),
        }
        was_hidden = hidden;
    }
    shown
}

/// Appends the mask of a word. Keeps the quotes around the word.
fn push_masked(word: &str, shown: &mut String) {
    let is_quote = |ch: char| "\"'`()".contains(ch);
    let inside = word.trim_start_matches(is_quote);
    shown.push_str(word.get(..word.len() - inside.len()).unwrap_or_default());
    shown.push(MASK);
    let closed = inside.trim_end_matches(|ch: char| is_quote(ch) || ".,;:".contains(ch));
    shown.push_str(inside.get(closed.len()..).unwrap_or_default());
}

/// The message of a library's error and its sources in one line, with secrets masked. The error itself is dropped, so that it
/// cannot be printed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct MaskedError {
    text: Box<str>,
    root: Box<str>,
}

impl MaskedError {
    /// Formats an error and its sources, with secrets masked.
    pub fn new(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut innermost = error;
        while let Some(cause) = innermost.source() {
            innermost = cause;
        }
        let (text, root) = (in_one_line(error), innermost.to_string());
        let masked = |text: &str| prose(text, &SentSecrets::default()).into_boxed_str();
        Self { text: masked(&text), root: masked(&root) }
    }

    /// Formats an error and its sources, all of which are known to have no secrets.
    pub fn without_secrets(error: &(dyn std::error::Error + 'static), root: &dyn std::error::Error) -> Self {
        Self { text: in_one_line(error).into_boxed_str(), root: one_line(&root.to_string()).into_boxed_str() }
    }

    /// Returns the message of the last source, such as that of the operating system.
    pub fn root(&self) -> &str {
        &self.root
    }
}

/// Formats an error and its sources in one line. Omits a source whose text is there already: many errors of libraries have the
/// text of their source in their own.
pub fn in_one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    one_line(&line)
}

/// Replaces line breaks, tabs and other control characters by single spaces, so that text from outside the gateway cannot start
/// a log line or control a terminal.
pub fn one_line(text: &str) -> String {
    let mut line = String::with_capacity(text.len());
    for word in text.split(|character: char| character.is_whitespace() || character.is_control()) {
        if !word.is_empty() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    line
}

/// Masks a configured value that looks like a secret although its key is not for secrets.
pub fn value(text: &str) -> &str {
    let is_one_word = !text.contains(|ch: char| ch.is_whitespace() || ch.is_control());
    if is_one_word && is_harmless(text) { text } else { "…" }
}

/// Masks the parts in backticks of a message of the gateway that look like secrets.
pub fn message(text: &str) -> String {
    let parts = text.split('`').enumerate().map(|(index, part)| {
        let is_quoted = index % 2 == 1;
        if is_quoted && !part.split_whitespace().all(is_harmless) { "…" } else { part }
    });
    parts.collect::<Vec<_>>().join("`")
}

/// Masks the value of a parameter if the name is that of a secret or the value looks random.
pub fn parameter<'v>(name: &str, value: &'v str) -> &'v str {
    if names_a_secret(name) { "…" } else { self::value(value) }
}

/// Masks the arguments of a program that look random or follow an option that names a secret.
pub fn arguments(arguments: &[String]) -> Vec<String> {
    let mut value_follows = false;
    let show = |argument: &String| {
        let hidden = value_follows;
        value_follows = argument.starts_with('-') && !argument.contains('=') && names_a_secret(argument);
        if hidden { MASK.to_string() } else { prose(argument, &SentSecrets::default()) }
    };
    arguments.iter().map(show).collect()
}

/// Returns the text if it is a code of lower-case letters and `_`, such as an OAuth error.
pub fn code(text: &str) -> Option<&str> {
    let is_code = |byte: u8| byte.is_ascii_lowercase() || byte == b'_';
    (text.len() <= 40 && text.bytes().all(is_code) && is_harmless(text)).then_some(text)
}

/// Returns the text if it is the id of a request or trace.
pub fn id(text: &str) -> Option<&str> {
    let text = text.trim();
    let is_short = text.len() < WINDOW && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (is_guid(text) || is_short && !text.is_empty()).then_some(text)
}

/// Masks lists of bytes that are printed as characters, decimal numbers or hex.
fn mask_byte_dumps(words: &mut [(&str, bool)]) {
    let is_byte = |word: &str| {
        let word = trimmed(word);
        let word = word.strip_prefix("0x").or_else(|| word.strip_prefix("\\x")).unwrap_or(word);
        word.len() <= 2 || word.len() <= 3 && word.bytes().all(|byte| byte.is_ascii_hexdigit())
    };
    for run in words.chunk_by_mut(|(one, _), (next, _)| is_byte(one) && is_byte(next)) {
        if run.len() >= 6 {
            for (word, hidden) in run {
                (*word, *hidden) = ("", true);
            }
        }
    }
}

fn trimmed(word: &str) -> &str {
    word.trim_matches(|ch: char| "\"'`()[]{}<>,.;:!?".contains(ch))
}

fn names_a_secret(word: &str) -> bool {
    let name = trimmed(word.trim_end_matches('=')).to_ascii_lowercase();
    SECRET_NAMES.iter().any(|secret| name.ends_with(secret))
}

/// Returns whether a word is shown: no part of it looks random, and it does not assign a value to the name of a secret.
fn is_harmless(word: &str) -> bool {
    if word.contains(MASK) {
        return false;
    }
    // The punctuation around a word may be the end of a secret.
    let is_short = word.len() < WINDOW;
    let word = trimmed(word);
    if let Some((name, value)) = word.split_once(['=', ':'])
        && names_a_secret(name)
        && !trimmed(value).is_empty()
    {
        return false;
    }
    if is_short {
        return true;
    }
    if word.len() > 200 || is_number_or_time(word) || word.parse::<std::net::SocketAddr>().is_ok() {
        return word.len() <= 200;
    }
    // Messages of programs rarely have more than one of these in a word; generated secrets often do.
    if word.bytes().filter(|byte| b"+*$~!".contains(byte)).count() > 1 {
        return false;
    }
    let (mut numbered, mut short) = (0, 0);
    let parts = word.split(|ch: char| "/=:?&,;@#|\"'`()[]{}<>".contains(ch));
    parts.filter(|part| !part.is_empty() && !is_guid(part)).all(|part| {
        part.split(['-', '_', '.', '\\', '+', '*', '$', '~', '%', '!']).filter(|piece| !piece.is_empty()).all(|piece| {
            let letters = piece.trim_end_matches(|ch: char| ch.is_ascii_digit());
            let digits = piece.len() - letters.len();
            // At most six short pieces, so that a list of bytes does not pass.
            short += usize::from(piece.len() <= 3);
            if short > 6 {
                return false;
            }
            match (letters, digits) {
                (_, 0) => looks_like_word(letters),
                // An error code: `7000215`, `AADSTS7000215`, `TF400813`.
                ("" | "AADSTS" | "TF" | "CA" | "MSAL", 1..=8) => true,
                // `oauth2`, `v2`, `PS256`.
                (letters, 1..=3) if letters.len() <= 8 && looks_like_word(letters) => {
                    numbered += 1;
                    numbered <= 2
                }
                _ => false,
            }
        })
    })
}

/// Returns whether letters have the case and vowels of a word or a compound name.
fn looks_like_word(letters: &str) -> bool {
    if letters.len() > 40 || !letters.chars().all(char::is_alphabetic) {
        return false;
    }
    let is_vowel = |ch: char| "aeiouyAEIOUY".contains(ch) || !ch.is_ascii();
    let (mut case_changes, mut consonants, mut most_consonants, mut was_lower) = (0, 0, 0, false);
    for ch in letters.chars() {
        case_changes += usize::from(was_lower && ch.is_uppercase());
        was_lower = ch.is_lowercase();
        consonants = if is_vowel(ch) { 0 } else { consonants + 1 };
        most_consonants = most_consonants.max(consonants);
    }
    let is_all_upper = letters.chars().all(char::is_uppercase);
    // `connection`, `ClientSecretCredential`, `ACTIONS`, `HTTPS`: a word has at most five consonants in a row, and capitals are
    // rare inside it.
    case_changes <= letters.len() / 5 && (most_consonants <= 5 || is_all_upper && letters.len() < WINDOW)
}

/// Returns whether a word is a number, a date or a time. It may have at most seven groups of digits, so that a list of bytes
/// does not pass.
fn is_number_or_time(word: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_digit() || b"-:.+/TZ%".contains(&byte);
    let groups = word.split(|ch: char| !ch.is_ascii_digit()).filter(|group| !group.is_empty());
    word.len() <= 32 && word.bytes().all(is_part) && (1..=7).contains(&groups.count())
}

/// Returns whether a text is a GUID with hyphens, such as `11111111-2222-3333-4444-555555555555`.
pub fn is_guid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    lengths.eq([8, 4, 4, 4, 12]) && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

#[cfg(test)]
mod tests;

//! Writes HTML. Everything that is not part of the page itself is escaped.

use std::fmt::{Display, Write};

/// HTML that is being written.
#[derive(Debug, Default)]
pub(super) struct Html(String);

impl Html {
    /// Writes HTML of the page itself.
    pub(super) fn raw(&mut self, html: &str) -> &mut Self {
        self.0.push_str(html);
        self
    }

    /// Writes a value, escaped.
    pub(super) fn text(&mut self, value: impl Display) -> &mut Self {
        // Writing to a string cannot fail.
        let _infallible = write!(Escaped(&mut self.0), "{value}");
        self
    }

    /// Writes a sentence. Ids, addresses and paths in it are code, as is what is in backticks.
    pub(super) fn prose(&mut self, text: &str) -> &mut Self {
        for (index, part) in text.split('`').enumerate() {
            if index % 2 == 1 {
                self.element("code", part);
                continue;
            }
            for word in part.split_inclusive(char::is_whitespace) {
                let is_around = |c: char| c.is_whitespace() || matches!(c, '(' | ')' | ',' | ';' | ':' | '.');
                let core = word.trim_matches(is_around);
                match word.split_once(core) {
                    Some((before, after)) if is_literal(core) => {
                        self.text(before).element("code", core).text(after);
                    }
                    _ => _ = self.text(word),
                }
            }
        }
        self
    }

    /// Writes an element with a text. `tag` may have attributes.
    pub(super) fn element(&mut self, tag: &str, value: impl Display) -> &mut Self {
        let name = tag.split(' ').next().unwrap_or(tag);
        self.raw("<").raw(tag).raw(">").text(value).raw("</").raw(name).raw(">")
    }

    /// Writes a name and a value of a description list.
    pub(super) fn fact(&mut self, name: &str, value: impl Display) -> &mut Self {
        self.raw("<div>").element("dt", name).element("dd", value).raw("</div>")
    }

    /// Begins a section with a title. The caller ends the title and the section.
    pub(super) fn section(&mut self, id: &str, title: &str) -> &mut Self {
        self.raw("<section id=\"").raw(id).raw("\" aria-labelledby=\"").raw(id).raw("-title\"><div class=\"titled\">");
        self.raw("<h2 id=\"").raw(id).raw("-title\">").raw(title).raw("</h2>")
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

struct Escaped<'a>(&'a mut String);

impl Write for Escaped<'_> {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for character in text.chars() {
            match character {
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '&' => self.0.push_str("&amp;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                other if is_hidden(other) => self.0.push(char::REPLACEMENT_CHARACTER),
                other => self.0.push(other),
            }
        }
        Ok(())
    }
}

/// Whether a word is an id, an address or a path.
fn is_literal(word: &str) -> bool {
    let is_id = word.len() >= 12 && word.contains(|c: char| c.is_ascii_digit()) && word.contains(['-', ':', '.', '_']);
    is_id || word.contains("://") || word.starts_with("AADSTS") || (word.starts_with('/') && word.len() > 1)
}

/// Whether a character could change how others are shown. A certificate or an error text may have any.
fn is_hidden(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => true,
        other => other.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_change_how_others_are_shown_are_replaced() {
        let mut html = Html::default();
        html.text("CN=a\u{202e}b\u{1b}[31m\n");
        assert_eq!(html.into_string(), "CN=a\u{fffd}b\u{fffd}[31m\n");
    }

    #[test]
    fn ids_addresses_and_paths_in_a_sentence_are_code() {
        for (text, shown) in [
            ("at a.example.com:443.", "at <code>a.example.com:443</code>."),
            ("https://a (`endpoints.east.url`)", "<code>https://a</code> (<code>endpoints.east.url</code>)"),
            ("file /etc/secret, read 3 s ago", "file <code>/etc/secret</code>, read 3 s ago"),
            ("(AADSTS700024: no)", "(<code>AADSTS700024</code>: no)"),
            ("id bbbbbbbb-0000-4000-8000-00000000000b.", "id <code>bbbbbbbb-0000-4000-8000-00000000000b</code>."),
            ("nbf 13:25:01 UTC, and/or `<b>` /", "nbf 13:25:01 UTC, and/or <code>&lt;b&gt;</code> /"),
        ] {
            let mut html = Html::default();
            html.prose(text);
            assert_eq!(html.into_string(), shown);
        }
    }
}

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

    /// Writes a sentence. What is in backticks is code.
    pub(super) fn prose(&mut self, text: &str) -> &mut Self {
        for (index, part) in text.split('`').enumerate() {
            if index % 2 == 0 {
                self.text(part);
            } else {
                self.raw("<code>").text(part).raw("</code>");
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
                other => self.0.push(other),
            }
        }
        Ok(())
    }
}

//! The `filter` of `:execute`: the subset of `OData`'s filter language that selects connections.
//!
//! Supported: `userId`, `connectionId` and string literals compared by `eq` and `ne`; `null`; `startswith`, `endswith`,
//! `contains`; `'group' in groups`; `and`, `or`, `not`, parentheses.
//!
//! Source: `OData` 4.01 part 2 section 5.1.1 (precedence: `not`, comparisons, `and`, `or`). The swagger of 2024-12-01 only
//! refers to `OData`.

/// A parsed filter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Filter {
    Or(Box<Filter>, Box<Filter>),
    And(Box<Filter>, Box<Filter>),
    Not(Box<Filter>),
    Equal(Operand, Operand),
    NotEqual(Operand, Operand),
    StartsWith(Operand, Operand),
    EndsWith(Operand, Operand),
    Contains(Operand, Operand),
    InGroups(Operand),
}

/// An operand. Its value is a string or null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    UserId,
    ConnectionId,
    String(String),
    Null,
}

/// A filter that cannot be parsed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the filter is invalid at byte {position}")]
pub(crate) struct FilterError {
    position: usize,
}

/// The maximum nesting depth of parentheses and `not`.
const MAX_DEPTH: usize = 64;

impl Filter {
    /// Parses a filter.
    pub(crate) fn parse(text: &str) -> Result<Self, FilterError> {
        let mut parser = Parser { text, position: 0, depth: 0 };
        let filter = parser.or()?;
        parser.skip_space();
        if parser.position == text.len() { Ok(filter) } else { Err(parser.error()) }
    }

    /// Returns whether a connection matches.
    pub(crate) fn matches(&self, connection: &str, user: Option<&str>, groups: &[&str]) -> bool {
        let value = |operand: &Operand| match operand {
            Operand::UserId => user.map(str::to_owned),
            Operand::ConnectionId => Some(connection.to_owned()),
            Operand::String(text) => Some(text.clone()),
            Operand::Null => None,
        };
        let both = |left: &Operand, right: &Operand, test: fn(&str, &str) -> bool| match (value(left), value(right)) {
            (Some(left), Some(right)) => test(&left, &right),
            _ => false,
        };
        match self {
            Self::Or(left, right) => left.matches(connection, user, groups) || right.matches(connection, user, groups),
            Self::And(left, right) => left.matches(connection, user, groups) && right.matches(connection, user, groups),
            Self::Not(inner) => !inner.matches(connection, user, groups),
            Self::Equal(left, right) => value(left) == value(right),
            Self::NotEqual(left, right) => value(left) != value(right),
            Self::StartsWith(left, right) => both(left, right, |text, start| text.starts_with(start)),
            Self::EndsWith(left, right) => both(left, right, |text, end| text.ends_with(end)),
            Self::Contains(left, right) => both(left, right, |text, part| text.contains(part)),
            Self::InGroups(group) => value(group).is_some_and(|group| groups.contains(&group.as_str())),
        }
    }
}

/// Creates the filter of a function with two operands.
type Comparison = fn(Operand, Operand) -> Filter;

struct Parser<'a> {
    text: &'a str,
    position: usize,
    depth: usize,
}

impl Parser<'_> {
    fn or(&mut self) -> Result<Filter, FilterError> {
        let mut left = self.and()?;
        while self.eat_word("or") {
            left = Filter::Or(Box::new(left), Box::new(self.and()?));
        }
        Ok(left)
    }

    fn and(&mut self) -> Result<Filter, FilterError> {
        let mut left = self.not()?;
        while self.eat_word("and") {
            left = Filter::And(Box::new(left), Box::new(self.not()?));
        }
        Ok(left)
    }

    fn not(&mut self) -> Result<Filter, FilterError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.error());
        }
        let filter = if self.eat_word("not") {
            Filter::Not(Box::new(self.not()?))
        } else if self.eat_symbol('(') {
            let inner = self.or()?;
            self.expect(')')?;
            inner
        } else {
            self.comparison()?
        };
        self.depth -= 1;
        Ok(filter)
    }

    fn comparison(&mut self) -> Result<Filter, FilterError> {
        let functions: [(&str, Comparison); 3] =
            [("startswith", Filter::StartsWith), ("endswith", Filter::EndsWith), ("contains", Filter::Contains)];
        for (name, filter) in functions {
            if self.eat_word(name) {
                self.expect('(')?;
                let left = self.operand()?;
                self.expect(',')?;
                let right = self.operand()?;
                self.expect(')')?;
                return Ok(filter(left, right));
            }
        }
        let left = self.operand()?;
        if self.eat_word("eq") {
            return Ok(Filter::Equal(left, self.operand()?));
        }
        if self.eat_word("ne") {
            return Ok(Filter::NotEqual(left, self.operand()?));
        }
        if self.eat_word("in") && self.eat_word("groups") {
            return Ok(Filter::InGroups(left));
        }
        Err(self.error())
    }

    fn operand(&mut self) -> Result<Operand, FilterError> {
        let words = [("userId", Operand::UserId), ("connectionId", Operand::ConnectionId), ("null", Operand::Null)];
        for (word, operand) in words {
            if self.eat_word(word) {
                return Ok(operand);
            }
        }
        self.expect('\'')?;
        let mut text = String::new();
        loop {
            let rest = self.rest();
            let end = rest.find('\'').ok_or_else(|| self.error())?;
            text.push_str(rest.get(..end).unwrap_or_default());
            self.position += end + 1;
            // Two quotes are an escaped quote.
            if !self.rest().starts_with('\'') {
                return Ok(Operand::String(text));
            }
            text.push('\'');
            self.position += 1;
        }
    }

    /// Consumes a word, compared case-insensitively. Returns whether the word was next.
    fn eat_word(&mut self, word: &str) -> bool {
        self.skip_space();
        let rest = self.rest();
        let matches = rest.get(..word.len()).is_some_and(|start| start.eq_ignore_ascii_case(word))
            && !rest
                .get(word.len()..)
                .unwrap_or_default()
                .starts_with(|next: char| next.is_alphanumeric() || next == '_');
        if matches {
            self.position += word.len();
        }
        matches
    }

    fn eat_symbol(&mut self, symbol: char) -> bool {
        self.skip_space();
        let matches = self.rest().starts_with(symbol);
        if matches {
            self.position += symbol.len_utf8();
        }
        matches
    }

    fn expect(&mut self, symbol: char) -> Result<(), FilterError> {
        if self.eat_symbol(symbol) { Ok(()) } else { Err(self.error()) }
    }

    fn skip_space(&mut self) {
        let rest = self.rest();
        self.position += rest.len() - rest.trim_start().len();
    }

    fn rest(&self) -> &str {
        self.text.get(self.position..).unwrap_or_default()
    }

    const fn error(&self) -> FilterError {
        FilterError { position: self.position }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn filters_select_connections() {
        let rows = [
            ("startswith(userId, 'listener-')", true),
            ("userId eq 'listener-1'", true),
            ("userId ne 'listener-1'", false),
            ("USERID EQ 'listener-1' and connectionId eq 'c1'", true),
            ("userId eq 'x' or endswith(userId,'-1') and not contains(userId, 'speaker')", true),
            ("not (userId eq 'x' or connectionId eq 'c1')", false),
            ("'g' in groups", true),
            ("'h' in groups", false),
            ("userId eq null", false),
            ("userId eq 'it''s'", false),
        ];
        for (text, expected) in rows {
            assert_eq!(Filter::parse(text).unwrap().matches("c1", Some("listener-1"), &["g"]), expected, "{text}");
        }
        assert!(Filter::parse("userId eq null").unwrap().matches("c1", None, &[]));
        assert!(!Filter::parse("startswith(userId, '')").unwrap().matches("c1", None, &[]));
    }

    #[test]
    fn reports_the_position_of_an_error() {
        for (text, position) in
            [("", 0), ("userId", 6), ("userId eq", 9), ("userId eq 'a", 11), ("userId eq 'a' x", 14)]
        {
            assert_eq!(Filter::parse(text), Err(FilterError { position }), "{text}");
        }
        assert!(Filter::parse(&"(".repeat(10_000)).is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in r"[a-zA-Z(),' é]{0,40}") {
            let _ = Filter::parse(&text);
        }
    }
}

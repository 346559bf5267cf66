//! Which summaries a reader wants.

use super::summary::Summary;
use crate::route::{Case, Pattern};

/// The longest list of one condition.
const MAX_PATTERNS: usize = 16;

/// Which summaries a reader wants. A list without entries allows all.
#[derive(Debug, Default)]
pub struct Filter {
    routes: Vec<Pattern>,
    endpoints: Vec<Pattern>,
    hubs: Vec<Pattern>,
    only_failures: bool,
}

/// The error for a query that is not a filter.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFilter {
    /// It has a parameter that filters do not have.
    #[error("there is no parameter `{0}`; there are `route`, `endpoint`, `hub` and `failures`")]
    Unknown(String),
    /// `failures` is neither true nor false.
    #[error("`failures` is `{0}`, must be `true` or `false`")]
    NotABool(String),
    /// It names too many routes, endpoints or hubs.
    #[error("`{0}` may be repeated {MAX_PATTERNS} times")]
    TooMany(String),
}

impl Filter {
    /// Parses the query of a request: `route`, `endpoint` and `hub`, which may be repeated and may contain `*`, and `failures`.
    ///
    /// # Errors
    /// [`InvalidFilter`] if it has another parameter, or too many.
    pub fn parse(query: Option<&str>) -> Result<Self, InvalidFilter> {
        let mut filter = Self::default();
        for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            let (list, case) = match &*name {
                "route" => (&mut filter.routes, Case::Sensitive),
                "endpoint" => (&mut filter.endpoints, Case::Sensitive),
                "hub" => (&mut filter.hubs, Case::Insensitive),
                "failures" => {
                    filter.only_failures = match &*value {
                        "" | "true" => true,
                        "false" => false,
                        _ => return Err(InvalidFilter::NotABool(value.into_owned())),
                    };
                    continue;
                }
                _ => return Err(InvalidFilter::Unknown(name.into_owned())),
            };
            if list.len() == MAX_PATTERNS {
                return Err(InvalidFilter::TooMany(name.into_owned()));
            }
            list.push(Pattern::new(&value, case));
        }
        Ok(filter)
    }

    /// Returns whether a reader with this filter wants the summary.
    pub(super) fn matches(&self, summary: &Summary<'_>) -> bool {
        let allows = |patterns: &[Pattern], name: Option<&str>| {
            patterns.is_empty() || name.is_some_and(|name| patterns.iter().any(|pattern| pattern.matches(name)))
        };
        (!self.only_failures || summary.has_failed)
            && allows(&self.routes, summary.route)
            && allows(&self.hubs, summary.hub)
            && (allows(&self.endpoints, summary.endpoint)
                || summary.leg_endpoints.iter().any(|leg| allows(&self.endpoints, Some(leg))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wants(query: &str, summary: &Summary<'_>) -> bool {
        Filter::parse(Some(query)).unwrap().matches(summary)
    }

    #[test]
    fn each_condition_must_match_and_each_may_have_several_patterns() {
        let summary = Summary { route: Some("chat"), endpoint: Some("east"), hub: Some("Chat"), ..Summary::default() };
        for (query, expected) in [
            ("", true),
            ("route=chat&endpoint=east&hub=chat", true),
            ("route=chat&endpoint=west", false),
            ("endpoint=west&endpoint=e*", true),
            ("hub=CH*", true),
            ("route=Chat", false),
            ("failures", false),
            ("failures=true&route=chat", false),
            ("failures=false&route=chat", true),
            ("failures&failures=false", true),
        ] {
            assert_eq!(wants(query, &summary), expected, "{query}");
        }
        assert!(wants("failures", &Summary { has_failed: true, ..Summary::default() }));
        assert!(!wants("endpoint=east", &Summary::default()));
        let fan_out = Summary { leg_endpoints: vec!["east", "west"], ..Summary::default() };
        assert!(wants("endpoint=west", &fan_out) && !wants("endpoint=north", &fan_out));
    }

    #[test]
    fn unknown_parameters_and_too_many_patterns_are_refused() {
        assert_eq!(Filter::parse(Some("failures=no")).unwrap_err(), InvalidFilter::NotABool("no".to_owned()));
        assert_eq!(Filter::parse(Some("rout=x")).unwrap_err(), InvalidFilter::Unknown("rout".to_owned()));
        let many = "hub=a&".repeat(MAX_PATTERNS + 1);
        assert_eq!(Filter::parse(Some(&many)).unwrap_err(), InvalidFilter::TooMany("hub".to_owned()));
    }
}

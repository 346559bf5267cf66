//! The query of `/status` and `/`: which page of which entries.

/// The number of entries of each kind on a page of `/status`.
const JSON_SIZE: usize = 100;
/// The number of entries of each kind on a page of `/`, which shows each with a chart.
const HTML_SIZE: usize = 20;

/// The states of endpoints on `/status`.
pub(super) const ENDPOINT_STATES: [&str; 5] = ["ok", "circuit_open", "no_token", "unauthorized", "disabled"];
/// The states of credentials on `/status`.
pub(super) const CREDENTIAL_STATES: [&str; 5] = ["unused", "starting", "ready", "stale", "unavailable"];
/// Matches every endpoint and credential with a problem.
pub(super) const BROKEN: &str = "broken";

/// The query of `/status` and `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Query {
    /// The page, from 1.
    pub(super) page: usize,
    /// A part of the name, in lower case. Empty for all.
    pub(super) name: String,
    /// A state, or [`BROKEN`].
    pub(super) state: Option<String>,
    /// The number of entries of each kind on a page.
    pub(super) size: usize,
    /// Whether the points of the charts are asked for.
    pub(super) has_series: bool,
}

impl Query {
    /// Parses the query of a URL. Ignores parameters that it does not know.
    ///
    /// # Errors
    /// What is wrong, in a line.
    pub(super) fn parse(query: Option<&str>, is_html: bool) -> Result<Self, String> {
        let size = if is_html { HTML_SIZE } else { JSON_SIZE };
        let mut parsed = Self { page: 1, name: String::new(), state: None, size, has_series: is_html };
        for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
            match &*key {
                "page" => {
                    let page = value.parse().ok().filter(|page| *page > 0);
                    parsed.page = page.ok_or_else(|| format!("`page` is `{value}`, must be a number from 1"))?;
                }
                "series" => parsed.has_series |= value == "true",
                "name" => parsed.name = value.trim().to_lowercase(),
                "state" if value.is_empty() => {}
                "state" if Self::states().any(|state| state == value) => parsed.state = Some(value.into_owned()),
                "state" => {
                    let states: Vec<&str> = Self::states().collect();
                    return Err(format!("`state` is `{value}`, must be one of {}", states.join(", ")));
                }
                _ => {}
            }
        }
        Ok(parsed)
    }

    /// Returns the values of `state`.
    pub(super) fn states() -> impl Iterator<Item = &'static str> {
        [BROKEN].into_iter().chain(ENDPOINT_STATES).chain(CREDENTIAL_STATES)
    }

    /// Returns whether an entry with these names is asked for.
    pub(super) fn has_name<'a>(&self, names: impl IntoIterator<Item = &'a str>) -> bool {
        self.name.is_empty() || names.into_iter().any(|name| name.to_lowercase().contains(&self.name))
    }

    /// Returns whether an entry in this state is asked for.
    pub(super) fn has_state(&self, state: &str, is_broken: bool) -> bool {
        match self.state.as_deref() {
            None => true,
            Some(BROKEN) => is_broken,
            Some(wanted) => wanted == state,
        }
    }

    /// Returns the entries of the page.
    pub(super) fn page_of<'a, T>(&self, entries: &'a [T]) -> impl Iterator<Item = &'a T> {
        entries.iter().skip((self.page - 1).saturating_mul(self.size)).take(self.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_pages_names_and_states_and_refuses_others() {
        let all = Query { page: 1, name: String::new(), state: None, size: JSON_SIZE, has_series: false };
        assert_eq!(Query::parse(None, false), Ok(all.clone()));
        assert_eq!(Query::parse(Some("state=&name=&x=y"), false), Ok(all));
        let some = Query {
            page: 3,
            name: "con toso".to_owned(),
            state: Some("broken".to_owned()),
            size: JSON_SIZE,
            has_series: true,
        };
        assert_eq!(Query::parse(Some("page=3&name=Con+toso&state=broken&series=true"), false), Ok(some));
        for wrong in ["page=0", "page=x", "page=-1", "state=brokn"] {
            assert!(Query::parse(Some(wrong), false).is_err(), "{wrong}");
        }
    }
}

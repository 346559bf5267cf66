//! Explains why a route does not match a call: the condition, what it expects and what the call has.

use std::fmt::{self, Display};

use http::{HeaderMap, HeaderValue};

use super::table::{Mismatch, Route, RouteInput};
use super::{Constraint, HeaderMatch};
use crate::signalr::{Name, OperationClass, OperationSet};

/// A condition that a call does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MismatchDetail {
    /// The condition.
    pub condition: Mismatch,
    /// The values that the route accepts, as configured.
    pub wanted: Vec<String>,
    /// The call's value; `None` if it has none.
    pub found: Option<String>,
}

impl MismatchDetail {
    /// Returns the first condition of `route` that the call does not meet, if any. `listener` is the name of the listener that
    /// received the call.
    pub fn find(route: &Route, input: &RouteInput<'_>, listener: &str) -> Option<Self> {
        let condition = route.mismatch(input)?;
        let (rules, call) = (route.matches(), input.call);
        let name = |name: Option<Name<'_>>| name.map(|name| name.decoded().into_owned());
        let (wanted, found) = match condition {
            Mismatch::Operation => {
                (operations(rules.operations.unwrap_or_default()), Some(call.operation.name().to_owned()))
            }
            Mismatch::Hub => (texts(&rules.hubs), name(call.hub)),
            Mismatch::Group => (texts(&rules.groups), name(call.group)),
            Mismatch::User => (texts(&rules.users), name(call.user)),
            Mismatch::Application => (texts(&rules.applications), call.query_value("application").map(Into::into)),
            Mismatch::Header => header(&rules.headers, input.headers),
            Mismatch::Listener => (texts(&rules.listeners), Some(listener.to_owned())),
            Mismatch::Client => (texts(&rules.clients), input.client.map(|client| client.to_string())),
            Mismatch::Caller => (texts(&rules.callers), input.caller.identity.map(str::to_owned)),
        };
        Some(Self { condition, wanted, found })
    }
}

/// Returns the first header condition that does not hold and the values that the call has instead.
fn header(rules: &[HeaderMatch], headers: &HeaderMap) -> (Vec<String>, Option<String>) {
    let Some(rule) = rules.iter().find(|rule| !rule.holds(headers)) else {
        return (Vec::new(), None);
    };
    let line = |value: &HeaderValue| format!("{}: {}", rule.name, String::from_utf8_lossy(value.as_bytes()));
    let wanted = rule.value.as_ref().map_or_else(|| format!("{}: (anything)", rule.name), line);
    let found: Vec<String> = headers.get_all(&rule.name).iter().map(line).collect();
    (vec![wanted], (!found.is_empty()).then(|| found.join(", ")))
}

fn texts(allowed: &Constraint<impl Display>) -> Vec<String> {
    allowed.allowed().unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// Returns the names of the classes that `set` has in full and of the operations that are left.
fn operations(set: OperationSet) -> Vec<String> {
    let is_whole =
        |class: &OperationClass| OperationSet::of_class(*class).iter().all(|operation| set.contains(operation));
    let classes: Vec<_> = OperationClass::ALL.into_iter().filter(is_whole).collect();
    let rest = set.iter().filter(|operation| !classes.contains(&operation.class()));
    classes
        .iter()
        .map(|class| class.name().to_owned())
        .chain(rest.map(|operation| operation.name().to_owned()))
        .collect()
}

impl Display for MismatchDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { condition, wanted, found } = self;
        match found {
            Some(found) => write!(f, "{condition} is `{found}`, not ")?,
            None => write!(f, "the call has no matching {condition}; the route expects ")?,
        }
        for (index, value) in wanted.iter().enumerate() {
            let separator = if index == 0 { "" } else { " or " };
            write!(f, "{separator}`{value}`")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn complete_classes_of_operations_are_named_as_classes() {
        let set = |name| OperationSet::from_name(name).unwrap_or_default();
        assert_eq!(operations(set("messages").union(set("user_exists"))), ["messages", "user_exists"]);
        assert_eq!(operations(set("hub_send")), ["hub_send"]);
    }

    #[test]
    fn header_mismatch_shows_the_expected_line_and_those_of_the_call() {
        let rule = |value: Option<&'static str>| HeaderMatch {
            name: http::HeaderName::from_static("x-region"),
            value: value.map(HeaderValue::from_static),
        };
        let mut headers = HeaderMap::new();
        assert_eq!(header(&[rule(None)], &headers), (vec!["x-region: (anything)".to_owned()], None));
        for region in ["east", "west"] {
            headers.append("x-region", HeaderValue::from_static(region));
        }
        let (wanted, found) = header(&[rule(Some("east")), rule(Some("north"))], &headers);
        assert_eq!(wanted, ["x-region: north"]);
        assert_eq!(found.as_deref(), Some("x-region: east, x-region: west"));
    }
}

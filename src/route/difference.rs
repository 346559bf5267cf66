//! Why a route did not take a call, in words: the condition that was not met, what it wants, and what the call has.

use std::fmt::{self, Display};

use super::Constraint;
use super::table::{Mismatch, Route, RouteInput};
use crate::signalr::{Name, OperationSet};

/// A condition that a call does not meet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MismatchDetail {
    /// Which condition.
    pub condition: Mismatch,
    /// What the route wants, as the operator wrote it: any of these.
    pub wanted: Vec<String>,
    /// What the call has; `None` if it has no such thing.
    pub found: Option<String>,
}

impl Route {
    /// Says which condition the call does not meet, if any, and how. `listener` is the name of the listener it came in by.
    pub fn difference(&self, input: &RouteInput<'_>, listener: &str) -> Option<MismatchDetail> {
        let condition = self.mismatch(input)?;
        let (rules, call) = (self.matches(), input.call);
        let name = |name: Option<Name<'_>>| name.map(|name| name.decoded().into_owned());
        let (wanted, found) = match condition {
            Mismatch::Operation => {
                (operations(rules.operations.unwrap_or_default()), Some(call.operation.name().to_owned()))
            }
            Mismatch::Hub => (words(&rules.hubs), name(call.hub)),
            Mismatch::Group => (words(&rules.groups), name(call.group)),
            Mismatch::User => (words(&rules.users), name(call.user)),
            Mismatch::Application => (words(&rules.applications), call.query_value("application").map(Into::into)),
            Mismatch::Header => self.header_difference(input),
            Mismatch::Listener => (words(&rules.listeners), Some(listener.to_owned())),
            Mismatch::Client => (words(&rules.clients), input.client.map(|client| client.to_string())),
        };
        Some(MismatchDetail { condition, wanted, found })
    }

    /// Names the first header that is missing or has another value.
    fn header_difference(&self, input: &RouteInput<'_>) -> (Vec<String>, Option<String>) {
        let Some(rule) = self.matches().headers.iter().find(|rule| !rule.holds(input.headers)) else {
            return (Vec::new(), None);
        };
        let line = |value: &http::HeaderValue| format!("{}: {}", rule.name, String::from_utf8_lossy(value.as_bytes()));
        let wanted = rule.value.as_ref().map_or_else(|| format!("{}: (anything)", rule.name), line);
        let found: Vec<String> = input.headers.get_all(&rule.name).iter().map(line).collect();
        (vec![wanted], (!found.is_empty()).then(|| found.join(", ")))
    }
}

fn words(allowed: &Constraint<impl Display>) -> Vec<String> {
    allowed.allowed().unwrap_or_default().iter().map(ToString::to_string).collect()
}

/// Names operations by the sets that are whole, and one by one what is left.
fn operations(all: OperationSet) -> Vec<String> {
    let is_whole = |set: &OperationSet| set.iter().all(|operation| all.contains(operation));
    let sets: Vec<_> = OperationSet::NAMED.into_iter().filter(|(_, set)| is_whole(set)).collect();
    let is_left = |operation: &crate::signalr::Operation| !sets.iter().any(|(_, set)| set.contains(*operation));
    let names = sets.iter().map(|(name, _)| (*name).to_owned());
    names.chain(all.iter().filter(is_left).map(|operation| operation.name().to_owned())).collect()
}

impl Display for MismatchDetail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { condition, wanted, found } = self;
        match found {
            Some(found) => write!(f, "{condition} is `{found}`, not ")?,
            None => write!(f, "it has no {condition}, the route wants ")?,
        }
        for (place, wanted) in wanted.iter().enumerate() {
            let separator = if place == 0 { "" } else { " or " };
            write!(f, "{separator}`{wanted}`")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_sets_of_operations_are_named_as_sets() {
        let set = |name| OperationSet::from_name(name).unwrap_or_default();
        assert_eq!(operations(set("messages").union(set("user_exists"))), ["messages", "user_exists"]);
        assert_eq!(operations(set("hub_send")), ["hub_send"]);
    }
}

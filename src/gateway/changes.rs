//! The differences between two configurations, for the log.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::hash::Hash;

use super::settings::Settings;

/// The maximum number of differences that have a line each. Chosen: more than anybody reads.
const MAX_LINES: usize = 20;

/// Returns one log line for each difference, or for each kind of differences if there are many.
pub(super) fn changes(old: &Settings, new: &Settings) -> Vec<String> {
    let mut changes = Vec::new();
    compare_by_name("credential", &old.credentials, &new.credentials, |item| &item.id, &mut changes);
    compare_by_name("endpoint", &old.endpoints, &new.endpoints, |item| item.name.as_str(), &mut changes);
    compare_by_name("disabled endpoint", &old.disabled, &new.disabled, |item| item.name.as_str(), &mut changes);
    compare_by_name("route", &old.routes, &new.routes, |item| item.name.as_str(), &mut changes);
    compare_by_name("listener", &old.listeners, &new.listeners, |(listener, _)| listener.name.as_str(), &mut changes);
    compare_by_name("caller", &old.callers, &new.callers, |item| item.name.as_str(), &mut changes);
    let order = |settings: &Settings| -> Vec<_> { settings.routes.iter().map(|route| route.name.clone()).collect() };
    if changes.iter().all(|change| !change.starts_with("route")) && order(old) != order(new) {
        changes.push("order of the routes changed".to_owned());
    }
    let mut changes = summarized(changes);
    if old.tokens != new.tokens {
        changes.push("tokens changed".to_owned());
    }
    if old.proxy != new.proxy {
        changes.push("limits, timeouts, retry, forwarding or logging.access changed".to_owned());
    }
    if old.logging != new.logging {
        changes.push("logging changed".to_owned());
    }
    if old.tracing != new.tracing {
        changes.push("tracing changed".to_owned());
    }
    if old.store != new.store {
        changes.push("idempotency.store changed".to_owned());
    }
    changes
}

/// Counts the differences of each kind if there are many.
fn summarized(changes: Vec<String>) -> Vec<String> {
    if changes.len() <= MAX_LINES {
        return changes;
    }
    let mut counts: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for (kind, what) in
        changes.iter().filter_map(|change| Some((change.split_once(' ')?.0, change.rsplit_once(' ')?.1)))
    {
        *counts.entry((kind, what)).or_default() += 1;
    }
    counts.into_iter().map(|((kind, what), count)| format!("{kind}: {count} {what}")).collect()
}

fn compare_by_name<'a, T: PartialEq, K: Eq + Hash + Display + ?Sized + 'a>(
    kind: &str,
    old: &'a [T],
    new: &'a [T],
    name: impl Fn(&'a T) -> &'a K,
    changes: &mut Vec<String>,
) {
    let mut removed: HashMap<&K, &T> = old.iter().map(|item| (name(item), item)).collect();
    for item in new {
        match removed.remove(name(item)) {
            None => changes.push(format!("{kind} {} added", name(item))),
            Some(old_item) if old_item != item => changes.push(format!("{kind} {} changed", name(item))),
            Some(_same) => {}
        }
    }
    for old_item in old.iter().filter(|item| removed.contains_key(name(item))) {
        changes.push(format!("{kind} {} removed", name(old_item)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_the_differences_of_each_kind_if_there_are_many() {
        let few: Vec<String> = (0..20).map(|number| format!("endpoint e{number} added")).collect();
        assert_eq!(summarized(few.clone()), few);
        let many = few.into_iter().chain(["endpoint x removed".to_owned(), "route r changed".to_owned()]).collect();
        assert_eq!(summarized(many), ["endpoint: 20 added", "endpoint: 1 removed", "route: 1 changed"]);
    }
}

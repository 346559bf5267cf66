//! The differences between two configurations, for the log.

use std::collections::HashMap;
use std::fmt::Display;
use std::hash::Hash;

use super::settings::Settings;

/// Returns one log line per difference.
pub(super) fn changes(old: &Settings, new: &Settings) -> Vec<String> {
    let mut changes = Vec::new();
    compare_by_name("credential", &old.credentials, &new.credentials, |item| &item.id, &mut changes);
    compare_by_name("endpoint", &old.endpoints, &new.endpoints, |item| item.name.as_str(), &mut changes);
    compare_by_name("route", &old.routes, &new.routes, |item| item.name.as_str(), &mut changes);
    compare_by_name("listener", &old.listeners, &new.listeners, |(listener, _)| listener.name.as_str(), &mut changes);
    let order = |settings: &Settings| -> Vec<_> { settings.routes.iter().map(|route| route.name.clone()).collect() };
    if changes.iter().all(|change| !change.starts_with("route")) && order(old) != order(new) {
        changes.push("order of the routes changed".to_owned());
    }
    if old.proxy != new.proxy {
        changes.push("limits, timeouts, retry, forwarding or logging.access changed".to_owned());
    }
    changes
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

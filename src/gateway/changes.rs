//! The differences between two configurations, for the log.

use super::settings::Settings;

/// Returns one log line per difference.
pub(super) fn changes(old: &Settings, new: &Settings) -> Vec<String> {
    let mut changes = Vec::new();
    compare_by_name("credential", &old.credentials, &new.credentials, |item| item.name.as_str(), &mut changes);
    compare_by_name("endpoint", &old.endpoints, &new.endpoints, |item| item.name.as_str(), &mut changes);
    compare_by_name("route", &old.routes, &new.routes, |item| item.name.as_str(), &mut changes);
    compare_by_name("listener", &old.listeners, &new.listeners, |(listener, _)| &listener.name, &mut changes);
    let order = |settings: &Settings| -> Vec<_> { settings.routes.iter().map(|route| route.name.clone()).collect() };
    if changes.iter().all(|change| !change.starts_with("route")) && order(old) != order(new) {
        changes.push("order of the routes changed".to_owned());
    }
    if old.proxy != new.proxy {
        changes.push("limits, timeouts, retry, forwarding or logging.access changed".to_owned());
    }
    changes
}

fn compare_by_name<'a, T: PartialEq>(
    kind: &str,
    old: &'a [T],
    new: &'a [T],
    name: impl Fn(&'a T) -> &'a str,
    changes: &mut Vec<String>,
) {
    for item in new {
        match old.iter().find(|old_item| name(old_item) == name(item)) {
            None => changes.push(format!("{kind} {} added", name(item))),
            Some(old_item) if old_item != item => changes.push(format!("{kind} {} changed", name(item))),
            Some(_same) => {}
        }
    }
    for old_item in old {
        if !new.iter().any(|item| name(item) == name(old_item)) {
            changes.push(format!("{kind} {} removed", name(old_item)));
        }
    }
}

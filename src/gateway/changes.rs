//! The differences between two configurations, for the log.

use super::settings::Settings;

/// Returns the differences, one line each.
pub(super) fn changes(old: &Settings, new: &Settings) -> Vec<String> {
    let mut changes = Vec::new();
    named("credential", &old.credentials, &new.credentials, |one| one.name.as_str(), &mut changes);
    named("endpoint", &old.endpoints, &new.endpoints, |one| one.name.as_str(), &mut changes);
    named("route", &old.routes, &new.routes, |one| one.name.as_str(), &mut changes);
    named("listener", &old.listeners, &new.listeners, |(listener, _)| &listener.name, &mut changes);
    let order = |settings: &Settings| -> Vec<_> { settings.routes.iter().map(|route| route.name.clone()).collect() };
    if changes.iter().all(|change| !change.starts_with("route")) && order(old) != order(new) {
        changes.push("order of the routes changed".to_owned());
    }
    if old.proxy != new.proxy {
        changes.push("limits, timeouts, retry, forwarding or logging.access changed".to_owned());
    }
    changes
}

fn named<'a, T: PartialEq>(
    what: &str,
    old: &'a [T],
    new: &'a [T],
    name: impl Fn(&'a T) -> &'a str,
    changes: &mut Vec<String>,
) {
    for one in new {
        match old.iter().find(|before| name(before) == name(one)) {
            None => changes.push(format!("{what} {} added", name(one))),
            Some(before) if before != one => changes.push(format!("{what} {} changed", name(one))),
            Some(_same) => {}
        }
    }
    for before in old {
        if !new.iter().any(|one| name(one) == name(before)) {
            changes.push(format!("{what} {} removed", name(before)));
        }
    }
}

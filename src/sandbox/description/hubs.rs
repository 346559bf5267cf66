//! The tables `[hubs]`: hubs, and the initial groups of their users.

use super::reader::Reader;
use crate::sandbox::settings::HubSettings;
use crate::sandbox::signalr::membership::MAX_UNLIMITED_GROUPS;
use crate::sandbox::signalr::parameters;

/// The rule for the names of hubs.
const NAME_RULE: &str = "a hub's name begins with a letter and has up to 128 letters, digits or _ ` , . [ ]";

/// Reads `[hubs]`.
pub(super) fn hubs(root: &Reader<'_>, endpoints: &[String]) -> Vec<HubSettings> {
    let mut hubs: Vec<HubSettings> = Vec::new();
    for table in root.named_tables_with_rule("hubs", parameters::is_name, NAME_RULE) {
        let name = table.name().to_owned();
        if let Some(other) = hubs.iter().find(|other| other.name.eq_ignore_ascii_case(&name)) {
            table.table_problem(&format!("is the same hub as `{}`: names are compared without case", other.name));
        }
        hubs.push(HubSettings { name, endpoints: endpoints_of(&table, endpoints), users: users(&table) });
    }
    hubs
}

/// Returns the endpoints that have a hub.
fn endpoints_of(table: &Reader<'_>, all: &[String]) -> Vec<String> {
    if !table.has("endpoints") {
        return all.to_vec();
    }
    let Some(named) = table.texts("endpoints") else { return Vec::new() };
    if named.is_empty() {
        table.problem("endpoints", "is empty; omit it for a hub on every endpoint");
    }
    let known: Vec<&str> = all.iter().map(String::as_str).collect();
    for name in named.iter().filter(|name| !known.contains(&name.as_str())) {
        table.unknown_name("endpoints", name, "endpoint", &known);
    }
    named
}

fn users(table: &Reader<'_>) -> Vec<(String, Vec<String>)> {
    let mut users = Vec::new();
    let Some(table) = table.table("users") else { return users };
    for (user, groups) in table.string_lists("a list of groups, such as [\"operators\"]") {
        if parameters::user(user).is_err() {
            table.problem(user, "a user id has 1 to 1024 characters");
        }
        for group in groups.iter().filter(|group| parameters::group(group).is_err()) {
            let rule = "a group name has 1 to 1024 characters, not only white space, and no line feed";
            table.problem(user, &format!("{group:?} is not a group name: {rule}"));
        }
        if groups.len() > MAX_UNLIMITED_GROUPS {
            let count = groups.len();
            table.problem(
                user,
                &format!("a user can be in at most {MAX_UNLIMITED_GROUPS} groups without a ttl, not in {count}"),
            );
        }
        users.push((user.to_owned(), groups.into_iter().map(str::to_owned).collect()));
    }
    users
}

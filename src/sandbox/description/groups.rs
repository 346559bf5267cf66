//! The tables `[tenant_groups]`: many tenants in a few lines. Each tenant has one endpoint, and a service principal of the same
//! application.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use super::reader::Reader;
use super::tenants::{self, Names};
use crate::sandbox::crypto::ids::is_guid;
use crate::sandbox::directory::model::{Directory, Resource, ServicePrincipal, Tenant};
use crate::sandbox::directory::roles::Role;
use crate::sandbox::directory::scenario::object_id;
use crate::sandbox::server::faults::{Fault, FaultKind};
use crate::sandbox::server::journal::fingerprint;
use crate::sandbox::settings::EndpointGroupSettings;

/// The maximum number of tenants in all groups. Chosen: ten times what a gateway is meant for.
const MAX_TENANTS: usize = 100_000;

/// The length of a GUID.
const GUID_LENGTH: usize = 36;

/// The default of `delay` and `retry_after`.
const FAULT_DURATION: Duration = Duration::from_secs(5);

/// A group of tenants, each with one endpoint.
pub(super) struct Group {
    /// The group's name.
    pub(super) name: String,
    /// The names of the endpoints.
    pub(super) names: Vec<String>,
    /// The client id of the application that each tenant has a service principal of.
    pub(super) client_id: String,
    bind: SocketAddr,
    domain: String,
    /// One for each name.
    tenants: Vec<Tenant>,
    faults: Vec<(String, Fault)>,
}

/// A pattern with the placeholder `{n}`, the number of a tenant.
struct Pattern(String);

impl Group {
    /// Adds the tenants and resources to the directory and the faults to the others. Returns the settings of the endpoints.
    pub(super) fn add_to(self, directory: &mut Directory, faults: &mut Vec<(String, Fault)>) -> EndpointGroupSettings {
        directory.resources.extend(self.names.iter().zip(&self.tenants).map(|(name, tenant)| Resource {
            name: name.clone(),
            tenant: tenant.id.clone(),
            local_auth: true,
            public_network: true,
        }));
        directory.tenants.extend(self.tenants);
        faults.extend(self.faults);
        EndpointGroupSettings { name: self.name, bind: self.bind, domain: self.domain, endpoints: self.names }
    }
}

/// Reads `[tenant_groups]`. `reserved` are names of other servers.
pub(super) fn groups(
    root: &Reader<'_>,
    names: &Names,
    directory: &Directory,
    bind: IpAddr,
    reserved: &[&str],
) -> Vec<Group> {
    let mut taken: HashSet<String> = names.endpoints.iter().map(|name| name.to_ascii_lowercase()).collect();
    taken.extend(reserved.iter().map(|name| (*name).to_owned()));
    for tenant in &directory.tenants {
        taken.extend([tenant.id.to_ascii_lowercase(), tenant.domain.to_ascii_lowercase()]);
    }
    let tables = root.named_tables("tenant_groups");
    tables.iter().map(|table| group(table, names, &mut taken, bind)).collect()
}

/// Reads one group. `taken` are the names, ids and domains that others have.
fn group(table: &Reader<'_>, names: &Names, taken: &mut HashSet<String>, bind: IpAddr) -> Group {
    let count = count(table);
    let (name, id) = (Pattern::of_names(table), Pattern::of_ids(table));
    let domain = table.text("domain").unwrap_or_else(|| String::from("{name}.onmicrosoft.com"));
    if !domain.contains("{name}") && !domain.contains("{n}") {
        table.problem("domain", "must contain {name} or {n}, so that each tenant has its own");
    }
    let client_id = tenants::resolve(table, "application", &names.applications, "application");
    let roles = roles(table);
    let not_provisioned = numbers(table, "not_provisioned", count);
    let throttled = numbers(table, "throttled", count);
    let slow_tokens = numbers(table, "slow_tokens", count);
    let slow_calls = numbers(table, "slow_calls", count);
    let retry_after = table.duration("retry_after").unwrap_or(FAULT_DURATION);
    let delay = table.duration("delay").unwrap_or(FAULT_DURATION);
    let mut group = Group {
        name: table.name().to_owned(),
        names: Vec::with_capacity(count),
        client_id,
        bind: SocketAddr::new(bind, table.port("port")),
        domain: hosts(table),
        tenants: Vec::with_capacity(count),
        faults: Vec::new(),
    };
    let mut duplicate = None;
    for number in 1..=count {
        let (name, id) = (name.expand(number), id.expand_guid(number));
        let domain = domain.replace("{name}", &name).replace("{n}", &number.to_string());
        for (key, own) in [("name", &name), ("id", &id), ("domain", &domain)] {
            if !taken.insert(own.to_ascii_lowercase()) {
                duplicate.get_or_insert_with(|| (key, own.clone()));
            }
        }
        let mut tenant = Tenant::new(&id, &domain);
        tenant.throttled = throttled.contains(&number).then_some(retry_after);
        tenant.token_delay = slow_tokens.contains(&number).then_some(delay);
        if !not_provisioned.contains(&number) {
            let roles = roles.iter().map(|role| (name.clone(), *role)).collect();
            let object_id = object_id(&id, &group.client_id);
            let client_id = group.client_id.clone();
            tenant.service_principals.push(ServicePrincipal { client_id, object_id, enabled: true, roles });
        }
        if slow_calls.contains(&number) {
            let delay_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
            group.faults.push((name.clone(), Fault::always(FaultKind::Delay { delay_ms })));
        }
        group.names.push(name);
        group.tenants.push(tenant);
    }
    if let Some((key, own)) = duplicate {
        table.problem(key, &format!("`{own}` exists already"));
    }
    group
}

fn count(table: &Reader<'_>) -> usize {
    if !table.has("count") {
        table.problem("count", "is missing; write how many tenants there are");
        return 0;
    }
    let count = table.number("count").unwrap_or(1);
    if let Ok(count @ 1..=MAX_TENANTS) = usize::try_from(count) {
        return count;
    }
    table.problem("count", &format!("must be 1 to {MAX_TENANTS}"));
    0
}

/// Reads the roles that the service principals have on the endpoint of their tenant.
fn roles(table: &Reader<'_>) -> Vec<Role> {
    match table.texts("roles") {
        Some(listed) => listed.iter().filter_map(|name| tenants::role(table, "roles", name)).collect(),
        None => vec![Role::RestApiOwner],
    }
}

/// Reads `hosts`, and returns the domain of the host names.
fn hosts(table: &Reader<'_>) -> String {
    let hosts = table.text("hosts").unwrap_or_else(|| String::from("*.service.localhost"));
    let domain = hosts.strip_prefix("*.").unwrap_or_default();
    let labels: Vec<&str> = domain.split('.').collect();
    let is_label = |label: &&str| !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    // TLS clients accept no wildcard above a single label.
    if labels.len() < 2 || !labels.iter().all(is_label) {
        table.problem("hosts", "must be `*.` and a domain of at least two labels, such as \"*.service.localhost\"");
    }
    domain.to_ascii_lowercase()
}

/// Reads numbers of tenants: integers, and ranges as text.
fn numbers(table: &Reader<'_>, key: &'static str, count: usize) -> HashSet<usize> {
    let mut numbers = HashSet::new();
    for (written, range) in table.ranges(key, "a list of numbers and ranges, such as [3, \"10-19\"]") {
        if *range.start() == 0 || range.is_empty() || *range.end() > count {
            table.problem(key, &format!("`{written}` is not within 1 to {count}"));
        } else {
            numbers.extend(range);
        }
    }
    numbers
}

impl Pattern {
    /// Reads the pattern of the names. A hub names its endpoint, so names have the letters of hubs.
    fn of_names(table: &Reader<'_>) -> Self {
        let pattern = table.text("name").unwrap_or_else(|| format!("{}{{n}}", table.name()));
        let rest = pattern.replacen("{n}", "", 1);
        let begins_with_letter = pattern.starts_with(|first: char| first.is_ascii_alphabetic());
        let is_name = rest.len() < pattern.len() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric());
        if !begins_with_letter || !is_name {
            let rule = "must contain {n} once, begin with a letter, and have only letters and digits, as the hubs that name endpoints";
            table.problem("name", &format!("`{pattern}` {rule}"));
        }
        Self(pattern)
    }

    /// Reads the pattern of the ids of tenants.
    fn of_ids(table: &Reader<'_>) -> Self {
        let default = || format!("{}-0000-4000-8000-{{n}}", fingerprint(table.name()));
        let pattern = Self(table.text("id").unwrap_or_else(default));
        if !pattern.0.contains("{n}") || !is_guid(&pattern.expand_guid(1)) {
            table.problem("id", "must be a GUID with {n} for some of its digits");
        }
        pattern
    }

    fn expand(&self, number: usize) -> String {
        self.0.replacen("{n}", &number.to_string(), 1)
    }

    /// Pads the number with zeros to the length of a GUID.
    fn expand_guid(&self, number: usize) -> String {
        let width = (GUID_LENGTH + "{n}".len()).saturating_sub(self.0.len());
        self.0.replacen("{n}", &format!("{number:0width$}"), 1)
    }
}

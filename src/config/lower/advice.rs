//! Warnings about a valid configuration: listeners that allow too much to too many callers, and routes that match less than
//! they appear to. Runs on the whole configuration, after all parts are lowered.

use std::collections::HashMap;

use super::context::{Context, key};
use crate::config::file::{ConfigFile, OneOrMany, RouteFile};
use crate::credential::{Cloud, CredentialId, CredentialKind};
use crate::gateway::Settings;
use crate::signalr::{Operation, OperationSet};

/// The sets of operations that a listener allows only if its `operations` name them.
const OPT_IN: [(&str, OperationSet); 4] = [
    ("execute", OperationSet::EXECUTE),
    ("close", OperationSet::CLOSE),
    ("credentials", OperationSet::CREDENTIALS),
    ("claims", OperationSet::CLAIMS),
];

pub(super) fn warn(file: &ConfigFile, settings: &Settings, context: &mut Context<'_>) {
    exposed_listeners(settings, context);
    routes_without_execute(file, settings, context);
    clouds_of_endpoints(settings, context);
}

/// Warns about endpoints in another cloud than their credential: no token of one cloud is valid in another.
fn clouds_of_endpoints(settings: &Settings, context: &mut Context<'_>) {
    let clouds: HashMap<&CredentialId, &Cloud> = settings
        .credentials
        .iter()
        .filter_map(|credential| match &credential.kind {
            CredentialKind::App { app, .. } => Some((&credential.id, &app.authority.cloud)),
            CredentialKind::AzureCli { .. }
            | CredentialKind::ManagedIdentity { .. }
            | CredentialKind::AccessKey { .. }
            | CredentialKind::TokenFile { .. } => None,
        })
        .collect();
    for endpoint in &settings.endpoints {
        let host = endpoint.origin.host.trim_end_matches('.');
        let of_host = Cloud::of_resource(host);
        let Some(((suffix, of_host), cloud)) = of_host.zip(clouds.get(&endpoint.credential)) else { continue };
        if **cloud != of_host && !matches!(cloud, Cloud::Custom { .. }) {
            let (name, found) = (name_of(&of_host), name_of(cloud));
            let credential = &endpoint.credential.name;
            let fact = format!(
                "hosts under `{suffix}` are in the cloud `{name}`, but `credentials.{credential}` is in `{found}`, whose tokens \
                 they reject"
            );
            let fix = format!("write cloud = \"{name}\" in [credentials.{credential}], or correct the host");
            context.warning(&key(&["endpoints", endpoint.name.as_str(), "url"]), fact, fix);
        }
    }
}

/// Returns the value of `cloud`.
fn name_of(cloud: &Cloud) -> &'static str {
    match cloud {
        Cloud::Public => "public",
        Cloud::UsGovernment => "us_government",
        Cloud::China => "china",
        Cloud::Custom { .. } => "custom",
    }
}

/// Warns about listeners that other hosts can reach and that allow opt-in operations to every caller.
fn exposed_listeners(settings: &Settings, context: &mut Context<'_>) {
    for (name, admission, address) in settings.open_listeners() {
        let allows = |set: OperationSet| set.iter().any(|operation| admission.operations.contains(operation));
        let sets: Vec<&str> = OPT_IN.iter().filter(|(_, set)| allows(*set)).map(|(name, _)| *name).collect();
        if !sets.is_empty() {
            let fact = format!("every caller that reaches {address} may use operations of {}", sets.join(", "));
            let fix = "name the networks of its callers in `clients`, or allow them on a listener of their own at \
                       127.0.0.1 or a Unix socket"
                .to_owned();
            context.warning(&key(&["listeners", name, "operations"]), fact, fix);
        }
    }
}

/// Warns about routes for `messages`, which included `:execute` in 0.1, and about routes for `:execute` that no listener allows.
fn routes_without_execute(file: &ConfigFile, settings: &Settings, context: &mut Context<'_>) {
    let operations = |route: &RouteFile| -> OperationSet {
        let names = route.matches.operation.as_ref().map(OneOrMany::as_slice).unwrap_or_default();
        names.iter().filter_map(|name| OperationSet::from_name(name)).fold(OperationSet::EMPTY, OperationSet::union)
    };
    let matches_execute = |route: &RouteFile| operations(route).contains(Operation::HubExecute);
    let has_route = file.routes.iter().any(|route| matches_execute(route));
    let is_allowed =
        settings.listeners.iter().any(|(_, admission)| admission.operations.contains(Operation::HubExecute));
    for (index, route) in file.routes.iter().enumerate() {
        let at = key(&["routes", &index.to_string(), "match", "operation"]);
        let names = route.matches.operation.as_ref().map(OneOrMany::as_slice).unwrap_or_default();
        if names.iter().any(|name| name == "messages") && !has_route {
            let fix =
                "write operation = [\"messages\", \"execute\"], or name `execute` in the route that should match it";
            context.warning(&at, "`messages` no longer includes `:execute`, so this route does not match it", fix);
        }
        if operations(route) == OperationSet::EXECUTE && !is_allowed {
            let fix = "add `execute` to the `operations` of a listener";
            context.warning(&at, "no listener allows `execute`, so this route matches no call", fix);
        }
    }
}

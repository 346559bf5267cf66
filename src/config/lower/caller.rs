//! Lowers callers that are known by their certificates.

use std::sync::Arc;

use super::context::{Context, key};
use super::listener::operations;
use super::values;
use crate::config::file::{CallerFile, ConfigFile};
use crate::proxy::AdmissionSettings;
use crate::route::{CallerSettings, Case, Constraint, Pattern, RouteSettings, identity_pattern};
use crate::serve::ListenerSettings;

pub(super) fn lower(file: &ConfigFile, context: &mut Context<'_>) -> Vec<CallerSettings> {
    let callers: Vec<_> = file.callers.iter().map(|(name, caller)| lower_one(name, caller, context)).collect();
    check_overlaps(&callers, context);
    callers
}

fn lower_one(name: &str, file: &CallerFile, context: &mut Context<'_>) -> CallerSettings {
    let at = |tail: &str| key(&["callers", name, tail]);
    values::check_name(&key(&["callers", name]), name, context);
    let identities = file.matches.as_slice();
    if identities.is_empty() || identities.iter().any(String::is_empty) {
        let fix = "write an identity, such as `spiffe://prod/orders`, or a pattern, such as `spiffe://prod/*`";
        context.problem(&at("match"), "is empty, so no caller could ever match", fix);
    }
    let mut texts = |name: &str, texts: &Option<Vec<String>>| -> Constraint<String> {
        let Some(texts) = texts else { return Constraint::Any };
        if texts.is_empty() || texts.iter().any(String::is_empty) {
            context.problem(&at(name), "is empty, so every call of this caller would be refused", "remove it for any");
        }
        Constraint::OneOf(texts.clone())
    };
    let hubs = texts("hubs", &file.hubs);
    let endpoints = texts("endpoints", &file.endpoints);
    values::check_hubs(hubs.allowed().unwrap_or_default(), &at("hubs"), context);
    for endpoint in endpoints.allowed().unwrap_or_default() {
        if !endpoint.contains('*') {
            values::check_reference(&at("endpoints"), "endpoints", endpoint, context);
        }
    }
    CallerSettings {
        name: name.to_owned(),
        identities: identities.iter().map(|text| identity_pattern(text)).collect(),
        operations: file.operations.as_ref().map(|names| operations(names, &at("operations"), context)),
        hubs: hubs.map(|text| Pattern::new(text, Case::Insensitive)),
        endpoints: endpoints.map(|text| Pattern::new(text, Case::Sensitive)),
        rate: file.rate.as_ref().and_then(|rate| values::rate(&at("rate"), rate.per_second, rate.burst, context)),
    }
}

/// Reports identities that two callers have: the same text, or patterns of which neither includes the other, so that it is not
/// clear which one applies.
fn check_overlaps(callers: &[CallerSettings], context: &mut Context<'_>) {
    let mut all: Vec<(&str, &Pattern, &CallerSettings)> = callers
        .iter()
        .flat_map(|caller| caller.identities.iter().map(move |pattern| (pattern.fixed_start(), pattern, caller)))
        .collect();
    all.sort_by_cached_key(|(start, pattern, _)| (*start, pattern.to_string()));
    for (index, (start, pattern, caller)) in all.iter().enumerate() {
        // Later ones begin with the same text, or no later one can match the same identity.
        let later = all
            .iter()
            .skip(index + 1)
            .take_while(|(other, ..)| other.starts_with(start) && (pattern.exact().is_none() || other == start));
        for (_, other, rival) in later {
            if caller.name == rival.name {
                continue;
            }
            let is_same = pattern == other;
            let is_unclear = pattern.overlaps(other) && !pattern.includes(other) && !other.includes(pattern);
            if is_same || is_unclear {
                let fact = format!("`{other}` and `{pattern}` of caller `{}` match the same identities", caller.name);
                let fix =
                    "give each identity to one caller; one pattern may include the other, and the narrower one applies";
                context.problem(&key(&["callers", &rival.name, "match"]), fact, fix);
            }
        }
    }
}

/// Reports conditions on callers that no call can meet, since no listener asks for certificates.
pub(super) fn check_listeners(
    file: &ConfigFile,
    listeners: &[(ListenerSettings, AdmissionSettings)],
    routes: &[Arc<RouteSettings>],
    context: &mut Context<'_>,
) {
    if listeners.iter().any(|(listener, _)| listener.identifies_callers())
        || context.is_incomplete(&key(&["listeners"]))
    {
        return;
    }
    let fact = "can never match: no listener has `tls` with `client_ca`, so callers have no identity";
    let fix = "add `client_ca`, the file with the CAs of callers' certificates, to the `tls` of a listener";
    for name in file.callers.keys() {
        context.problem(&key(&["callers", name, "match"]), fact, fix);
    }
    for (index, _) in routes.iter().enumerate().filter(|(_, route)| !route.matches.callers.is_any()) {
        context.problem(&key(&["routes", &index.to_string(), "match", "caller"]), fact, fix);
    }
}

//! Lowers callers that are known by their certificates.

use std::sync::Arc;

use super::context::{Context, Key, key};
use super::listener::operations;
use super::values;
use crate::config::file::{CallerFile, ConfigFile, OneOrMany};
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
    let mut texts = |name: &str, texts: &Option<Vec<String>>| -> Option<Vec<String>> {
        let texts = texts.as_ref()?;
        if texts.is_empty() || texts.iter().any(String::is_empty) {
            context.problem(&at(name), "is empty, so every call of this caller would be refused", "remove it for any");
        }
        Some(texts.clone())
    };
    let hubs = texts("hubs", &file.hubs);
    let endpoints = texts("endpoints", &file.endpoints);
    let patterns = |texts: Option<Vec<String>>, case| match texts {
        None => Constraint::Any,
        Some(texts) => Constraint::OneOf(texts.iter().map(|text| Pattern::new(text, case)).collect()),
    };
    values::check_hubs(hubs.as_deref().unwrap_or_default(), &at("hubs"), context);
    for endpoint in endpoints.iter().flatten() {
        if !endpoint.contains('*') {
            values::check_reference(&at("endpoints"), "endpoints", endpoint, context);
        }
    }
    CallerSettings {
        name: name.to_owned(),
        identities: identities.iter().map(|text| identity_pattern(text)).collect(),
        operations: file.operations.as_ref().map(|names| operations(names, &at("operations"), context)),
        hubs: patterns(hubs, Case::Insensitive),
        endpoints: patterns(endpoints, Case::Sensitive),
        rate: file.rate.as_ref().and_then(|rate| values::rate(&at("rate"), rate.per_second, rate.burst, context)),
    }
}

/// Reports identities that two callers have: the same text, or patterns of which neither includes the other, so that it is not
/// clear which one applies.
fn check_overlaps(callers: &[CallerSettings], context: &mut Context<'_>) {
    let mut all: Vec<(&Pattern, &CallerSettings)> =
        callers.iter().flat_map(|caller| caller.identities.iter().map(move |pattern| (pattern, caller))).collect();
    let fixed_start = |pattern: &Pattern| {
        let text = pattern.to_string();
        text.split('*').next().unwrap_or_default().to_owned()
    };
    all.sort_by_cached_key(|(pattern, _)| (fixed_start(pattern), pattern.to_string()));
    for (index, (pattern, caller)) in all.iter().enumerate() {
        let start = fixed_start(pattern);
        // Later ones begin with the same text, or no later one can match the same identity.
        let later = all.iter().skip(index + 1).take_while(|(other, _)| {
            let other = fixed_start(other);
            other.starts_with(&start) && (pattern.exact().is_none() || other == start)
        });
        for (other, rival) in later {
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

/// Lowers the condition of a route on the caller.
pub(super) fn condition(
    identities: Option<&OneOrMany<String>>,
    at: &Key,
    context: &mut Context<'_>,
) -> Constraint<Pattern> {
    let Some(identities) = identities.map(OneOrMany::as_slice) else { return Constraint::Any };
    if identities.is_empty() || identities.iter().any(String::is_empty) {
        context.problem(at, "is empty, so no call could ever match", "remove it to match any");
    }
    Constraint::OneOf(identities.iter().map(|text| identity_pattern(text)).collect())
}

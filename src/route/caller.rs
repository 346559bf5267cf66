//! Configured callers: which identities they have, and what they may do.

use std::collections::HashMap;

use super::case::Case;
use super::pattern::Pattern;
use super::settings::Constraint;
use super::target::Target;
use crate::endpoint::EndpointName;
use crate::limits::RateSettings;
use crate::signalr::{Call, Name, OperationSet};

/// A caller that the configuration names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallerSettings {
    /// The configured name. It is a metric label and a log field.
    pub name: String,
    /// Its identities: texts of certificates' identities, or patterns of them.
    pub identities: Vec<Pattern>,
    /// The operations that it may use, among those that its listener allows; `None` for all of these.
    pub operations: Option<OperationSet>,
    /// The hubs that it may use. Case-insensitive, as in the service.
    pub hubs: Constraint<Pattern>,
    /// The names of the endpoints that its calls may be sent to.
    pub endpoints: Constraint<Pattern>,
    /// The rate limit; `None` for no limit.
    pub rate: Option<RateSettings>,
}

/// Parses a configured identity, or a pattern of identities. DNS names are compared in lower case, URIs and subjects as they are.
pub fn identity_pattern(text: &str) -> Pattern {
    let is_dns_name = !text.contains([':', '=']);
    if is_dns_name {
        Pattern::new(&text.to_ascii_lowercase(), Case::Sensitive)
    } else {
        Pattern::new(text, Case::Sensitive)
    }
}

/// What routes know of a call's caller.
#[derive(Clone, Copy, Debug, Default)]
pub struct RouteCaller<'a> {
    /// The identity in its certificate; `None` if it has sent none.
    pub identity: Option<&'a str>,
    /// The endpoints that it may reach; `None` for any.
    pub reach: Option<&'a Reach>,
}

/// The endpoints that a caller may reach.
#[derive(Debug)]
pub struct Reach {
    patterns: Vec<Pattern>,
    /// Whether it may reach an endpoint that is in use, by the endpoint's index.
    by_index: Box<[bool]>,
}

impl Reach {
    fn new(patterns: &[Pattern], endpoints: &[EndpointName]) -> Self {
        let is_match = |name: &EndpointName| patterns.iter().any(|pattern| pattern.matches(name.as_str()));
        Self { by_index: endpoints.iter().map(is_match).collect(), patterns: patterns.to_vec() }
    }

    /// Returns whether an endpoint is among them.
    pub(super) fn contains(&self, target: &Target) -> bool {
        if target.is_enabled() {
            return self.by_index.get(target.endpoint_index()).is_some_and(|may_reach| *may_reach);
        }
        self.patterns.iter().any(|pattern| pattern.matches(target.name().as_str()))
    }
}

/// Why a caller may not send a call, whatever its route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallerRefusal {
    /// It may not use the operation.
    #[error(
        "the caller that the certificate identifies may not use this operation; have the operator add it to `operations` of \
         the caller"
    )]
    Operation,
    /// It may not use the hub.
    #[error(
        "the caller that the certificate identifies may not use this hub; have the operator add it to `hubs` of the caller"
    )]
    Hub,
}

/// A configured caller.
#[derive(Debug)]
pub struct Caller {
    settings: CallerSettings,
    reach: Option<Reach>,
}

impl Caller {
    /// Returns the settings.
    pub fn settings(&self) -> &CallerSettings {
        &self.settings
    }

    /// Returns the endpoints that it may reach; `None` for any.
    pub fn reach(&self) -> Option<&Reach> {
        self.reach.as_ref()
    }

    /// Checks the operation and the hub of a call. A call without a hub is none of the hubs that a caller may use.
    ///
    /// # Errors
    /// [`CallerRefusal`].
    pub fn check(&self, call: &Call<'_>) -> Result<(), CallerRefusal> {
        let CallerSettings { operations, hubs, .. } = &self.settings;
        if operations.is_some_and(|operations| !operations.contains(call.operation)) {
            return Err(CallerRefusal::Operation);
        }
        let Some(hubs) = hubs.allowed() else { return Ok(()) };
        let hub = call.hub.map(Name::decoded);
        let may_use = hub.is_some_and(|hub| hubs.iter().any(|pattern| pattern.matches(&hub)));
        if may_use { Ok(()) } else { Err(CallerRefusal::Hub) }
    }
}

/// All configured callers.
#[derive(Debug, Default)]
pub struct Callers {
    all: Vec<Caller>,
    /// By identity, for those that are no patterns.
    by_identity: HashMap<Box<str>, usize>,
    /// The patterns, narrower ones before wider ones.
    patterns: Vec<(Pattern, usize)>,
}

impl Callers {
    /// Builds the callers of a configuration. `endpoints` are those that are in use, in the order of their indexes.
    pub fn build(settings: &[CallerSettings], endpoints: &[EndpointName]) -> Self {
        let (mut by_identity, mut patterns) = (HashMap::new(), Vec::new());
        for (index, caller) in settings.iter().enumerate() {
            for pattern in &caller.identities {
                match pattern.exact() {
                    Some(identity) => _ = by_identity.entry(identity.into()).or_insert(index),
                    None => patterns.push((pattern.clone(), index)),
                }
            }
        }
        // A pattern that matches a part of what another one matches has at least as many characters besides `*`.
        patterns.sort_by_key(|(pattern, _)| pattern.breadth());
        let caller = |settings: &CallerSettings| Caller {
            reach: settings.endpoints.allowed().map(|patterns| Reach::new(patterns, endpoints)),
            settings: settings.clone(),
        };
        Self { all: settings.iter().map(caller).collect(), by_identity, patterns }
    }

    /// Returns whether none is configured.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Returns the caller with this identity, and its index: the one that has exactly this identity, else the one with the
    /// narrowest pattern that matches it.
    pub fn find(&self, identity: &str) -> Option<(usize, &Caller)> {
        let exact = self.by_identity.get(identity);
        let matching = || self.patterns.iter().find(|(pattern, _)| pattern.matches(identity)).map(|(_, index)| index);
        let index = *exact.or_else(matching)?;
        Some((index, self.all.get(index)?))
    }

    /// Returns all callers, in the order of their indexes.
    pub fn all(&self) -> &[Caller] {
        &self.all
    }

    /// Returns a caller by its index.
    pub fn get(&self, index: usize) -> Option<&Caller> {
        self.all.get(index)
    }
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;

    fn caller(name: &str, identities: &[&str]) -> CallerSettings {
        CallerSettings {
            name: name.to_owned(),
            identities: identities.iter().map(|text| identity_pattern(text)).collect(),
            operations: None,
            hubs: Constraint::Any,
            endpoints: Constraint::Any,
            rate: None,
        }
    }

    fn found(callers: &[CallerSettings], identity: &str) -> Option<String> {
        Callers::build(callers, &[]).find(identity).map(|(_, caller)| caller.settings().name.clone())
    }

    #[test]
    fn exact_identity_takes_precedence_over_patterns_and_narrower_ones_over_wider_ones() {
        let callers = [
            caller("anyone", &["*"]),
            caller("prod", &["spiffe://prod/*"]),
            caller("orders", &["spiffe://prod/orders", "Orders.Prod.internal"]),
            caller("billing", &["spiffe://prod/billing/*"]),
        ];
        for (identity, expected) in [
            ("spiffe://prod/orders", "orders"),
            ("orders.prod.internal", "orders"),
            ("spiffe://prod/billing/a", "billing"),
            ("spiffe://prod/other", "prod"),
            ("spiffe://PROD/orders", "anyone"),
        ] {
            assert_eq!(found(&callers, identity).as_deref(), Some(expected), "{identity}");
        }
        assert_eq!(found(&callers[1..], "spiffe://test/orders"), None);
    }

    #[test]
    fn caller_may_use_its_operations_and_hubs_only() {
        let limited = CallerSettings {
            operations: Some(OperationSet::MESSAGES),
            hubs: Constraint::OneOf(vec![Pattern::new("orders*", Case::Insensitive)]),
            ..caller("orders", &["spiffe://prod/orders"])
        };
        let callers = Callers::build(&[limited], &[]);
        let (_, caller) = callers.find("spiffe://prod/orders").unwrap();
        let check = |method: Method, path: &str| caller.check(&Call::parse(&method, path, None).unwrap());
        assert_eq!(check(Method::POST, "/api/hubs/Orders_eu/:send"), Ok(()));
        assert_eq!(check(Method::POST, "/api/hubs/chat/:send"), Err(CallerRefusal::Hub));
        assert_eq!(check(Method::POST, "/api/hubs/orders/:closeConnections"), Err(CallerRefusal::Operation));
    }
}

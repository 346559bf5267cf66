//! Routing tests: calls and their expected routes. They run as dry runs once all other keys are valid. A failed test is a
//! problem, so the configuration does not take effect.

use std::collections::BTreeSet;

use http::{HeaderName, HeaderValue};

use super::context::{Context, Key, key};
use super::values;
use crate::config::file::{ConfigFile, OneOrMany, TestFile};
use crate::config::problem::did_you_mean;
use crate::gateway::{Decision, Destination, DryRun, DryRunCall, Settings, error_kinds};
use crate::serve::{CallerIdentity, ListenerSettings};

/// A valid routing test.
pub(in crate::config) struct Test {
    key: Key,
    /// Its name in reports.
    title: String,
    call: DryRunCall,
    listener: Option<String>,
    route: Option<String>,
    endpoints: Option<Vec<String>>,
    refused: Option<String>,
}

pub(super) fn lower(file: &ConfigFile, context: &mut Context<'_>) -> Vec<Test> {
    let mut routes: BTreeSet<String> = file.routes.iter().map(|route| route.name.clone()).collect();
    if routes.is_empty() {
        routes.insert("default".to_owned());
    }
    let tests = file.tests.iter().enumerate();
    tests.filter_map(|(index, test)| lower_one(&key(&["tests", &index.to_string()]), test, &routes, context)).collect()
}

/// Lowers one test. `routes` has the names of all routes.
fn lower_one(at: &Key, file: &TestFile, routes: &BTreeSet<String>, context: &mut Context<'_>) -> Option<Test> {
    let below = |name: &str| -> Key { at.iter().cloned().chain([name.to_owned()]).collect() };
    let endpoints = file.endpoints.as_ref().map(OneOrMany::as_slice);
    match (&file.refused, file.route.is_some() || endpoints.is_some()) {
        (None, false) => {
            let fix = "add `route`, `endpoints` or `refused`";
            context.problem(at, "has no expectation", fix);
        }
        (Some(_), true) => {
            let fix = "keep `refused` or the others: a rejected call goes to no endpoint";
            context.problem(&below("refused"), "cannot be combined with `route` or `endpoints`", fix);
        }
        (Some(kind), false) if !error_kinds().any(|known| known == kind) => {
            let fix = did_you_mean(kind, error_kinds())
                .unwrap_or_else(|| "write an error kind, such as no_route or operation_not_allowed".to_owned());
            context.problem(&below("refused"), format!("`{kind}` is not an error kind"), fix);
        }
        (None, true) | (Some(_), false) => {}
    }
    if let Some(route) = file.route.as_ref().filter(|_| !context.is_incomplete(&key(&["routes"])))
        && !routes.contains(route)
    {
        let fix = did_you_mean(route, routes.iter().map(String::as_str))
            .unwrap_or_else(|| format!("name one of {}", list(routes.iter().map(String::as_str))));
        context.problem(&below("route"), format!("there is no route `{route}`"), fix);
    }
    for endpoint in endpoints.unwrap_or_default() {
        values::check_reference(&below("endpoints"), "endpoints", endpoint, context);
    }
    if let Some(listener) = &file.listener
        && !(listener == "default" && context.names("listeners").is_empty())
    {
        values::check_reference(&below("listener"), "listeners", listener, context);
    }
    let headers = headers(file, &below("headers"), context);
    let client = file.client.as_ref().and_then(|client| {
        let address = client.parse().ok();
        if address.is_none() {
            context.problem(
                &below("client"),
                format!("`{client}` is not an IP address"),
                "write an address, such as `10.0.0.1`",
            );
        }
        address
    });
    let call = DryRunCall::new(&file.method, &file.url, &headers);
    let mut call = match call {
        Ok(call) => call,
        Err(err) => {
            context.problem(
                at,
                err.to_string(),
                "write a method such as POST, and a path such as /api/hubs/chat/:send",
            );
            return None;
        }
    };
    call.client = client;
    call.caller = file.caller.as_deref().map(CallerIdentity::from_text);
    Some(Test {
        key: at.clone(),
        title: file.name.clone().unwrap_or_else(|| format!("{} {}", file.method, file.url)),
        call,
        listener: file.listener.clone(),
        route: file.route.clone(),
        endpoints: endpoints.map(<[_]>::to_vec),
        refused: file.refused.clone(),
    })
}

fn headers(file: &TestFile, key: &[String], context: &mut Context<'_>) -> Vec<(HeaderName, HeaderValue)> {
    let mut headers = Vec::with_capacity(file.headers.len());
    for (name, value) in &file.headers {
        if let (Some(name), Some(value)) =
            (values::header_name(key, name, context), values::header_value(key, value, context))
        {
            headers.push((name, value));
        }
    }
    headers
}

/// Runs tests against valid settings, and reports those that fail.
pub(in crate::config) fn run(tests: &[Test], settings: &Settings, context: &mut Context<'_>) {
    if tests.is_empty() {
        return;
    }
    let dry_run = match DryRun::new(settings) {
        Ok(dry_run) => dry_run,
        Err(err) => {
            return context.problem(&key(&["routes"]), err.to_string(), "name endpoints and listeners that exist");
        }
    };
    for test in tests {
        let mut call = test.call.clone();
        if let Some(name) = &test.listener {
            let mut listeners = settings.listeners.iter();
            // An unknown name is already reported.
            let Some(index) = listeners.position(|(known, _)| known.name == *name) else { continue };
            call.listener = index;
        }
        let listener = settings.listeners.get(call.listener).map(|(listener, _)| listener);
        if call.caller.is_some() && !listener.is_some_and(ListenerSettings::identifies_callers) {
            let key: Key = test.key.iter().cloned().chain(["caller".to_owned()]).collect();
            let fix = "remove it, or name a `listener` with `client_ca`";
            context.problem(&key, "the callers of this listener have no identity", fix);
            continue;
        }
        let decision = dry_run.decide(&call);
        if !test.is_met(&decision) {
            // Only now: to explain takes time in proportion to the number of routes.
            test.report(&dry_run.explain(&call), context);
        }
    }
}

impl Test {
    /// Returns whether a decision is as expected.
    fn is_met(&self, decision: &Decision) -> bool {
        match &self.refused {
            Some(kind) => decision.outcome.as_ref().is_err_and(|err| err.kind().label() == kind),
            None => {
                self.has_route(decision) && self.endpoints.as_ref().is_none_or(|expected| goes_to(decision, expected))
            }
        }
    }

    fn has_route(&self, decision: &Decision) -> bool {
        let route = decision.route.as_ref().filter(|_| decision.outcome.is_ok());
        self.route.as_ref().is_none_or(|expected| route.is_some_and(|route| route.as_str() == expected))
    }

    /// Reports what was expected and what was decided instead.
    fn report(&self, decision: &Decision, context: &mut Context<'_>) {
        let mut fix = "correct the routes, or what the test expects".to_owned();
        let (name, expected) = match (&self.refused, &self.route, &self.endpoints) {
            (Some(kind), _, _) => ("refused", format!("to be rejected as `{kind}`")),
            (None, Some(route), _) if !self.has_route(decision) => {
                let mismatch = decision.passed_over.iter().find(|(name, _)| name.as_str() == route);
                if let Some((name, detail)) = mismatch {
                    fix = format!("`{name}` does not match: {detail}");
                }
                ("route", format!("route `{route}`"))
            }
            (None, _, endpoints) => {
                let names = endpoints.iter().flatten().map(String::as_str);
                ("endpoints", format!("endpoints {}", list(names)))
            }
        };
        let key: Key = self.key.iter().cloned().chain([name.to_owned()]).collect();
        let fact = format!("`{}`: expected {expected}, got {}", self.title, describe(decision));
        context.problem(&key, fact, fix);
    }
}

/// Returns whether a call goes to the expected endpoints, in the expected order unless the order has no meaning.
fn goes_to(decision: &Decision, expected: &[String]) -> bool {
    let Ok(Destination::Endpoints { endpoints, in_any_order, .. }) = &decision.outcome else { return false };
    let mut found: Vec<&str> = endpoints.iter().map(|(name, _)| name.as_str()).collect();
    let mut expected: Vec<&str> = expected.iter().map(String::as_str).collect();
    if *in_any_order {
        found.sort_unstable();
        expected.sort_unstable();
    }
    found == expected
}

/// Describes a decision in a report.
fn describe(decision: &Decision) -> String {
    match (&decision.outcome, &decision.route) {
        (Ok(Destination::Endpoints { endpoints, .. }), Some(route)) => {
            format!("route `{route}` to {}", list(endpoints.iter().map(|(name, _)| name.as_str())))
        }
        (Ok(_), _) => "a response of the gateway itself".to_owned(),
        (Err(err), _) => format!("{} `{}`: {err}", err.status().as_u16(), err.kind().label()),
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

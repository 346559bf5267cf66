//! The verdict of `/status`: what is wrong, what it means for calls, and what to do, in at most three lines.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::callers::{Answer, Broken, RouteEffect, callers_get};
use super::concerns::{Concern, ConnectionLimit, NORMAL, Rejection};
use super::entries::{CredentialView, EndpointStatus, ListenerView, StoreView};
use super::failure::FailureView;
use super::names::{names, shortened};
use super::problem::ProblemView;
use super::time::{clock, now};
use super::traces::TracesView;
use crate::canary::CanaryFailure;
use crate::credential::{CredentialId, CredentialState};
use crate::route::RouteSettings;
use crate::runbook::{Condition, Section};

/// The verdict.
#[derive(Clone, Debug, Default, Serialize)]
pub struct VerdictView {
    /// `healthy`, `starting`, `attention` (calls succeed, and something needs an operator), `broken` (calls fail) or `stopping`.
    pub state: &'static str,
    /// At most three lines: what is wrong, what it means for calls, what to do.
    pub lines: Vec<String>,
    /// More about the first problem.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<ProblemView>,
}

/// What the verdict is made from.
#[derive(Debug, Default)]
pub(super) struct Situation<'a> {
    /// How many endpoints are in use, and how many credentials.
    pub(super) counts: (usize, usize),
    is_ready: bool,
    is_draining: bool,
    rejection: Option<&'a Rejection>,
    after_restart: &'a [&'static str],
    restart_since: Option<SystemTime>,
    config: Option<&'a Path>,
    /// The names of broken endpoints, and the first one whose own token is not the cause.
    broken_endpoints: Vec<&'a str>,
    first_endpoint: Option<EndpointStatus>,
    /// What calls get that only a broken endpoint could take.
    answers: Broken<'a>,
    /// How many endpoints are broken for a cause other than their credential.
    own_faults: usize,
    earliest: Option<u64>,
    unavailable: Vec<&'a CredentialId>,
    first_unavailable: Option<CredentialView>,
    stale: Vec<&'a CredentialId>,
    first_stale: Option<CredentialView>,
    /// The names of endpoints whose canary fails, and why the first one does.
    failing_canaries: Vec<&'a str>,
    first_canary: Option<CanaryFailure>,
    /// What else needs an operator.
    others: Vec<Concern>,
}

impl<'a> Situation<'a> {
    /// Adds an endpoint that is broken since then. `entry` makes its entry, which one alone needs.
    pub(super) fn add_broken_endpoint(
        &mut self,
        name: &'a str,
        state: &str,
        since: u64,
        answer: Answer,
        entry: impl FnOnce() -> EndpointStatus,
    ) {
        self.broken_endpoints.push(name);
        self.answers.insert(name, answer);
        self.earliest = Some(self.earliest.map_or(since, |earliest| earliest.min(since)));
        if state != "no_token" {
            self.own_faults += 1;
            self.first_endpoint.get_or_insert_with(entry);
        }
    }

    /// Adds an endpoint whose canary fails.
    pub(super) fn add_failing_canary(&mut self, name: &'a str, failure: CanaryFailure) {
        self.failing_canaries.push(name);
        self.first_canary.get_or_insert(failure);
    }

    /// Adds a credential.
    pub(super) fn add_credential(
        &mut self,
        state: CredentialState,
        id: &'a CredentialId,
        entry: impl FnOnce() -> CredentialView,
    ) {
        match state {
            CredentialState::Unavailable => {
                self.unavailable.push(id);
                self.first_unavailable.get_or_insert_with(entry);
            }
            CredentialState::Stale => {
                self.stale.push(id);
                self.first_stale.get_or_insert_with(entry);
            }
            CredentialState::Unused | CredentialState::Starting | CredentialState::Ready => {}
        }
    }

    /// Sets what concerns this process and its configuration.
    pub(super) fn process(
        &mut self,
        (is_ready, is_draining): (bool, bool),
        rejection: Option<&'a Rejection>,
        (after_restart, restart_since): (&'a [&'static str], Option<SystemTime>),
        config: Option<&'a Path>,
    ) {
        self.is_ready = is_ready;
        self.is_draining = is_draining;
        self.rejection = rejection;
        self.after_restart = after_restart;
        self.restart_since = restart_since;
        self.config = config;
    }

    /// Adds what the listeners, the CA files, the idempotency store, the log and the export of traces need.
    pub(super) fn others(
        &mut self,
        (listeners, connections): (&[ListenerView], ConnectionLimit),
        ca_files: &[String],
        store: Option<&StoreView>,
        traces: Option<&TracesView>,
    ) {
        self.others.extend(Concern::of_ca_files(ca_files));
        self.others.extend(Concern::of_store(store));
        self.others.extend(listeners.iter().filter_map(Concern::of_listener));
        self.others.extend(Concern::of_connections(connections));
        self.others.extend(Concern::of_lost_lines());
        self.others.extend(Concern::of_traces(traces));
    }

    /// Returns the verdict. `routes` tell what broken endpoints mean for calls.
    pub(super) fn verdict(self, routes: &[Arc<RouteSettings>]) -> VerdictView {
        let (endpoints, credentials) = self.counts;
        if self.is_draining {
            let line = "the gateway is stopping: calls in flight end, new ones are refused".to_owned();
            return VerdictView { state: "stopping", lines: vec![line], problem: None };
        }
        if !self.unavailable.is_empty() || !self.broken_endpoints.is_empty() {
            return self.broken(endpoints, credentials, routes);
        }
        let mut concerns: Vec<Concern> = self.of_stale(credentials).into_iter().collect();
        concerns.extend(self.of_canaries());
        concerns.extend(self.rejection.map(|rejection| Concern::of_rejection(rejection, self.config)));
        concerns.extend(self.others);
        if !self.after_restart.is_empty() {
            concerns.push(Concern::of_restart(self.after_restart, self.restart_since));
        }
        if !concerns.is_empty() {
            let problem = concerns.first().map(|first| first.problem.clone());
            return VerdictView { state: "attention", lines: Concern::lines(concerns), problem };
        }
        if !self.is_ready {
            let line = "the first tokens have not been obtained yet".to_owned();
            return VerdictView { state: "starting", lines: vec![line], problem: None };
        }
        let all = |count: usize, word: &str| match count {
            1 => format!("the {word}"),
            2 => format!("both {word}s"),
            _ => format!("all {count} {word}s"),
        };
        let accept = if endpoints == 1 { "accepts" } else { "accept" };
        let work = if credentials == 1 { "works" } else { "work" };
        let line = format!("{} {accept} calls, {} {work}", all(endpoints, "endpoint"), all(credentials, "credential"));
        VerdictView { state: "healthy", lines: vec![line], problem: None }
    }

    /// Returns the concern about credentials whose token is valid and cannot be renewed.
    fn of_stale(&self, credentials: usize) -> Option<Concern> {
        let stale = self.first_stale.as_ref()?;
        let count = of(self.stale.len(), credentials, "credential");
        let fact = stale.last_failure.as_ref().map(|failure| failure.fact.as_str());
        let fact = fact.or(stale.last_error.as_deref()).map(|fact| format!(" ({})", shortened(fact)));
        let names = names(self.stale.iter().map(ToString::to_string), self.stale.len());
        let since = stale.failing_since.map(|since| format!(" since {}", clock(since, now()))).unwrap_or_default();
        Some(Concern {
            fact: format!("{count} cannot be renewed{since}: {names}{}", fact.unwrap_or_default()),
            effect: stale
                .expires
                .map(|expires| format!("calls succeed until {}, when the token expires", clock(expires, now()))),
            action: first_action(stale.last_failure.as_ref()),
            problem: ProblemView {
                callers_get: Some("the normal answers, until the token expires".to_owned()),
                ..ProblemView::of_credential(stale)
            },
        })
    }

    /// Returns the concern about canaries that fail.
    fn of_canaries(&self) -> Option<Concern> {
        let CanaryFailure { problem, remedy, .. } = self.first_canary.as_ref()?;
        let count = self.failing_canaries.len();
        let names = names(self.failing_canaries.iter().map(|name| (*name).to_owned()), count);
        let s = if count == 1 { "" } else { "s" };
        Some(Concern {
            fact: format!("canary messages of endpoint{s} {names} do not arrive ({})", shortened(problem)),
            effect: Some("messages of calls may not arrive either, though calls succeed".to_owned()),
            action: Some((*remedy).to_owned()),
            problem: ProblemView {
                callers_get: Some(NORMAL.to_owned()),
                once_repaired: Some("the next canary message shows it: no reload or restart is needed".to_owned()),
                entry: self.failing_canaries.first().map(|name| ("endpoint", (*name).to_owned())),
                runbook: Some(Section::Condition(Condition::CanaryFailed).to_string()),
                ..ProblemView::default()
            },
        })
    }

    /// Returns the lines and the first problem of a gateway with broken endpoints or credentials.
    fn broken(&self, endpoints: usize, credentials: usize, routes: &[Arc<RouteSettings>]) -> VerdictView {
        let (mut facts, mut action, mut problem) = (Vec::new(), None, None);
        if let Some(first) = &self.first_unavailable {
            let count = of(self.unavailable.len(), credentials, "credential");
            let names = names(self.unavailable.iter().map(ToString::to_string), self.unavailable.len());
            let fact = first.last_failure.as_ref().map(|failure| failure.fact.as_str());
            let fact = fact.or(first.last_error.as_deref()).map(|fact| format!(" ({})", shortened(fact)));
            let is = if self.unavailable.len() == 1 { "is" } else { "are" };
            facts.push(format!("{count} {is} broken: {names}{}{}", fact.unwrap_or_default(), former_token(first)));
            action = first_action(first.last_failure.as_ref());
            problem = Some(ProblemView::of_credential(first));
        }
        if let Some(first) = &self.first_endpoint {
            let fact = first.last_failure.as_ref().map(|failure| format!(" ({})", shortened(&failure.fact)));
            let what = match first.state {
                "unauthorized" => "refuses the gateway's token",
                _ => "fails calls",
            };
            let at = &first.address;
            let count = match self.own_faults {
                1 => of(1, endpoints, "endpoint") + &format!(": {} at {at} {what}", first.name),
                _ => format!("{} at {at} and other endpoints fail calls", first.name),
            };
            facts.push(format!("{count}{}", fact.unwrap_or_default()));
            action = action.or_else(|| first_action(first.last_failure.as_ref()));
            problem = problem.or_else(|| Some(ProblemView::of_endpoint(first)));
        }
        let mut lines = vec![facts.join("; ")];
        let effects: Vec<(&RouteSettings, RouteEffect)> =
            routes.iter().map(|route| (&**route, RouteEffect::of(route, &self.answers))).collect();
        lines.extend(self.effect(&effects));
        lines.extend(action.map(|action| format!("do this: {action}")));
        let callers_get = callers_get(&effects, &self.answers);
        VerdictView { state: "broken", lines, problem: problem.map(|problem| ProblemView { callers_get, ..problem }) }
    }

    /// Returns what broken endpoints mean for calls.
    fn effect(&self, effects: &[(&RouteSettings, RouteEffect)]) -> Option<String> {
        let since = clock(self.earliest?, now());
        let of = |is: fn(RouteEffect) -> bool| -> Vec<&str> {
            effects.iter().filter(|(_, effect)| is(*effect)).map(|(route, _)| route.name.as_str()).collect()
        };
        let failing = of(|effect| matches!(effect, RouteEffect::Fails(_)));
        let some = of(|effect| matches!(effect, RouteEffect::SomeFail(_)));
        let partial = of(|effect| matches!(effect, RouteEffect::Partial { .. }));
        let refused = of(|effect| matches!(effect, RouteEffect::Partial { is_refused: true }));
        let routes_of = |names: &[&str]| {
            let s = if names.len() == 1 { "" } else { "s" };
            format!("route{s} {}", self::names(names.iter().map(|name| (*name).to_owned()), names.len()))
        };
        let names = names(self.broken_endpoints.iter().map(|name| (*name).to_owned()), self.broken_endpoints.len());
        let mut parts = Vec::new();
        if failing.len() == effects.len() && !effects.is_empty() {
            parts.push("so all calls fail".to_owned());
        } else if !failing.is_empty() {
            parts.push(format!("so calls of {} fail", routes_of(&failing)));
        } else if !some.is_empty() {
            parts.push(format!("so calls of {} that go there fail", routes_of(&some)));
        }
        if !partial.is_empty() {
            // With another policy, the answer depends on how many endpoints accept a call.
            let answer = if refused.len() == partial.len() { ", and are answered 502" } else { "" };
            let so = if parts.is_empty() { "so" } else { "and" };
            parts.push(format!("{so} calls of {} reach the other endpoints only{answer}", routes_of(&partial)));
        }
        let has_endpoints = effects.iter().any(|(route, _)| !route.endpoints.is_empty());
        let rest = match parts.is_empty() {
            true if has_endpoints => "; routes with another endpoint use that".to_owned(),
            true => String::new(),
            false => format!(", {}", parts.join(", ")),
        };
        Some(format!("calls to {names} fail since {since}{rest}"))
    }
}

/// Returns `1 of 2 credentials`.
fn of(count: usize, total: usize, word: &str) -> String {
    let plural = if total == 1 { "" } else { "s" };
    format!("{count} of {total} {word}{plural}")
}

/// Returns until when the last token of a credential was in use, and since when its renewal fails. A token is not used until it
/// expires: a call with it must reach the endpoint first.
fn former_token(credential: &CredentialView) -> String {
    let Some(until) = credential.expired.and(credential.since) else { return String::new() };
    let until = format!("; the last token was in use until {}", clock(until, now()));
    match credential.failing_since {
        Some(failing) => format!("{until}, renewals fail since {}", clock(failing, now())),
        None => until,
    }
}

/// Returns what to do first. Its command is among those of the problem.
fn first_action(failure: Option<&FailureView>) -> Option<String> {
    failure?.remediation.iter().find(|action| !action.note.is_empty()).map(|action| action.note.clone())
}

//! The verdict of `/status`: what is wrong, what it means for calls, and what to do, in at most three lines.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::SystemTime;

use serde::Serialize;

use super::concerns::{Concern, ConnectionLimit, Rejection, shortened};
use super::entries::{CredentialView, EndpointStatus, ListenerView, StoreView};
use super::failure::{DetailView, FailureView, RemediationView};
use super::time::{clock, now};
use super::traces::TracesView;
use crate::canary::CanaryFailure;
use crate::credential::{CredentialId, CredentialState};
use crate::route::RouteSettings;

/// The most names in a line.
const MAX_NAMES: usize = 3;
/// The longest command in a line, in characters.
const MAX_COMMAND: usize = 100;

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

/// What an operator needs to repair a problem without looking elsewhere.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ProblemView {
    /// What is known: where, with which identity, and what the other side said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub details: Vec<DetailView>,
    /// The commands that show or repair the cause, with the known ids filled in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<RemediationView>,
    /// What callers get meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub callers_get: Option<String>,
    /// What happens once the cause is repaired: whether the gateway notices by itself, or needs a reload or a restart.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub once_repaired: Option<String>,
    /// `endpoint` or `credential` and its name, if the problem has an entry of its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub entry: Option<(&'static str, String)>,
    /// The section of the runbook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runbook: Option<String>,
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
    /// The names of broken endpoints, and the first one whose own token is not the cause.
    broken_endpoints: Vec<&'a str>,
    first_endpoint: Option<EndpointStatus>,
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
        entry: impl FnOnce() -> EndpointStatus,
    ) {
        self.broken_endpoints.push(name);
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
    ) {
        self.is_ready = is_ready;
        self.is_draining = is_draining;
        self.rejection = rejection;
        self.after_restart = after_restart;
        self.restart_since = restart_since;
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
            return VerdictView { state: "broken", lines: self.broken(endpoints, credentials, routes), problem: None };
        }
        let mut concerns: Vec<Concern> = self.of_stale(credentials).into_iter().collect();
        concerns.extend(self.of_canaries());
        concerns.extend(self.rejection.map(Concern::of_rejection));
        concerns.extend(self.others);
        if !self.after_restart.is_empty() {
            concerns.push(Concern::of_restart(self.after_restart, self.restart_since));
        }
        if !concerns.is_empty() {
            return VerdictView { state: "attention", lines: Concern::lines(concerns), problem: None };
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
            action: first_action(&names, stale.last_failure.as_ref()),
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
        })
    }

    fn broken(&self, endpoints: usize, credentials: usize, routes: &[Arc<RouteSettings>]) -> Vec<String> {
        let (mut facts, mut action) = (Vec::new(), None);
        if let Some(first) = &self.first_unavailable {
            let count = of(self.unavailable.len(), credentials, "credential");
            let names = names(self.unavailable.iter().map(ToString::to_string), self.unavailable.len());
            let fact = first.last_failure.as_ref().map(|failure| failure.fact.as_str());
            let fact = fact.or(first.last_error.as_deref()).map(|fact| format!(" ({})", shortened(fact)));
            let is = if self.unavailable.len() == 1 { "is" } else { "are" };
            facts.push(format!("{count} {is} broken: {names}{}", fact.unwrap_or_default()));
            action = first_action(&names, first.last_failure.as_ref());
        }
        if let Some(first) = &self.first_endpoint {
            let fact = first.last_failure.as_ref().map(|failure| format!(" ({})", shortened(&failure.fact)));
            let what = match first.state {
                "unauthorized" => "refuses the gateway's token",
                _ => "fails calls",
            };
            let count = match self.own_faults {
                1 => of(1, endpoints, "endpoint") + &format!(": {} {what}", first.name),
                _ => format!("{} and other endpoints fail calls", first.name),
            };
            facts.push(format!("{count}{}", fact.unwrap_or_default()));
            action = action.or_else(|| first_action(&first.name, first.last_failure.as_ref()));
        }
        let mut lines = vec![facts.join("; ")];
        lines.extend(self.effect(routes));
        lines.extend(action.map(|action| format!("do this: {action}")));
        lines
    }

    /// Returns what broken endpoints mean for calls.
    fn effect(&self, routes: &[Arc<RouteSettings>]) -> Option<String> {
        let broken: HashSet<&str> = self.broken_endpoints.iter().copied().collect();
        let since = clock(self.earliest?, now());
        let has_broken = |route: &RouteSettings, all: bool| {
            let mut endpoints = route.endpoints.iter().map(|named| broken.contains(named.endpoint.as_str()));
            !route.endpoints.is_empty()
                && if all { endpoints.all(|broken| broken) } else { endpoints.any(|broken| broken) }
        };
        let is_broken = |route: &RouteSettings| has_broken(route, true);
        let is_partial = |route: &RouteSettings| route.pick.as_str() == "all" && has_broken(route, false);
        let partial: Vec<&Arc<RouteSettings>> = routes.iter().filter(|route| is_partial(route)).collect();
        let failing: Vec<&str> =
            routes.iter().filter(|route| is_broken(route)).map(|route| route.name.as_str()).collect();
        let endpoints = names(self.broken_endpoints.iter().map(|name| (*name).to_owned()), broken.len());
        let rest = match failing.len() {
            0 if !partial.is_empty() => {
                let s = if partial.len() == 1 { "" } else { "s" };
                let names = names(partial.iter().map(|route| route.name.to_string()), partial.len());
                // With another policy, the answer depends on how many endpoints accept a call.
                let is_refused = partial.iter().all(|route| route.pick.needs_all());
                let answer = if is_refused { ", and are answered 502" } else { "" };
                format!(", so calls of route{s} {names} reach the other endpoints only{answer}")
            }
            0 if routes.iter().any(|route| !route.endpoints.is_empty()) => {
                "; routes with another endpoint use that".to_owned()
            }
            0 => String::new(),
            count if count == routes.len() => ", so all calls fail".to_owned(),
            1 => format!(", so calls of route {} fail", failing.join("")),
            count => {
                format!(", so calls of routes {} fail", names(failing.iter().map(|name| (*name).to_owned()), count))
            }
        };
        Some(format!("calls to {endpoints} fail since {since}{rest}"))
    }
}

/// Returns `1 of 2 credentials`.
fn of(count: usize, total: usize, word: &str) -> String {
    let plural = if total == 1 { "" } else { "s" };
    format!("{count} of {total} {word}{plural}")
}

/// Returns the first names, and how many more there are.
fn names(names: impl Iterator<Item = String>, count: usize) -> String {
    let first: Vec<String> = names.take(MAX_NAMES).collect();
    match count.saturating_sub(first.len()) {
        0 => first.join(", "),
        more => format!("{} and {more} more", first.join(", ")),
    }
}

/// Returns what to do first. A command that is too long for a line is at the entry of the endpoint or credential.
fn first_action(at: &str, failure: Option<&FailureView>) -> Option<String> {
    let action = failure?.remediation.iter().find(|action| !action.note.is_empty())?;
    Some(match &action.command {
        None => action.note.clone(),
        Some(command) if command.len() <= MAX_COMMAND => format!("{}: `{command}`", action.note),
        Some(_) => format!("{} (the command is at {at})", action.note),
    })
}

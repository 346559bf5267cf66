//! What needs an operator while calls succeed: what is wrong, what it means, and what to do.

use std::path::Path;
use std::time::SystemTime;

use super::entries::{ListenerView, StoreView};
use super::failure::{DetailView, RemediationView};
use super::names::shortened;
use super::problem::ProblemView;
use super::repair;
use super::time::{clock, now, seconds};
use super::traces::TracesView;
use crate::diagnosis::commands;
use crate::metrics::{LostLine, RecentLoss};
use crate::runbook::{Condition, Section, lost_lines_remedy};

/// Something that needs an operator while calls succeed.
#[derive(Debug, Default)]
pub(super) struct Concern {
    /// What is wrong.
    pub(super) fact: String,
    /// What it means for calls.
    pub(super) effect: Option<String>,
    /// What to do.
    pub(super) action: Option<String>,
    /// More about it.
    pub(super) problem: ProblemView,
}

/// What callers get while calls succeed.
pub(super) const NORMAL: &str = "the normal answers";
/// What happens once a file that the gateway follows is repaired.
const FOLLOWED: &str = "the gateway reads the files again within 2 s of a change: no reload or restart is needed";

/// A configuration that was rejected.
#[derive(Clone, Debug)]
pub(super) struct Rejection {
    /// When.
    pub(super) at: SystemTime,
    /// Why.
    pub(super) problem: String,
}

/// How many connections of callers may be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// `limits.max_connections`.
    pub configured: usize,
    /// What the limit of open files allows of it.
    pub in_force: usize,
}

impl ConnectionLimit {
    /// Whether it is a tenth or more below what is configured.
    fn is_low(self) -> bool {
        self.in_force < self.configured / 10 * 9
    }
}

impl Concern {
    /// Returns the lines of the verdict, at most three: of one concern all of it, of several what is wrong and what to do first.
    pub(super) fn lines(concerns: Vec<Self>) -> Vec<String> {
        let count = concerns.len();
        let mut concerns = concerns.into_iter();
        let Some(first) = concerns.next() else { return Vec::new() };
        let second = concerns.next().map(|second| match count {
            2 => second.fact,
            _ => format!("{}; and {} more", second.fact, count - 2),
        });
        let lines =
            [Some(first.fact), second.or(first.effect), first.action.map(|action| format!("do this: {action}"))];
        lines.into_iter().flatten().collect()
    }

    /// Makes a concern that has a section in the runbook. Callers get the normal answers.
    fn of(fact: String, effect: &str, condition: Condition, once_repaired: String) -> Self {
        let section = Section::Condition(condition);
        let problem = ProblemView {
            callers_get: Some(NORMAL.to_owned()),
            once_repaired: Some(once_repaired),
            runbook: Some(section.to_string()),
            ..ProblemView::default()
        };
        Self { fact, effect: Some(effect.to_owned()), action: section.remedy().map(str::to_owned), problem }
    }

    fn detail(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.problem.details.push(DetailView { name, value: value.into() });
        self
    }

    fn command(mut self, note: &str, command: String) -> Self {
        self.problem.commands.push(RemediationView { note: note.to_owned(), command: Some(command) });
        self
    }

    pub(super) fn of_rejection(rejection: &Rejection, config: Option<&Path>) -> Self {
        let at = clock(seconds(rejection.at), now());
        let fact = format!("the last configuration was rejected at {at}: {}", shortened(&rejection.problem));
        let effect = "calls are served with the previous configuration";
        let condition = Condition::ConfigurationRejected;
        let mut concern = Self::of(fact, effect, condition, repair::reload(config));
        let Some(config) = config else { return concern };
        concern.action = Some(format!("correct {}: a restart would fail until then", config.display()));
        concern.detail("file", config.display().to_string()).command("test it", commands::check(config))
    }

    pub(super) fn of_restart(keys: &[&str], since: Option<SystemTime>) -> Self {
        let since = since.map(|since| format!(" since {}", clock(seconds(since), now()))).unwrap_or_default();
        let fact = format!("settings wait for a restart{since}: {}", keys.join(", "));
        let effect = "calls are served as before; all other settings of the new configuration are in force";
        let then = "calls in flight end before a restarted gateway stops; a reload is not enough".to_owned();
        let concern = Self::of(fact, effect, Condition::RestartNeeded, then);
        concern.command("with systemd", "systemctl restart signalr-gateway".to_owned())
    }

    pub(super) fn of_ca_files(problems: &[String]) -> Option<Self> {
        let fact = format!("a CA file cannot be used: {}", shortened(problems.first()?));
        let effect = "calls are served as before, with the CAs that were read before";
        Some(Self::of(fact, effect, Condition::CaFile, FOLLOWED.to_owned()))
    }

    pub(super) fn of_store(store: Option<&StoreView>) -> Option<Self> {
        let store = store.filter(|store| store.state == "out")?;
        let problem = store.problem.as_deref().map(|problem| format!(": {}", shortened(problem)));
        let since = store.since.map(|since| format!(" since {}", clock(since, now()))).unwrap_or_default();
        let fact = format!("the idempotency store at {} is out{since}{}", store.address, problem.unwrap_or_default());
        let (effect, callers_get) = if store.is_required {
            let answer = "503 `store_unavailable`, nothing is delivered; without the header, the normal answers";
            ("calls with an Idempotency-Key fail", format!("with an Idempotency-Key: {answer}"))
        } else {
            ("a call that is repeated at another replica may be delivered twice", NORMAL.to_owned())
        };
        let then = "the gateway connects again by itself: no reload or restart is needed".to_owned();
        let concern = Self::of(fact, effect, Condition::StoreOut, then);
        let problem = ProblemView { callers_get: Some(callers_get), ..concern.problem };
        Some(Self { action: store.fix.map(str::to_owned), problem, ..concern })
    }

    pub(super) fn of_listener(listener: &ListenerView) -> Option<Self> {
        let problem = shortened(listener.refused_files.as_deref()?);
        let fact = format!("the TLS files of listener {} cannot be used: {problem}", listener.name);
        let effect = "calls are served as before, with the files that were read before";
        let concern = Self::of(fact, effect, Condition::TlsFiles, FOLLOWED.to_owned());
        let ends = listener.not_after.map(|ends| clock(ends, now()));
        Some(match ends {
            Some(ends) => concern.detail("certificate in use", format!("expires {ends}")),
            None => concern,
        })
    }

    pub(super) fn of_connections(limit: ConnectionLimit) -> Option<Self> {
        let ConnectionLimit { configured, in_force } = limit;
        let fact = format!(
            "the limit of open files allows {in_force} connections of callers instead of {configured} (`limits.max_connections`)"
        );
        let effect = "callers beyond that wait to be accepted";
        let then = "the limit is read at the start: it needs a restart".to_owned();
        let concern = limit.is_low().then(|| Self::of(fact, effect, Condition::OpenFiles, then))?;
        let answers = format!("the normal answers, over {in_force} connections; others wait to be accepted");
        let problem = ProblemView { callers_get: Some(answers), ..concern.problem };
        let raise = "mkdir -p /etc/systemd/system/signalr-gateway.service.d && printf '[Service]\\nLimitNOFILE=65536\\n' \
                     >/etc/systemd/system/signalr-gateway.service.d/open-files.conf && systemctl daemon-reload && systemctl restart \
                     signalr-gateway";
        let show = format!("grep 'open files' /proc/{}/limits", std::process::id());
        let concern =
            Self { problem, ..concern }.command("with systemd, as root: raise it and restart", raise.to_owned());
        Some(concern.command("show the limits of this process", show))
    }

    pub(super) fn of_traces(traces: Option<&TracesView>) -> Option<Self> {
        let traces = traces.filter(|traces| traces.state == "failing")?;
        let since = traces.since.map(|since| format!(" since {}", clock(since, now()))).unwrap_or_default();
        let problem = traces.problem.as_deref().map(|problem| format!(": {}", shortened(problem)));
        let fact = format!("traces cannot be exported{since}{}", problem.unwrap_or_default());
        let effect = match traces.dropped {
            0 => "calls are served as before, and spans wait".to_owned(),
            lost => format!("calls are served as before; spans lost so far: {lost}"),
        };
        let then = "the next export succeeds: no reload or restart is needed".to_owned();
        let concern = Self::of(fact, &effect, Condition::TraceCollector, then);
        Some(Self { action: traces.fix.map(str::to_owned), ..concern.detail("collector", &*traces.collector) })
    }

    /// Returns the concern about lines that the log has lost in the last minutes.
    pub(super) fn of_lost_lines() -> Option<Self> {
        let recent = |reason: LostLine| Some((reason, reason.recent_loss()?));
        let (reason, RecentLoss { since, lines }) =
            recent(LostLine::WriteError).or_else(|| recent(LostLine::SlowReader))?;
        let process = std::process::id();
        let (what, show, command) = if reason == LostLine::WriteError {
            let error = reason.os_error().map(|error| format!(": {error}"));
            let command = format!("ls -l /proc/{process}/fd/2; df -h /proc/{process}/fd/2");
            (
                format!("cannot be written{}", error.unwrap_or_default()),
                "as root: show where it goes, and how full that is",
                command,
            )
        } else {
            let command = format!("lsof -nP +E -a -p {process} -d 2");
            (
                "is not read, or not fast enough".to_owned(),
                "as root: show what it is, and which process reads it",
                command,
            )
        };
        let since = clock(seconds(since), now());
        let fact = format!("log lines are lost since {since} ({lines} so far): stderr {what}");
        let effect = "calls are served as before, and the log does not show them";
        let then = "lines are written again by themselves, and one says how many were lost; this page forgets it after some minutes";
        let concern = Self::of(fact, effect, Condition::LostLines, then.to_owned());
        let action = Some(lost_lines_remedy(reason).to_owned());
        Some(Self { action, ..concern.command(show, command) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concern(fact: &str) -> Concern {
        Concern {
            fact: fact.to_owned(),
            effect: Some("effect".to_owned()),
            action: Some(format!("repair {fact}")),
            ..Concern::default()
        }
    }

    #[test]
    fn verdict_has_at_most_three_lines_and_says_what_to_do_first() {
        assert_eq!(Concern::lines(vec![concern("a")]), ["a", "effect", "do this: repair a"]);
        assert_eq!(Concern::lines(vec![concern("a"), concern("b")]), ["a", "b", "do this: repair a"]);
        let four = ["a", "b", "c", "d"].map(concern).into();
        assert_eq!(Concern::lines(four), ["a", "b; and 2 more", "do this: repair a"]);
    }

    #[test]
    fn limit_of_open_files_is_a_concern_if_it_takes_a_tenth_of_the_connections() {
        let limit = |in_force| Concern::of_connections(ConnectionLimit { configured: 10_000, in_force });
        assert!(limit(10_000).is_none() && limit(9_000).is_none());
        let lines = Concern::lines(vec![limit(58).unwrap()]);
        assert!(lines[0].contains("58 connections of callers instead of 10000"), "{lines:?}");
        assert!(lines[2].contains("LimitNOFILE"), "{lines:?}");
    }

    #[test]
    fn rejected_configuration_has_its_time_and_the_command_that_tests_it() {
        let at = SystemTime::now();
        let rejection = Rejection { at, problem: "limits.max_bodyy: unknown key\n  hint: did you mean …".to_owned() };
        let lines = Concern::lines(vec![Concern::of_rejection(&rejection, Some("/etc/gateway.toml".as_ref()))]);
        let time = clock(seconds(at), seconds(at));
        assert_eq!(
            lines[0],
            format!(
                "the last configuration was rejected at {time}: limits.max_bodyy: unknown key hint: did you mean …"
            )
        );
        assert_eq!(lines[2], "do this: correct /etc/gateway.toml: a restart would fail until then");
    }
}

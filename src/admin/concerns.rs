//! What needs an operator while calls succeed: what is wrong, what it means, and what to do.

use std::time::SystemTime;

use super::entries::{ListenerView, StoreView};
use super::time::{clock, now, seconds};
use super::traces::TracesView;
use crate::metrics::{LostLine, RecentLoss};
use crate::runbook::{Condition, Section};

/// The longest error in a line, in characters.
const MAX_ERROR: usize = 160;

/// Something that needs an operator while calls succeed.
#[derive(Debug, Default)]
pub(super) struct Concern {
    /// What is wrong.
    pub(super) fact: String,
    /// What it means for calls.
    pub(super) effect: Option<String>,
    /// What to do.
    pub(super) action: Option<String>,
}

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

    fn of(fact: String, effect: &str, condition: Condition) -> Self {
        let action = Section::Condition(condition).remedy().map(str::to_owned);
        Self { fact, effect: Some(effect.to_owned()), action }
    }

    pub(super) fn of_rejection(rejection: &Rejection) -> Self {
        let at = clock(seconds(rejection.at), now());
        let fact = format!("the last configuration was rejected at {at}: {}", shortened(&rejection.problem));
        Self::of(fact, "calls are served with the previous configuration", Condition::ConfigurationRejected)
    }

    pub(super) fn of_restart(keys: &[&str], since: Option<SystemTime>) -> Self {
        let since = since.map(|since| format!(" since {}", clock(seconds(since), now()))).unwrap_or_default();
        let fact = format!("settings wait for a restart{since}: {}", keys.join(", "));
        Self::of(fact, "all other settings of the new configuration are in force", Condition::RestartNeeded)
    }

    pub(super) fn of_ca_files(problems: &[String]) -> Option<Self> {
        let fact = format!("a CA file cannot be used: {}", shortened(problems.first()?));
        Some(Self::of(fact, "the CAs that were read before are in force", Condition::CaFile))
    }

    pub(super) fn of_store(store: Option<&StoreView>) -> Option<Self> {
        let store = store.filter(|store| store.state == "out")?;
        let problem = store.problem.as_deref().map(|problem| format!(": {}", shortened(problem)));
        let fact = format!("the idempotency store is out{}", problem.unwrap_or_default());
        Some(Self { fact, effect: None, action: store.fix.map(str::to_owned) })
    }

    pub(super) fn of_listener(listener: &ListenerView) -> Option<Self> {
        let problem = shortened(listener.refused_files.as_deref()?);
        let fact = format!("the TLS files of listener {} cannot be used: {problem}", listener.name);
        Some(Self::of(fact, "those that were read before are in force", Condition::TlsFiles))
    }

    pub(super) fn of_connections(limit: ConnectionLimit) -> Option<Self> {
        let ConnectionLimit { configured, in_force } = limit;
        let fact = format!(
            "the limit of open files allows {in_force} connections of callers instead of {configured} (`limits.max_connections`)"
        );
        let effect = "callers beyond that wait to be accepted";
        limit.is_low().then(|| Self::of(fact, effect, Condition::OpenFiles))
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
        Some(Self { fact, effect: Some(effect), action: traces.fix.map(str::to_owned) })
    }

    /// Returns the concern about lines that the log has lost in the last minutes.
    pub(super) fn of_lost_lines() -> Option<Self> {
        let (loss, what, action) = [
            (
                LostLine::WriteError,
                "cannot be written, such as on a full disk",
                "free the disk that the log is written to",
            ),
            (LostLine::SlowReader, "is not read", "restart what reads the gateway's stderr, such as the log collector"),
        ]
        .into_iter()
        .find_map(|(reason, what, action)| Some((reason.recent_loss()?, what, action)))?;
        let RecentLoss { since, lines } = loss;
        let since = clock(seconds(since), now());
        let fact = format!("log lines are lost since {since} ({lines} so far): stderr {what}");
        let effect = "calls are served as before, and the log does not show them";
        Some(Self { fact, effect: Some(effect.to_owned()), action: Some(action.to_owned()) })
    }
}

/// Returns a text in one line, and at most [`MAX_ERROR`] characters of it.
pub(super) fn shortened(text: &str) -> String {
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    match text.char_indices().nth(MAX_ERROR) {
        None => text,
        Some((end, _)) => text.get(..end).unwrap_or(&text).to_owned() + "…",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn concern(fact: &str) -> Concern {
        Concern { fact: fact.to_owned(), effect: Some("effect".to_owned()), action: Some(format!("repair {fact}")) }
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
        let lines = Concern::lines(vec![Concern::of_rejection(&rejection)]);
        let time = clock(seconds(at), seconds(at));
        assert_eq!(
            lines[0],
            format!(
                "the last configuration was rejected at {time}: limits.max_bodyy: unknown key hint: did you mean …"
            )
        );
        assert!(lines[2].starts_with("do this: ") && lines[2].contains("signalr-gateway check"), "{lines:?}");
    }
}

//! The status of a canary, for the admin page and the metrics.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::error::DeliveryError;
use crate::endpoint::CanarySettings;
use crate::redact::in_one_line;

/// The status of a canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryStatus {
    /// The hub of its client.
    pub hub: Arc<str>,
    /// The interval of its messages.
    pub interval: Duration,
    /// Its last round; `None` before the first one has ended.
    pub last: Option<Round>,
}

/// The last round of a canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Round {
    /// When it ended.
    pub at: SystemTime,
    /// Since when rounds have had this outcome, success or failure.
    pub since: SystemTime,
    /// The time from sending to arrival, or why the message did not arrive.
    pub outcome: Result<Duration, CanaryFailure>,
}

/// Why the message of a canary did not arrive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CanaryFailure {
    /// The stage that failed, such as `websocket`.
    pub stage: &'static str,
    /// What happened, in one line.
    pub problem: String,
    /// What to do.
    pub remedy: &'static str,
}

impl From<&DeliveryError> for CanaryFailure {
    fn from(err: &DeliveryError) -> Self {
        Self { stage: err.stage().name(), problem: in_one_line(err), remedy: err.remedy() }
    }
}

/// What a round changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// Nothing: it has the outcome of the round before, or is the first and succeeded.
    None,
    /// It failed, and the round before did not.
    Failed,
    /// It succeeded, after failures for this long.
    Recovered(Duration),
}

/// The shared status of a canary, which its task writes.
#[derive(Debug)]
pub struct SharedStatus(Mutex<CanaryStatus>);

impl SharedStatus {
    pub(super) fn new(settings: &CanarySettings) -> Arc<Self> {
        let CanarySettings { hub, interval } = settings;
        Arc::new(Self(Mutex::new(CanaryStatus { hub: Arc::clone(hub), interval: *interval, last: None })))
    }

    /// Returns the status.
    pub fn get(&self) -> CanaryStatus {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Records the outcome of a round.
    pub(super) fn record(&self, outcome: Result<Duration, CanaryFailure>, at: SystemTime) -> Change {
        let mut status = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = status.last.as_ref().map(|last| (last.outcome.is_ok(), last.since));
        let same = before.filter(|(was_ok, _)| *was_ok == outcome.is_ok());
        let change = match (before, outcome.is_ok()) {
            (Some((false, since)), true) => Change::Recovered(at.duration_since(since).unwrap_or_default()),
            (None | Some((true, _)), false) => Change::Failed,
            (Some((false, _)), false) | (None | Some((true, _)), true) => Change::None,
        };
        status.last = Some(Round { at, since: same.map_or(at, |(_, since)| since), outcome });
        change
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_since_when_rounds_fail_and_for_how_long_they_did() {
        let status = SharedStatus::new(&CanarySettings { hub: "h".into(), interval: Duration::from_secs(60) });
        assert_eq!(status.get().last, None);
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let failure = || CanaryFailure { stage: "send", problem: "p".to_owned(), remedy: "r" };
        let took = Ok(Duration::from_millis(3));
        assert_eq!(status.record(took.clone(), at(1)), Change::None);
        assert_eq!(status.record(Err(failure()), at(2)), Change::Failed);
        assert_eq!(status.record(Err(failure()), at(3)), Change::None);
        let last = status.get().last.unwrap();
        assert_eq!((last.at, last.since, last.outcome), (at(3), at(2), Err(failure())));
        assert_eq!(status.record(took.clone(), at(9)), Change::Recovered(Duration::from_secs(7)));
        assert_eq!(status.get().last.unwrap().since, at(9));
        let first = SharedStatus::new(&CanarySettings { hub: "h".into(), interval: Duration::from_secs(60) });
        assert_eq!(first.record(Err(failure()), at(2)), Change::Failed);
    }
}

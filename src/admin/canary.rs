//! The canary of an endpoint on `/status`.

use serde::Serialize;

use super::time::seconds;
use crate::canary::{CanaryFailure, CanaryStatus, Round};

/// The canary of an endpoint on `/status`. Times are in seconds since the Unix epoch.
#[derive(Debug, Serialize)]
pub struct CanaryView {
    /// The hub of its client.
    pub hub: String,
    /// The interval of its messages, in seconds.
    pub interval: u64,
    /// `ok`, `failing`, or `starting` before its first message.
    pub state: &'static str,
    /// Since when it has this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<u64>,
    /// When its last message arrived or failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// How long the last message took to arrive, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delivery_ms: Option<f64>,
    /// The stage at which the last message failed, such as `websocket`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<&'static str>,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<&'static str>,
}

impl From<CanaryStatus> for CanaryView {
    fn from(status: CanaryStatus) -> Self {
        let CanaryStatus { hub, interval, last } = status;
        let mut view = Self {
            hub: hub.to_string(),
            interval: interval.as_secs(),
            state: "starting",
            since: None,
            last: None,
            delivery_ms: None,
            stage: None,
            problem: None,
            fix: None,
        };
        if let Some(Round { at, since, outcome }) = last {
            (view.since, view.last) = (Some(seconds(since)), Some(seconds(at)));
            match outcome {
                Ok(took) => (view.state, view.delivery_ms) = ("ok", Some(took.as_secs_f64() * 1000.0)),
                Err(CanaryFailure { stage, problem, remedy }) => {
                    view.state = "failing";
                    (view.stage, view.problem, view.fix) = (Some(stage), Some(problem), Some(remedy));
                }
            }
        }
        view
    }
}

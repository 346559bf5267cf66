//! What happened to a call at its endpoints, for the log. Only failures and fan-outs leave a trail.

use std::error::Error;
use std::fmt;
use std::rc::Rc;

use http::StatusCode;

use super::outcome::AttemptOutcome;
use crate::metrics::FanOutOutcome;
use crate::redact::in_one_line;
use crate::signalr::LegOutcome;

/// The maximum number of legs that a log line lists. Chosen: more than anybody reads; a route may have thousands.
const MAX_LISTED: usize = 16;

/// What happened to a call at its endpoints.
#[derive(Debug, Default)]
pub struct Trail {
    /// The attempts that failed before the one whose outcome the caller got. Those of a fan-out belong to its legs.
    pub failed_attempts: Vec<Leg>,
    /// The legs of a fan-out, in the order of the route; empty for other calls.
    pub legs: Vec<Leg>,
}

/// How an attempt, or a leg of a fan-out, ended at one endpoint.
#[derive(Debug)]
pub struct Leg {
    endpoint: Rc<str>,
    outcome: FanOutOutcome,
    status: Option<u16>,
    /// Why there is no response.
    cause: Option<String>,
}

impl Leg {
    /// Returns the name of the endpoint.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Returns whether the endpoint accepted the call.
    pub fn is_accepted(&self) -> bool {
        self.outcome == FanOutOutcome::Accepted
    }

    /// Returns the endpoint's status, if it responded.
    pub fn status(&self) -> Option<u16> {
        self.status
    }

    /// Returns why the endpoint did not accept the call.
    pub fn problem(&self) -> String {
        let outcome = self.outcome.label();
        match (self.status.and_then(|status| StatusCode::from_u16(status).ok()), &self.cause) {
            (Some(status), None) => format!("{outcome}: the endpoint responded {status}"),
            (Some(status), Some(cause)) => format!("{outcome}: the endpoint responded {status}, {cause}"),
            (None, Some(cause)) => format!("{outcome}: {cause}"),
            (None, None) => outcome.to_owned(),
        }
    }

    /// Records how an attempt or a leg ended. A leg without an outcome was cancelled.
    pub(super) fn of(endpoint: &Rc<str>, outcome: Option<&AttemptOutcome>) -> Self {
        let leg = outcome.map_or(LegOutcome::NoResponse, AttemptOutcome::leg);
        let cause = match outcome.map(|outcome| &outcome.result) {
            Some(Ok(_)) => None,
            // The error's own text is for the caller; its source has the cause.
            Some(Err(err)) => Some(in_one_line(err.source().unwrap_or(err))),
            None => Some("cancelled: another endpoint responded".to_owned()),
        };
        let status = outcome.and_then(|outcome| outcome.ending.status).map(|status| status.as_u16());
        Self { endpoint: Rc::clone(endpoint), outcome: fan_out_outcome(leg), status, cause }
    }
}

/// Returns the outcome of a leg as responses, metrics and the log name it.
pub(super) const fn fan_out_outcome(leg: LegOutcome) -> FanOutOutcome {
    match leg {
        LegOutcome::Accepted => FanOutOutcome::Accepted,
        LegOutcome::NotFound => FanOutOutcome::NotFound,
        LegOutcome::Throttled => FanOutOutcome::Throttled,
        LegOutcome::Failed | LegOutcome::Denied => FanOutOutcome::Refused,
        LegOutcome::NoResponse => FanOutOutcome::NoResponse,
        LegOutcome::NotProcessed => FanOutOutcome::NotSent,
    }
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { endpoint, outcome, status, cause } = self;
        write!(f, "{endpoint}={}", outcome.label())?;
        match (status, cause) {
            (Some(status), None) => write!(f, "({status})"),
            (None, Some(cause)) => write!(f, "({cause})"),
            (Some(status), Some(cause)) => write!(f, "({status}: {cause})"),
            (None, None) => Ok(()),
        }
    }
}

/// Describes a call that not every endpoint accepted: which did not and why, and which have delivered it.
pub fn partly_delivered(legs: &[Leg]) -> String {
    let failed: Vec<String> = legs
        .iter()
        .filter(|leg| !leg.is_accepted())
        .take(MAX_LISTED)
        .map(|leg| format!("{} ({})", leg.endpoint, leg.problem()))
        .collect();
    let accepted: Vec<&str> = legs.iter().filter(|leg| leg.is_accepted()).map(Leg::endpoint).collect();
    let more =
        |count: usize| if count > MAX_LISTED { format!(" and {} more", count - MAX_LISTED) } else { String::new() };
    format!(
        "not every endpoint accepted the call: {}{}; delivered by {}{}",
        failed.join(", "),
        more(legs.len() - accepted.len()),
        accepted.get(..MAX_LISTED).unwrap_or(&accepted).join(", "),
        more(accepted.len())
    )
}

/// Returns legs as the log lists them: `east=accepted(202); west=not_sent(cause)`. Of many legs, only those that failed, and not
/// all of them. `None` if there are none.
pub fn listed(legs: &[Leg]) -> Option<String> {
    let is_listed = |leg: &&Leg| legs.len() <= MAX_LISTED || leg.outcome != FanOutOutcome::Accepted;
    let listed: Vec<String> = legs.iter().filter(is_listed).take(MAX_LISTED).map(Leg::to_string).collect();
    let left_out = legs.len() - listed.len();
    match (legs.len(), left_out) {
        (0, _) => None,
        (_, 0) => Some(listed.join("; ")),
        (_, more) => Some(format!("{}; {more} more", listed.join("; "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leg(number: usize, outcome: FanOutOutcome, status: Option<u16>, cause: Option<&str>) -> Leg {
        Leg { endpoint: format!("e{number}").into(), outcome, status, cause: cause.map(str::to_owned) }
    }

    #[test]
    fn lists_the_outcome_of_each_leg_and_of_many_those_that_failed() {
        let (accepted, not_sent) = (FanOutOutcome::Accepted, FanOutOutcome::NotSent);
        let few = [leg(0, accepted, Some(202), None), leg(1, not_sent, None, Some("name resolution failed"))];
        assert_eq!(listed(&few).unwrap(), "e0=accepted(202); e1=not_sent(name resolution failed)");
        assert_eq!(listed(&[]), None);
        assert_eq!(
            partly_delivered(&[leg(2, FanOutOutcome::Refused, Some(500), None), leg(0, accepted, Some(202), None)]),
            "not every endpoint accepted the call: e2 (refused: the endpoint responded 500 Internal Server Error); delivered \
             by e0"
        );
        let of = |number| if number % 100 == 7 { not_sent } else { accepted };
        let many: Vec<Leg> = (0..1000).map(|number| leg(number, of(number), None, None)).collect();
        let text = listed(&many).unwrap();
        assert!(text.starts_with("e7=not_sent; e107=not_sent") && text.ends_with("; 990 more"), "{text}");
        let text = partly_delivered(&many);
        assert!(text.contains(": e7 (not_sent), e107 (not_sent)") && text.ends_with(", e16 and 974 more"), "{text}");
    }
}

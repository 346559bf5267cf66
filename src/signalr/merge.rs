//! How the answers of several endpoints to one call become one answer. Pure.
//!
//! Source: `MultiEndpointMessageWriter.cs` of the Azure SignalR SDK, which does the same over persistent connections. Where
//! the SDK throws because one endpoint failed although another said yes, the gateway answers yes: the question is settled.

/// What an operation asks of a set of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FanOutKind {
    /// To do something, each of them: sends, closes of many, memberships of users.
    Deliver,
    /// Whether there is something, or to act on one connection, which only one of them has.
    FirstSuccess,
    /// Its part of a list, one after the other.
    List,
    /// Something only one of them can give: credentials for clients.
    SingleEndpoint,
}

/// How one endpoint's part of a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegOutcome {
    /// It answered 2xx.
    Accepted,
    /// It answered 404 and said what is not there (`x-ms-error-code`).
    NotFound,
    /// It answered 429.
    Throttled,
    /// It answered otherwise.
    Refused,
    /// It may have received the call and did not answer.
    NoAnswer,
    /// It did not receive the call.
    Unsent,
}

/// How many endpoints must accept a delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Each.
    #[default]
    All,
    /// One at least.
    Any,
    /// More than half.
    Quorum,
}

/// What the caller is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// What the leg at this place came to, answer or error.
    Leg(usize),
    /// Some accepted, but not as many as must.
    Partial,
    /// Those that answered do not have it, and others did not receive the call.
    Unreached,
}

impl Policy {
    const fn needs(self, endpoints: usize) -> usize {
        match self {
            Self::All => endpoints,
            Self::Any => 1,
            Self::Quorum => endpoints / 2 + 1,
        }
    }
}

/// Merges the legs of a delivery. There is at least one.
///
/// An endpoint that does not have what is addressed has nothing to deliver, so it counts neither way; only when that is so
/// everywhere is it the answer. Where some accepted and too few, the caller is told of each endpoint, since a blind repeat
/// might deliver twice. Where nobody accepted, the answer is one leg's own outcome: of a leg that may have received the call,
/// else of one that refused it, else that nothing was sent.
pub fn merge_delivery(policy: Policy, legs: &[LegOutcome]) -> Merged {
    let concerned = || legs.iter().enumerate().filter(|(_, leg)| **leg != LegOutcome::NotFound);
    if let Some((index, _)) = concerned().find(|(_, leg)| **leg == LegOutcome::Accepted) {
        let accepted = concerned().filter(|(_, leg)| **leg == LegOutcome::Accepted).count();
        return if accepted >= policy.needs(concerned().count()) { Merged::Leg(index) } else { Merged::Partial };
    }
    first_of(legs, &[LegOutcome::NoAnswer, LegOutcome::Refused, LegOutcome::Throttled])
        .unwrap_or_else(|| merge_unanswered(legs))
}

/// Merges the legs of a question. There is at least one.
///
/// Any yes is yes, else any error is that error, else it is nowhere: a 404 with the service's own `x-ms-error-code`.
pub fn merge_first_success(legs: &[LegOutcome]) -> Merged {
    let settled =
        first_of(legs, &[LegOutcome::Accepted, LegOutcome::Refused, LegOutcome::Throttled, LegOutcome::NoAnswer]);
    settled.unwrap_or_else(|| merge_unanswered(legs))
}

/// Returns the first leg of the first of these kinds that there is.
fn first_of(legs: &[LegOutcome], kinds: &[LegOutcome]) -> Option<Merged> {
    kinds.iter().find_map(|kind| legs.iter().position(|leg| leg == kind)).map(Merged::Leg)
}

/// Merges legs none of which has it: those that are not there, and those that were not sent. That nothing was sent may only
/// be said where it holds for all.
fn merge_unanswered(legs: &[LegOutcome]) -> Merged {
    let unsent = legs.iter().filter(|leg| **leg == LegOutcome::Unsent).count();
    if unsent == 0 || unsent == legs.len() { Merged::Leg(0) } else { Merged::Unreached }
}

#[cfg(test)]
mod tests {
    use super::LegOutcome::{Accepted, NoAnswer, NotFound, Refused, Throttled, Unsent};
    use super::*;
    use crate::signalr::Operation;

    const LEGS: [LegOutcome; 6] = [Accepted, NotFound, Throttled, Refused, NoAnswer, Unsent];

    /// Of all endpoints that are concerned: `MultiEndpointMessageWriter.cs`, `WriteAsync`: all in parallel, any failure fails.
    const WRITE: &str = "sends and other writes: all of them, any failure is a failure";
    /// `MultiEndpointMessageWriter.cs`: a connection is at one endpoint, so the first yes is the answer.
    const UNIQUE: &str = "of one connection: the first yes, else any error, else no";
    /// `MultiEndpointMessageWriter.cs`: all are asked. The SDK fails with any; here a yes is a yes.
    const EXISTS: &str = "of users and groups: any yes, else any error, else no";
    /// `MultiEndpointMessageWriter.cs` after 2024-12-01 came: one after the other, `top` counts down.
    const LIST: &str = "lists go on from one endpoint to the next";
    /// `DefaultEndpointRouter.cs`, negotiation: one online primary, else one online secondary.
    const NEGOTIATE: &str = "client credentials come from one endpoint";
    /// `RestHealthCheckService.cs`: of the gateway itself.
    const HEALTH: &str = "answered by the gateway";

    /// What each operation asks of a set of endpoints, and the rule of the SDK that it follows.
    const TABLE: &[(Operation, FanOutKind, &str)] = &[
        (Operation::Health, FanOutKind::SingleEndpoint, HEALTH),
        (Operation::AccessKey, FanOutKind::SingleEndpoint, NEGOTIATE),
        (Operation::HubSend, FanOutKind::Deliver, WRITE),
        (Operation::HubCloseConnections, FanOutKind::Deliver, WRITE),
        (Operation::HubExecute, FanOutKind::Deliver, WRITE),
        (Operation::GenerateToken, FanOutKind::SingleEndpoint, NEGOTIATE),
        (Operation::ConnectionExists, FanOutKind::FirstSuccess, UNIQUE),
        (Operation::ConnectionClose, FanOutKind::FirstSuccess, UNIQUE),
        (Operation::ConnectionSend, FanOutKind::Deliver, WRITE),
        (Operation::ConnectionInvoke, FanOutKind::FirstSuccess, UNIQUE),
        (Operation::ConnectionLeaveAllGroups, FanOutKind::Deliver, WRITE),
        (Operation::StreamSend, FanOutKind::Deliver, WRITE),
        (Operation::StreamComplete, FanOutKind::Deliver, WRITE),
        (Operation::GroupExists, FanOutKind::FirstSuccess, EXISTS),
        (Operation::GroupSend, FanOutKind::Deliver, WRITE),
        (Operation::GroupCloseConnections, FanOutKind::Deliver, WRITE),
        (Operation::GroupListConnections, FanOutKind::List, LIST),
        (Operation::GroupAddConnection, FanOutKind::FirstSuccess, UNIQUE),
        (Operation::GroupRemoveConnection, FanOutKind::FirstSuccess, UNIQUE),
        (Operation::UserExists, FanOutKind::FirstSuccess, EXISTS),
        (Operation::UserSend, FanOutKind::Deliver, WRITE),
        (Operation::UserCloseConnections, FanOutKind::Deliver, WRITE),
        (Operation::UserLeaveAllGroups, FanOutKind::Deliver, WRITE),
        (Operation::UserInGroup, FanOutKind::FirstSuccess, EXISTS),
        (Operation::UserAddToGroup, FanOutKind::Deliver, WRITE),
        (Operation::UserRemoveFromGroup, FanOutKind::Deliver, WRITE),
    ];

    /// By the first leg (down) and the second (across), both in the order of `LEGS`: the leg whose outcome is the answer,
    /// `P`artial or `U`nreached.
    const DELIVERY: [&str; 6] = [
        "00PPPP", // Accepted
        "10111U", // NotFound
        "P00110", // Throttled
        "P00010", // Refused
        "P00000", // NoAnswer
        "PU1110", // Unsent
    ];
    const QUESTION: [&str; 6] = [
        "000000", // Accepted
        "10111U", // NotFound
        "100100", // Throttled
        "100000", // Refused
        "101100", // NoAnswer
        "1U1110", // Unsent
    ];

    /// 26 operations × the outcomes of two legs under the policy `all`.
    #[test]
    fn two_endpoints_answer_as_one() {
        assert!(Operation::ALL.iter().all(|operation| TABLE.iter().any(|(row, ..)| row == operation)));
        for (operation, fan_out_kind, rule) in TABLE.iter().copied() {
            assert_eq!(operation.fan_out_kind(), fan_out_kind, "{operation}: {rule}");
            for (row, one) in LEGS.into_iter().enumerate() {
                for (column, other) in LEGS.into_iter().enumerate() {
                    let legs = [one, other];
                    let (merged, table) = match fan_out_kind {
                        FanOutKind::Deliver => (merge_delivery(Policy::All, &legs), DELIVERY),
                        FanOutKind::FirstSuccess => (merge_first_success(&legs), QUESTION),
                        FanOutKind::List | FanOutKind::SingleEndpoint => continue,
                    };
                    let expected = match table[row].as_bytes()[column] {
                        b'0' => Merged::Leg(0),
                        b'1' => Merged::Leg(1),
                        b'U' => Merged::Unreached,
                        _ => Merged::Partial,
                    };
                    assert_eq!(merged, expected, "{operation} {legs:?}: {rule}");
                }
            }
        }
    }

    #[test]
    fn policies_say_how_many_must_accept() {
        for (legs, all, any, quorum) in [
            (&[Accepted, Accepted, Accepted][..], Merged::Leg(0), Merged::Leg(0), Merged::Leg(0)),
            (&[Unsent, Accepted, Accepted][..], Merged::Partial, Merged::Leg(1), Merged::Leg(1)),
            (&[NoAnswer, Refused, Accepted][..], Merged::Partial, Merged::Leg(2), Merged::Partial),
            // Nobody accepted: the leg that may have received it.
            (&[Unsent, Refused, NoAnswer][..], Merged::Leg(2), Merged::Leg(2), Merged::Leg(2)),
            (&[Unsent, Throttled, Refused][..], Merged::Leg(2), Merged::Leg(2), Merged::Leg(2)),
            (&[Unsent, Throttled, Unsent][..], Merged::Leg(1), Merged::Leg(1), Merged::Leg(1)),
            (&[Unsent, Unsent, Unsent][..], Merged::Leg(0), Merged::Leg(0), Merged::Leg(0)),
            (&[NotFound, Unsent, Unsent][..], Merged::Unreached, Merged::Unreached, Merged::Unreached),
            (&[NoAnswer][..], Merged::Leg(0), Merged::Leg(0), Merged::Leg(0)),
            // Where it is not there, there is nothing to accept.
            (&[NotFound, Accepted, NotFound][..], Merged::Leg(1), Merged::Leg(1), Merged::Leg(1)),
            (&[NotFound, Accepted, Unsent][..], Merged::Partial, Merged::Leg(1), Merged::Partial),
        ] {
            let merged = [Policy::All, Policy::Any, Policy::Quorum].map(|policy| merge_delivery(policy, legs));
            assert_eq!(merged, [all, any, quorum], "{legs:?}");
        }
    }
}

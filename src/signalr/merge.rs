//! How the answers of several endpoints to one call become one answer. Pure.
//!
//! Source: `MultiEndpointMessageWriter.cs` of the Azure SignalR SDK, which does the same over persistent connections. Where
//! the SDK throws because one endpoint failed although another said yes, the gateway answers yes: the question is settled.

use super::Operation;

/// What an operation asks of a set of endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Together {
    /// To do something, each of them: sends, closes of many, memberships of users.
    Deliver,
    /// Whether there is something, or to act on one connection, which only one of them has.
    Ask,
    /// Its part of a list, one after the other.
    List,
    /// Something only one of them can give: credentials for clients.
    One,
}

/// How one endpoint's part of a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leg {
    /// It answered 2xx.
    Accepted,
    /// It answered 404 and said what is not there (`x-ms-error-code`).
    NotThere,
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
    As(usize),
    /// Some accepted, but not as many as must.
    Partial,
    /// Those that answered do not have it, and others did not receive the call.
    Unreached,
}

impl Operation {
    /// Returns what the operation asks of a set of endpoints.
    pub const fn together(self) -> Together {
        match self {
            Self::HubSend
            | Self::HubCloseConnections
            | Self::HubExecute
            | Self::ConnectionSend
            | Self::ConnectionLeaveAllGroups
            | Self::StreamSend
            | Self::StreamComplete
            | Self::GroupSend
            | Self::GroupCloseConnections
            | Self::UserSend
            | Self::UserCloseConnections
            | Self::UserLeaveAllGroups
            | Self::UserAddToGroup
            | Self::UserRemoveFromGroup => Together::Deliver,
            Self::ConnectionExists
            | Self::ConnectionClose
            | Self::ConnectionInvoke
            | Self::GroupExists
            | Self::GroupAddConnection
            | Self::GroupRemoveConnection
            | Self::UserExists
            | Self::UserInGroup => Together::Ask,
            Self::GroupListConnections => Together::List,
            // The gateway answers `health` itself.
            Self::Health | Self::AccessKey | Self::GenerateToken => Together::One,
        }
    }
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
pub fn merge_delivery(policy: Policy, legs: &[Leg]) -> Merged {
    let concerned = || legs.iter().enumerate().filter(|(_, leg)| **leg != Leg::NotThere);
    if let Some((index, _)) = concerned().find(|(_, leg)| **leg == Leg::Accepted) {
        let accepted = concerned().filter(|(_, leg)| **leg == Leg::Accepted).count();
        return if accepted >= policy.needs(concerned().count()) { Merged::As(index) } else { Merged::Partial };
    }
    first_of(legs, &[Leg::NoAnswer, Leg::Refused, Leg::Throttled]).unwrap_or_else(|| merge_unanswered(legs))
}

/// Merges the legs of a question. There is at least one.
///
/// Any yes is yes, else any error is that error, else it is nowhere: a 404 with the service's own `x-ms-error-code`.
pub fn merge_question(legs: &[Leg]) -> Merged {
    let settled = first_of(legs, &[Leg::Accepted, Leg::Refused, Leg::Throttled, Leg::NoAnswer]);
    settled.unwrap_or_else(|| merge_unanswered(legs))
}

/// Returns the first leg of the first of these kinds that there is.
fn first_of(legs: &[Leg], kinds: &[Leg]) -> Option<Merged> {
    kinds.iter().find_map(|kind| legs.iter().position(|leg| leg == kind)).map(Merged::As)
}

/// Merges legs none of which has it: those that are not there, and those that were not sent. That nothing was sent may only
/// be said where it holds for all.
fn merge_unanswered(legs: &[Leg]) -> Merged {
    let unsent = legs.iter().filter(|leg| **leg == Leg::Unsent).count();
    if unsent == 0 || unsent == legs.len() { Merged::As(0) } else { Merged::Unreached }
}

#[cfg(test)]
mod tests {
    use super::Leg::{Accepted, NoAnswer, NotThere, Refused, Throttled, Unsent};
    use super::*;

    const LEGS: [Leg; 6] = [Accepted, NotThere, Throttled, Refused, NoAnswer, Unsent];

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
    const TABLE: [(Operation, Together, &str); 26] = [
        (Operation::Health, Together::One, HEALTH),
        (Operation::AccessKey, Together::One, NEGOTIATE),
        (Operation::HubSend, Together::Deliver, WRITE),
        (Operation::HubCloseConnections, Together::Deliver, WRITE),
        (Operation::HubExecute, Together::Deliver, WRITE),
        (Operation::GenerateToken, Together::One, NEGOTIATE),
        (Operation::ConnectionExists, Together::Ask, UNIQUE),
        (Operation::ConnectionClose, Together::Ask, UNIQUE),
        (Operation::ConnectionSend, Together::Deliver, WRITE),
        (Operation::ConnectionInvoke, Together::Ask, UNIQUE),
        (Operation::ConnectionLeaveAllGroups, Together::Deliver, WRITE),
        (Operation::StreamSend, Together::Deliver, WRITE),
        (Operation::StreamComplete, Together::Deliver, WRITE),
        (Operation::GroupExists, Together::Ask, EXISTS),
        (Operation::GroupSend, Together::Deliver, WRITE),
        (Operation::GroupCloseConnections, Together::Deliver, WRITE),
        (Operation::GroupListConnections, Together::List, LIST),
        (Operation::GroupAddConnection, Together::Ask, UNIQUE),
        (Operation::GroupRemoveConnection, Together::Ask, UNIQUE),
        (Operation::UserExists, Together::Ask, EXISTS),
        (Operation::UserSend, Together::Deliver, WRITE),
        (Operation::UserCloseConnections, Together::Deliver, WRITE),
        (Operation::UserLeaveAllGroups, Together::Deliver, WRITE),
        (Operation::UserInGroup, Together::Ask, EXISTS),
        (Operation::UserAddToGroup, Together::Deliver, WRITE),
        (Operation::UserRemoveFromGroup, Together::Deliver, WRITE),
    ];

    /// By the first leg (down) and the second (across), both in the order of `LEGS`: the leg whose outcome is the answer,
    /// `P`artial or `U`nreached.
    const DELIVERY: [&str; 6] = [
        "00PPPP", // Accepted
        "10111U", // NotThere
        "P00110", // Throttled
        "P00010", // Refused
        "P00000", // NoAnswer
        "PU1110", // Unsent
    ];
    const QUESTION: [&str; 6] = [
        "000000", // Accepted
        "10111U", // NotThere
        "100100", // Throttled
        "100000", // Refused
        "101100", // NoAnswer
        "1U1110", // Unsent
    ];

    /// 26 operations × the outcomes of two legs under the policy `all`.
    #[test]
    fn two_endpoints_answer_as_one() {
        assert!(Operation::ALL.iter().all(|operation| TABLE.iter().any(|(row, ..)| row == operation)));
        for (operation, together, rule) in TABLE {
            assert_eq!(operation.together(), together, "{operation}: {rule}");
            for (row, one) in LEGS.into_iter().enumerate() {
                for (column, other) in LEGS.into_iter().enumerate() {
                    let legs = [one, other];
                    let (merged, table) = match together {
                        Together::Deliver => (merge_delivery(Policy::All, &legs), DELIVERY),
                        Together::Ask => (merge_question(&legs), QUESTION),
                        Together::List | Together::One => continue,
                    };
                    let expected = match table[row].as_bytes()[column] {
                        b'0' => Merged::As(0),
                        b'1' => Merged::As(1),
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
            (&[Accepted, Accepted, Accepted][..], Merged::As(0), Merged::As(0), Merged::As(0)),
            (&[Unsent, Accepted, Accepted][..], Merged::Partial, Merged::As(1), Merged::As(1)),
            (&[NoAnswer, Refused, Accepted][..], Merged::Partial, Merged::As(2), Merged::Partial),
            // Nobody accepted: the leg that may have received it.
            (&[Unsent, Refused, NoAnswer][..], Merged::As(2), Merged::As(2), Merged::As(2)),
            (&[Unsent, Throttled, Refused][..], Merged::As(2), Merged::As(2), Merged::As(2)),
            (&[Unsent, Throttled, Unsent][..], Merged::As(1), Merged::As(1), Merged::As(1)),
            (&[Unsent, Unsent, Unsent][..], Merged::As(0), Merged::As(0), Merged::As(0)),
            (&[NotThere, Unsent, Unsent][..], Merged::Unreached, Merged::Unreached, Merged::Unreached),
            (&[NoAnswer][..], Merged::As(0), Merged::As(0), Merged::As(0)),
            // Where it is not there, there is nothing to accept.
            (&[NotThere, Accepted, NotThere][..], Merged::As(1), Merged::As(1), Merged::As(1)),
            (&[NotThere, Accepted, Unsent][..], Merged::Partial, Merged::As(1), Merged::Partial),
        ] {
            let merged = [Policy::All, Policy::Any, Policy::Quorum].map(|policy| merge_delivery(policy, legs));
            assert_eq!(merged, [all, any, quorum], "{legs:?}");
        }
    }
}

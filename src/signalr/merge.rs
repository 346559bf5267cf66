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
    /// Some accepted, but not as many as must; or nobody can say.
    Partial,
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
/// everywhere is it the answer. When nobody accepted, the caller gets one leg's own outcome, where one stands for all:
/// nothing was sent anywhere, or each endpoint refused. Otherwise it is told of each endpoint, since a blind repeat might
/// deliver twice.
pub fn merge_delivery(policy: Policy, legs: &[Leg]) -> Merged {
    let concerned = || legs.iter().enumerate().filter(|(_, leg)| **leg != Leg::NotThere);
    let Some((first, _)) = concerned().next() else { return Merged::As(0) };
    let count = concerned().count();
    if let Some((place, _)) = concerned().find(|(_, leg)| **leg == Leg::Accepted) {
        let accepted = concerned().filter(|(_, leg)| **leg == Leg::Accepted).count();
        return if accepted >= policy.needs(count) { Merged::As(place) } else { Merged::Partial };
    }
    let all = |wanted: Leg| concerned().all(|(_, leg)| *leg == wanted);
    if all(Leg::Unsent) || all(Leg::Refused) || count == 1 { Merged::As(first) } else { Merged::Partial }
}

/// Merges the legs of a question. There is at least one.
///
/// Any yes is yes, else any error is that error, else it is nowhere: a 404 with the service's own `x-ms-error-code`.
pub fn merge_question(legs: &[Leg]) -> Merged {
    let first = |wanted: &[Leg]| legs.iter().position(|leg| wanted.contains(leg)).map(Merged::As);
    first(&[Leg::Accepted])
        .or_else(|| first(&[Leg::Refused]))
        .or_else(|| first(&[Leg::NoAnswer]))
        .or_else(|| first(&[Leg::Unsent]))
        .unwrap_or(Merged::As(0))
}

#[cfg(test)]
mod tests {
    use super::Leg::{Accepted, NoAnswer, NotThere, Refused, Unsent};
    use super::*;

    const LEGS: [Leg; 5] = [Accepted, NotThere, Refused, NoAnswer, Unsent];

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

    /// By the first leg (down) and the second (across), both in the order of `LEGS`: the leg whose outcome is the answer, or
    /// `P`artial.
    const DELIVERY: [&str; 5] = [
        "00PPP", // Accepted
        "10111", // NotThere
        "P00PP", // Refused
        "P0PPP", // NoAnswer
        "P0PP0", // Unsent
    ];
    const QUESTION: [&str; 5] = [
        "00000", // Accepted
        "10111", // NotThere
        "10000", // Refused
        "10100", // NoAnswer
        "10110", // Unsent
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
            (&[NoAnswer, Refused, Unsent][..], Merged::Partial, Merged::Partial, Merged::Partial),
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

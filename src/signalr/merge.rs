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
/// When nobody accepted, the caller gets one leg's own outcome, where one stands for all: nothing was sent anywhere, or
/// each endpoint refused. Otherwise it is told of each endpoint, since a blind repeat might deliver twice.
pub fn merge_delivery(policy: Policy, legs: &[Leg]) -> Merged {
    let accepted = legs.iter().filter(|leg| **leg == Leg::Accepted).count();
    let first = |wanted: fn(&Leg) -> bool| legs.iter().position(wanted).map(Merged::As);
    if accepted > 0 {
        let is_enough = accepted >= policy.needs(legs.len());
        return first(|leg| *leg == Leg::Accepted).filter(|_| is_enough).unwrap_or(Merged::Partial);
    }
    let is_answer = |leg: &Leg| matches!(leg, Leg::Refused | Leg::NotThere);
    if legs.iter().all(|leg| *leg == Leg::Unsent) || legs.iter().all(is_answer) || legs.len() == 1 {
        return Merged::As(0);
    }
    Merged::Partial
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

    /// 26 operations × the outcomes of two legs under the policy `all`.
    #[test]
    fn two_endpoints_answer_as_one() {
        for operation in Operation::ALL {
            for one in LEGS {
                for other in LEGS {
                    let legs = [one, other];
                    match operation.together() {
                        Together::Deliver => {
                            let expected = match legs {
                                [Accepted, Accepted] | [Unsent, Unsent] | [Refused | NotThere, Refused | NotThere] => {
                                    Merged::As(0)
                                }
                                _ => Merged::Partial,
                            };
                            assert_eq!(merge_delivery(Policy::All, &legs), expected, "{operation} {legs:?}");
                        }
                        Together::Ask => {
                            let rank = |leg| match leg {
                                Accepted => 0,
                                Refused => 1,
                                NoAnswer => 2,
                                Unsent => 3,
                                NotThere => 4,
                            };
                            let expected = Merged::As(usize::from(rank(other) < rank(one)));
                            assert_eq!(merge_question(&legs), expected, "{operation} {legs:?}");
                        }
                        Together::List | Together::One => {}
                    }
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
        ] {
            let merged = [Policy::All, Policy::Any, Policy::Quorum].map(|policy| merge_delivery(policy, legs));
            assert_eq!(merged, [all, any, quorum], "{legs:?}");
        }
    }
}

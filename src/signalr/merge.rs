//! Merges the responses of several endpoints to one call. Pure functions.
//!
//! Source: `MultiEndpointMessageWriter.cs` of the Azure SignalR SDK, which does the same over persistent connections. For
//! operations whose first success decides, the SDK throws if one endpoint succeeds and another fails; the gateway returns the
//! success.

/// How an operation is carried out on several endpoints.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FanOutKind {
    /// On each endpoint. A [`Policy`] determines how many must accept: sends, closing many connections, group membership of users.
    Deliver,
    /// On each endpoint. The first success is the response: existence checks, and operations on one connection, which exists on only
    /// one endpoint.
    FirstSuccess,
    /// On each endpoint. The response is that of the endpoint that has the target: calls that name a connection by its secret.
    SingleOwner,
    /// On one endpoint after the other. Each returns its part of the list.
    List,
    /// On one endpoint: credentials for clients.
    SingleEndpoint,
}

/// The outcome of one leg of a fan-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LegOutcome {
    /// The endpoint responded 2xx.
    Accepted,
    /// The endpoint responded 404 with `x-ms-error-code`, which names what does not exist.
    NotFound,
    /// The endpoint responded 403 with `x-ms-error-code`: it has the target and refuses the call.
    Denied,
    /// The endpoint responded 429.
    Throttled,
    /// The endpoint responded with any other status.
    Failed,
    /// The endpoint did not respond and may have processed the call.
    NoResponse,
    /// The endpoint did not process the call: nothing was sent, or the endpoint states so.
    NotProcessed,
}

/// How many endpoints must accept a delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// All.
    #[default]
    All,
    /// At least one.
    Any,
    /// More than half.
    Quorum,
}

/// The response that the caller of a fan-out receives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Merged {
    /// The response or error of the leg at this index.
    Leg(usize),
    /// Some endpoints accepted, but fewer than required.
    Partial,
    /// The target does not exist on the endpoints that responded, and the others did not process the call.
    Unreached,
    /// Several endpoints have a target that only one may have.
    SeveralOwners,
}

impl FanOutKind {
    /// Returns whether the operation goes to several endpoints at the same time.
    pub const fn is_parallel(self) -> bool {
        match self {
            Self::Deliver | Self::FirstSuccess | Self::SingleOwner => true,
            Self::List | Self::SingleEndpoint => false,
        }
    }
}

impl Policy {
    /// Returns how many of so many endpoints must accept a delivery.
    pub const fn required(self, endpoints: usize) -> usize {
        match self {
            Self::All => endpoints,
            Self::Any => 1,
            Self::Quorum => endpoints / 2 + 1,
        }
    }
}

/// Merges the legs of a delivery. There is at least one leg.
///
/// Endpoints where the target does not exist are not counted; the result is 404 only if it exists on none. If fewer endpoints
/// than required accepted, the result is `Partial` and lists each endpoint, since a blind retry might deliver twice. If none
/// accepted, the result is the outcome of one leg: of one that may have processed the call, else of one that responded with an
/// error, else of one that did not process the call.
pub fn merge_delivery(policy: Policy, legs: &[LegOutcome]) -> Merged {
    let counted = || legs.iter().enumerate().filter(|(_, leg)| **leg != LegOutcome::NotFound);
    if let Some((index, _)) = counted().find(|(_, leg)| **leg == LegOutcome::Accepted) {
        let accepted = counted().filter(|(_, leg)| **leg == LegOutcome::Accepted).count();
        return if accepted >= policy.required(counted().count()) { Merged::Leg(index) } else { Merged::Partial };
    }
    first_of(legs, &[LegOutcome::NoResponse, LegOutcome::Failed, LegOutcome::Throttled])
        .unwrap_or_else(|| merge_unprocessed(legs))
}

/// Merges the legs of a call whose first success is the response. There is at least one leg.
///
/// Without a success, the result is an error if there is one, else the service's own 404 with `x-ms-error-code`.
pub fn merge_first_success(legs: &[LegOutcome]) -> Merged {
    let decisive =
        first_of(legs, &[LegOutcome::Accepted, LegOutcome::Failed, LegOutcome::Throttled, LegOutcome::NoResponse]);
    decisive.unwrap_or_else(|| merge_unprocessed(legs))
}

/// Merges the legs of a call whose target only one endpoint may have. There is at least one leg.
///
/// An endpoint without the target responds 404. The owner's response is the result, whatever the other legs are; without an
/// owner, it is an error if there is one, else the service's own 404.
///
/// Source: `Azure/azure-signalr` issue 2282: several owners are an internal error.
pub fn merge_single_owner(legs: &[LegOutcome]) -> Merged {
    let is_owner = |leg: &LegOutcome| matches!(leg, LegOutcome::Accepted | LegOutcome::Denied);
    let mut owners = legs.iter().enumerate().filter(|(_, leg)| is_owner(leg));
    match (owners.next(), owners.next()) {
        (Some((owner, _)), None) => Merged::Leg(owner),
        (Some(_), Some(_)) => Merged::SeveralOwners,
        (None, _) => merge_first_success(legs),
    }
}

/// Returns the first leg with the first of these outcomes that any leg has. A denial is a failure.
fn first_of(legs: &[LegOutcome], outcomes: &[LegOutcome]) -> Option<Merged> {
    let is = |leg: &LegOutcome, outcome: &LegOutcome| {
        leg == outcome || (*leg == LegOutcome::Denied && *outcome == LegOutcome::Failed)
    };
    outcomes.iter().find_map(|outcome| legs.iter().position(|leg| is(leg, outcome))).map(Merged::Leg)
}

/// Merges legs that are all `NotFound` or `NotProcessed`. `NotProcessed` is the result only if it is true of every leg.
fn merge_unprocessed(legs: &[LegOutcome]) -> Merged {
    let not_processed = legs.iter().filter(|leg| **leg == LegOutcome::NotProcessed).count();
    if not_processed == 0 || not_processed == legs.len() { Merged::Leg(0) } else { Merged::Unreached }
}

#[cfg(test)]
mod tests {
    use super::LegOutcome::{Accepted, Denied, Failed, NoResponse, NotFound, NotProcessed, Throttled};
    use super::*;
    use crate::signalr::Operation;

    const LEGS: [LegOutcome; 6] = [Accepted, NotFound, Throttled, Failed, NoResponse, NotProcessed];

    /// `MultiEndpointMessageWriter.cs`, `WriteAsync`: all endpoints in parallel, any failure fails the call.
    const WRITE: &str = "sends and other writes: all endpoints, one failed leg fails the call";
    /// `MultiEndpointMessageWriter.cs`: a connection is on one endpoint, so the first success is the response.
    const UNIQUE: &str = "one connection: the first success, else any error, else 404";
    /// `MultiEndpointMessageWriter.cs`: all endpoints. In the SDK any failure fails the call; here a success decides it.
    const EXISTS: &str = "users and groups: any success, else any error, else 404";
    /// `MultiEndpointMessageWriter.cs` since 2024-12-01: one endpoint after the other, `top` counts down.
    const LIST: &str = "lists continue from one endpoint to the next";
    /// `DefaultEndpointRouter.cs`, negotiation: one online primary, else one online secondary.
    const NEGOTIATE: &str = "client credentials come from one endpoint";
    /// Issue 2282: a token-keyed call goes to all endpoints, 404 means "not the owner", several owners are an error.
    const OWNER: &str = "one connection by its token: its owner's response";
    /// `RestHealthCheckService.cs`: the health of the gateway itself.
    const HEALTH: &str = "the gateway responds to it";

    /// The fan-out kind of each operation and the rule of the SDK that it follows.
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
        (Operation::ConnectionRefreshAuth, FanOutKind::SingleOwner, OWNER),
        (Operation::ConnectionClaims, FanOutKind::SingleOwner, OWNER),
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

    /// Rows are the first leg, columns the second, in the order of `LEGS`. A cell is the index of the leg that is the response, or
    /// `P`artial or `U`nreached.
    const DELIVERY: [&str; 6] = [
        "00PPPP", // Accepted
        "10111U", // NotFound
        "P00110", // Throttled
        "P00010", // Failed
        "P00000", // NoResponse
        "PU1110", // NotProcessed
    ];
    const FIRST_SUCCESS: [&str; 6] = [
        "000000", // Accepted
        "10111U", // NotFound
        "100100", // Throttled
        "100000", // Failed
        "101100", // NoResponse
        "1U1110", // NotProcessed
    ];

    /// `S`: several owners.
    const SINGLE_OWNER: [&str; 6] = [
        "S00000", // Accepted
        "10111U", // NotFound
        "100100", // Throttled
        "100000", // Failed
        "101100", // NoResponse
        "1U1110", // NotProcessed
    ];

    /// Every operation × the outcomes of two legs, under the policy `all`.
    #[test]
    fn responses_of_two_endpoints_are_merged() {
        assert!(Operation::ALL.iter().all(|operation| TABLE.iter().any(|(row, ..)| row == operation)));
        for (operation, fan_out_kind, rule) in TABLE.iter().copied() {
            assert_eq!(operation.fan_out_kind(), fan_out_kind, "{operation}: {rule}");
            for (row, one) in LEGS.into_iter().enumerate() {
                for (column, other) in LEGS.into_iter().enumerate() {
                    let legs = [one, other];
                    let (merged, table) = match fan_out_kind {
                        FanOutKind::Deliver => (merge_delivery(Policy::All, &legs), DELIVERY),
                        FanOutKind::FirstSuccess => (merge_first_success(&legs), FIRST_SUCCESS),
                        FanOutKind::SingleOwner => (merge_single_owner(&legs), SINGLE_OWNER),
                        FanOutKind::List | FanOutKind::SingleEndpoint => continue,
                    };
                    let expected = match table[row].as_bytes()[column] {
                        b'0' => Merged::Leg(0),
                        b'1' => Merged::Leg(1),
                        b'U' => Merged::Unreached,
                        b'S' => Merged::SeveralOwners,
                        _ => Merged::Partial,
                    };
                    assert_eq!(merged, expected, "{operation} {legs:?}: {rule}");
                }
            }
        }
    }

    #[test]
    fn policy_determines_how_many_endpoints_must_accept() {
        for (legs, all, any, quorum) in [
            (&[Accepted, Accepted, Accepted][..], Merged::Leg(0), Merged::Leg(0), Merged::Leg(0)),
            (&[NotProcessed, Accepted, Accepted][..], Merged::Partial, Merged::Leg(1), Merged::Leg(1)),
            (&[NoResponse, Failed, Accepted][..], Merged::Partial, Merged::Leg(2), Merged::Partial),
            // None accepted: the leg that may have processed the call determines the result.
            (&[NotProcessed, Failed, NoResponse][..], Merged::Leg(2), Merged::Leg(2), Merged::Leg(2)),
            (&[NotProcessed, Throttled, Failed][..], Merged::Leg(2), Merged::Leg(2), Merged::Leg(2)),
            (&[NotProcessed, Throttled, NotProcessed][..], Merged::Leg(1), Merged::Leg(1), Merged::Leg(1)),
            (&[NotProcessed, NotProcessed, NotProcessed][..], Merged::Leg(0), Merged::Leg(0), Merged::Leg(0)),
            (&[NotFound, NotProcessed, NotProcessed][..], Merged::Unreached, Merged::Unreached, Merged::Unreached),
            (&[NoResponse][..], Merged::Leg(0), Merged::Leg(0), Merged::Leg(0)),
            // Endpoints where the target does not exist are not counted.
            (&[NotFound, Accepted, NotFound][..], Merged::Leg(1), Merged::Leg(1), Merged::Leg(1)),
            (&[NotFound, Accepted, NotProcessed][..], Merged::Partial, Merged::Leg(1), Merged::Partial),
        ] {
            let merged = [Policy::All, Policy::Any, Policy::Quorum].map(|policy| merge_delivery(policy, legs));
            assert_eq!(merged, [all, any, quorum], "{legs:?}");
        }
    }

    #[test]
    fn delivery_is_partial_only_if_an_endpoint_accepted_the_call() {
        let of = |mut number: usize| {
            let mut legs = Vec::new();
            while number > 0 {
                legs.push(LEGS[number % LEGS.len()]);
                number /= LEGS.len();
            }
            legs
        };
        for legs in (1..LEGS.len().pow(4)).map(of) {
            for policy in [Policy::All, Policy::Any, Policy::Quorum] {
                let is_partial = merge_delivery(policy, &legs) == Merged::Partial;
                assert!(!is_partial || legs.contains(&Accepted), "{policy:?} {legs:?}");
            }
            assert!(merge_first_success(&legs) != Merged::Partial && merge_single_owner(&legs) != Merged::Partial);
        }
    }

    #[test]
    fn denial_comes_from_the_owner_and_is_a_failure_of_other_calls() {
        for (legs, owner) in [
            ([Denied, NotFound], Merged::Leg(0)),
            ([Failed, Denied], Merged::Leg(1)),
            ([NoResponse, Denied], Merged::Leg(1)),
            ([Denied, Accepted], Merged::SeveralOwners),
            ([Denied, Denied], Merged::SeveralOwners),
        ] {
            assert_eq!(merge_single_owner(&legs), owner, "{legs:?}");
            let as_failure = legs.map(|leg| if leg == Denied { Failed } else { leg });
            assert_eq!(merge_delivery(Policy::All, &legs), merge_delivery(Policy::All, &as_failure), "{legs:?}");
            assert_eq!(merge_first_success(&legs), merge_first_success(&as_failure), "{legs:?}");
        }
    }
}

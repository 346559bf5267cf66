//! Fan-out: one call to every endpoint of a route, and one response. [`crate::signalr::merge_delivery`],
//! [`crate::signalr::merge_first_success`] and [`crate::signalr::merge_single_owner`] say which.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Response;

use super::body::{RequestBody, UpstreamBody};
use super::call::PlannedCall;
use super::error::{DeliveryError, EndpointOutcome};
use super::outcome::{AttemptOutcome, Fault, Sent};
use super::settle::settle;
use super::single::deliver_to;
use super::steps::step;
use super::trail::fan_out_outcome;
use super::upstream::Upstream;
use super::worker::WorkerDelivery;
use crate::endpoint::CallClass;
use crate::idempotency::{Claim, LegState, Outcome};
use crate::route::{Choice, Route, WhenUnavailable};
use crate::signalr::{
    FanOutKind, LegOutcome, Merged, Operation, Policy, merge_delivery, merge_first_success, merge_single_owner,
};

/// How long the other legs may go on after the first success, where one suffices. Most end in time, and their
/// connections are reused.
const STRAGGLER_GRACE: Duration = Duration::from_millis(100);
/// The same where only one endpoint may have the target: longer, to detect a second one.
const OWNER_GRACE: Duration = Duration::from_secs(2);

/// Sends a call to every endpoint of a route at the same time and merges the responses. Returns the chosen response
/// and its endpoint.
pub(super) async fn fan_out<'a>(
    worker: &'a WorkerDelivery,
    choice: Choice<'_>,
    policy: Policy,
    call: &PlannedCall<'_>,
) -> Result<(&'a Upstream, Response<UpstreamBody>), DeliveryError> {
    let body = collect(worker, call).await?;
    let merged = deliver_to_all(worker, choice, policy, &PlannedCall { body: &body, ..*call }).await?;
    Ok((merged.upstream, merged.response))
}

/// Reads the body of a call to its end: all legs read one buffer, so no leg waits for another.
pub(super) async fn collect(worker: &WorkerDelivery, call: &PlannedCall<'_>) -> Result<RequestBody, DeliveryError> {
    let max_wait = worker.settings.queue.max_wait;
    let body = tokio::time::timeout(call.state.remaining(), call.body.collected(max_wait)).await;
    Ok(body.map_err(|_late| DeliveryError::SlowRequest)??)
}

/// The response that was chosen among those of several endpoints.
pub(super) struct MergedResponse<'a> {
    pub(super) upstream: &'a Upstream,
    pub(super) response: Response<UpstreamBody>,
    /// Whether nothing was sent: every leg had an outcome from an earlier call with the same idempotency key.
    pub(super) is_replay: bool,
}

/// Sends a call, whose body is complete, to every endpoint of a route at the same time and merges the responses. A call
/// that has claimed its idempotency key goes only to the endpoints that were not sent it.
pub(super) async fn deliver_to_all<'a>(
    worker: &'a WorkerDelivery,
    choice: Choice<'_>,
    policy: Policy,
    call: &PlannedCall<'_>,
) -> Result<MergedResponse<'a>, DeliveryError> {
    let PlannedCall { operation, state, .. } = *call;
    let route = choice.route().name().as_str();
    let (before, began) = ((state.waited(), state.upstream()), Instant::now());
    let upstreams: Vec<&Upstream> = choice.endpoint_indexes().filter_map(|index| worker.upstream(index)).collect();
    step!(state, "fan-out", endpoints = upstreams.len());
    let known = call.claim().map(Claim::legs).unwrap_or_default();
    let earlier = |upstream: &&Upstream| match call.claim() {
        Some(_) => known.state(upstream.endpoint().name().as_str(), upstream.endpoint().origin()),
        None => LegState::Claimed,
    };
    let earlier: Vec<LegState> = upstreams.iter().map(earlier).collect();
    if earlier.iter().any(|leg| matches!(leg, LegState::Done(_))) {
        worker.metrics.fan_out_repeated(route);
    }
    let is_replay = !earlier.contains(&LegState::Claimed);
    let send_anyway = sends_anyway(choice.route(), &upstreams, CallClass::new(operation.class().index()));
    let legs = upstreams.iter().zip(&earlier).map(|(&upstream, earlier)| async move {
        match earlier {
            LegState::Claimed => {}
            LegState::Sent => return outcome_unknown(),
            LegState::Done(outcome) => return replayed(operation, outcome, began),
        }
        let outcome = deliver_to(worker, upstream, send_anyway, call).await;
        // Recorded now: the other legs may take long.
        settle(worker, upstream, call, outcome).await
    });
    let grace = match operation.fan_out_kind() {
        FanOutKind::FirstSuccess => Some(STRAGGLER_GRACE),
        FanOutKind::SingleOwner => Some(OWNER_GRACE),
        FanOutKind::Deliver | FanOutKind::List | FanOutKind::SingleEndpoint => None,
    };
    let mut results = gather(legs, grace).await;
    // The legs overlap, so the wait is the time that passed.
    let (elapsed, (waited, upstream_time)) = (began.elapsed(), before);
    state.set_waited(waited + elapsed, upstream_time + elapsed);
    let legs = upstreams.iter().zip(&results);
    state.set_legs(legs.map(|(upstream, outcome)| (upstream.name(), outcome.as_ref())));

    let legs: Vec<LegOutcome> = results.iter().map(|outcome| leg_of(outcome.as_ref())).collect();
    for ((leg, result), earlier) in legs.iter().zip(&results).zip(&earlier) {
        if result.is_some() && *earlier == LegState::Claimed {
            worker.metrics.fan_out_leg(route, fan_out_outcome(*leg));
        }
    }
    let merged = match operation.fan_out_kind() {
        FanOutKind::Deliver => merge_delivery(policy, &legs),
        FanOutKind::SingleOwner => merge_single_owner(&legs),
        FanOutKind::FirstSuccess | FanOutKind::List | FanOutKind::SingleEndpoint => merge_first_success(&legs),
    };
    let chosen = match merged {
        Merged::Leg(chosen) => chosen,
        Merged::Partial => {
            worker.metrics.fan_out_partial(route);
            return Err(DeliveryError::PartialDelivery { endpoints: outcomes(&upstreams, &legs, results), is_replay });
        }
        Merged::SeveralOwners => {
            return Err(DeliveryError::SeveralOwners { endpoints: outcomes(&upstreams, &legs, results) });
        }
        Merged::Unreached => {
            results.into_iter().flatten().for_each(AttemptOutcome::discard);
            return Err(DeliveryError::SomeUnreached);
        }
    };
    let chosen_outcome = results.get_mut(chosen).and_then(Option::take);
    results.into_iter().flatten().for_each(AttemptOutcome::discard);
    let upstream = upstreams.get(chosen).copied().ok_or(DeliveryError::Internal)?;
    // The endpoint of a leg that was cancelled may have received the call.
    let limit = state.deadline().limit();
    let result = chosen_outcome.map_or(Err(DeliveryError::Deadline { limit }), |outcome| outcome.result);
    result.map(|response| MergedResponse { upstream, response, is_replay })
}

/// Returns the outcome of a leg that was sent under the same idempotency key and has none.
fn outcome_unknown() -> AttemptOutcome {
    AttemptOutcome::failed(Sent::MaybeProcessed, Fault::NoneKnown, DeliveryError::OutcomeUnknown)
}

/// Returns the outcome of a leg that is done under the same idempotency key.
fn replayed(operation: Operation, outcome: &Outcome, began: Instant) -> AttemptOutcome {
    let response = outcome.to_response().map(UpstreamBody::from);
    AttemptOutcome::responded(operation, response, began, false)
}

/// Returns whether endpoints are tried despite their open circuits: all circuits are open, and the route is configured
/// to send anyway.
fn sends_anyway(route: &Route, upstreams: &[&Upstream], class: CallClass) -> bool {
    let accepts_calls = |upstream: &&Upstream| upstream.endpoint().health().accepts_calls(class);
    route.when_unavailable() == WhenUnavailable::Send && !upstreams.iter().any(accepts_calls)
}

fn outcomes(
    upstreams: &[&Upstream],
    legs: &[LegOutcome],
    results: Vec<Option<AttemptOutcome>>,
) -> Vec<EndpointOutcome> {
    let outcome = |((upstream, leg), result): ((&&Upstream, &LegOutcome), Option<AttemptOutcome>)| {
        let status = result.as_ref().and_then(|outcome| outcome.ending.status).map(|status| status.as_u16());
        if let Some(outcome) = result {
            outcome.discard();
        }
        EndpointOutcome { endpoint: upstream.name().to_string(), outcome: fan_out_outcome(*leg).label(), status }
    };
    upstreams.iter().zip(legs).zip(results).map(outcome).collect()
}

/// Runs legs at the same time and returns their outcomes in order. Where the first success suffices, legs that have not
/// ended within `grace` after it are cancelled: an endpoint that hangs must not delay the response of another.
async fn gather<L: Future<Output = AttemptOutcome>>(
    legs: impl ExactSizeIterator<Item = L>,
    grace: Option<Duration>,
) -> Vec<Option<AttemptOutcome>> {
    let mut results: Vec<Option<AttemptOutcome>> = (0..legs.len()).map(|_| None).collect();
    let mut running: FuturesUnordered<_> =
        legs.enumerate().map(|(number, leg)| async move { (number, leg.await) }).collect();
    let mut cancel_at: Option<Instant> = None;
    loop {
        let next = running.next();
        let ended = match cancel_at {
            None => next.await,
            Some(until) => tokio::time::timeout_at(until.into(), next).await.unwrap_or(None),
        };
        let Some((number, outcome)) = ended else { return results };
        let is_success = outcome.leg() == LegOutcome::Accepted;
        if is_success && cancel_at.is_none() {
            cancel_at = grace.map(|grace| Instant::now() + grace);
        }
        if let Some(slot) = results.get_mut(number) {
            *slot = Some(outcome);
        }
    }
}

/// Returns the outcome of a leg. One that was cancelled has no response.
fn leg_of(outcome: Option<&AttemptOutcome>) -> LegOutcome {
    outcome.map_or(LegOutcome::NoResponse, AttemptOutcome::leg)
}

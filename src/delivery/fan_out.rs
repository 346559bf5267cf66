//! Fan-out: one call to every endpoint of a route, and one response. [`crate::signalr::merge_delivery`] and
//! [`crate::signalr::merge_first_success`] say which.
//!
//! A delivery that carries an `Idempotency-Key` goes only to the endpoints that have not accepted it under that key.

use std::cell::RefCell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::{Response, StatusCode};

use super::body::{RequestBody, UpstreamBody};
use super::call::PlannedCall;
use super::error::{DeliveryError, EndpointOutcome};
use super::idempotency::{CallKey, Fingerprint, KeyReused, KeyedCall};
use super::outcome::AttemptOutcome;
use super::single::deliver_to;
use super::upstream::Upstream;
use super::worker::WorkerDelivery;
use crate::endpoint::CallClass;
use crate::metrics::FanOutOutcome;
use crate::route::{Choice, Route, WhenUnavailable};
use crate::signalr::{FanOutKind, LegOutcome, Merged, Policy, merge_delivery, merge_first_success};

/// How long the other legs may go on after the first success, where one suffices. Most end in time, and their
/// connections are reused.
const STRAGGLER_GRACE: Duration = Duration::from_millis(100);

/// Sends a call to every endpoint of a route at the same time and merges the responses. Returns the chosen response
/// and its endpoint.
pub(super) async fn fan_out<'a>(
    worker: &'a WorkerDelivery,
    choice: Choice<'_>,
    policy: Policy,
    key: Option<CallKey<'_>>,
    call: &PlannedCall<'_>,
) -> Result<(&'a Upstream, Response<UpstreamBody>), DeliveryError> {
    let PlannedCall { operation, state, .. } = *call;
    let route = choice.route().name().as_str();
    // All legs read one buffer, so no leg waits for another.
    let (waited_before, began) = (state.waited(), Instant::now());
    let max_wait = worker.settings.queue.max_wait;
    let body = tokio::time::timeout(state.remaining(), call.body.collected(max_wait)).await;
    let body = body.map_err(|_late| DeliveryError::SlowRequest)??;
    let keyed = key.map(|key| keyed_call(worker, key, call, &body)).transpose()?;
    let accepted = match &keyed {
        // Waits while another request sends the same call.
        Some(call) => match tokio::time::timeout(state.remaining(), call.accepted.lock()).await {
            Ok(accepted) => Some(RefCell::new(accepted)),
            Err(_late) => return Err(DeliveryError::Deadline { limit: state.deadline().limit() }),
        },
        None => None,
    };
    let upstreams: Vec<&Upstream> = choice.endpoint_indexes().filter_map(|index| worker.upstream(index)).collect();
    let accepted_before = |upstream: &&Upstream| {
        let endpoint = upstream.endpoint();
        accepted.as_ref()?.borrow().by(endpoint.name().as_str(), endpoint.origin())
    };
    let earlier: Vec<Option<StatusCode>> = upstreams.iter().map(accepted_before).collect();
    if earlier.iter().any(Option::is_some) {
        worker.metrics.fan_out_repeated(route);
    }
    let send_anyway = sends_anyway(choice.route(), &upstreams, CallClass::new(operation.class().index()));
    let legs = upstreams.iter().zip(&earlier).map(|(&upstream, &earlier)| {
        let call = PlannedCall { body: &body, ..*call };
        let accepted = accepted.as_ref();
        async move {
            if let Some(status) = earlier {
                return AttemptOutcome::responded(operation, accepted_earlier(status), began, false);
            }
            let outcome = deliver_to(worker, upstream, send_anyway, &call).await;
            if let (Some(accepted), LegOutcome::Accepted, Some(status)) =
                (accepted, outcome.leg(), outcome.ending.status)
            {
                // Recorded now: the other legs may take long, and the request may be cancelled before they end.
                let endpoint = upstream.endpoint();
                accepted.borrow_mut().record(endpoint.name().as_str(), endpoint.origin(), status);
            }
            outcome
        }
    });
    let first_success_suffices = operation.fan_out_kind() == FanOutKind::FirstSuccess;
    let mut results = gather(legs, first_success_suffices).await;
    // The legs overlap, so the wait is the time that passed.
    state.set_waited(waited_before + began.elapsed());

    let legs: Vec<LegOutcome> = results.iter().map(|outcome| leg_of(outcome.as_ref())).collect();
    for ((leg, result), earlier) in legs.iter().zip(&results).zip(&earlier) {
        if result.is_some() && earlier.is_none() {
            worker.metrics.fan_out_leg(route, fan_out_outcome(*leg));
        }
    }
    let merged = match operation.fan_out_kind() {
        FanOutKind::Deliver => merge_delivery(policy, &legs),
        FanOutKind::FirstSuccess | FanOutKind::List | FanOutKind::SingleEndpoint => merge_first_success(&legs),
    };
    let chosen = match merged {
        Merged::Leg(chosen) => chosen,
        Merged::Partial => {
            worker.metrics.fan_out_partial(route);
            return Err(DeliveryError::PartialDelivery { endpoints: outcomes(&upstreams, &legs, results) });
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
    result.map(|response| (upstream, response))
}

/// Returns the record of a call with this key.
fn keyed_call(
    worker: &WorkerDelivery,
    key: CallKey<'_>,
    call: &PlannedCall<'_>,
    body: &RequestBody,
) -> Result<Arc<KeyedCall>, DeliveryError> {
    let fingerprint = Fingerprint::of(&call.head().method, call.uri, body.whole());
    let call = worker.idempotency.call(key, fingerprint, worker.settings.idempotency);
    call.map_err(|KeyReused| DeliveryError::KeyReused)
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

/// Returns a response with the status with which an endpoint accepted the call before.
fn accepted_earlier(status: StatusCode) -> Response<UpstreamBody> {
    let mut response = Response::new(UpstreamBody::Empty);
    *response.status_mut() = status;
    response
}

/// Runs legs at the same time and returns their outcomes in order. Where the first success suffices, legs that have not
/// ended shortly after it are cancelled: an endpoint that hangs must not delay the response of another.
async fn gather<L: Future<Output = AttemptOutcome>>(
    legs: impl ExactSizeIterator<Item = L>,
    first_success_suffices: bool,
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
        if first_success_suffices && is_success && cancel_at.is_none() {
            cancel_at = Some(Instant::now() + STRAGGLER_GRACE);
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

/// Returns the outcome as responses and metrics name it.
const fn fan_out_outcome(leg: LegOutcome) -> FanOutOutcome {
    match leg {
        LegOutcome::Accepted => FanOutOutcome::Accepted,
        LegOutcome::NotFound => FanOutOutcome::NotFound,
        LegOutcome::Throttled => FanOutOutcome::Throttled,
        LegOutcome::Failed => FanOutOutcome::Refused,
        LegOutcome::NoResponse => FanOutOutcome::NoResponse,
        LegOutcome::NotProcessed => FanOutOutcome::NotSent,
    }
}

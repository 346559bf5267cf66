//! Delivers a call to one endpoint of its route: fails over to the next endpoint, and retries at the same one.

use std::time::Duration;

use super::attempt::attempt;
use super::call::{CallState, PlannedCall};
use super::candidates::Candidates;
use super::error::DeliveryError;
use super::outcome::{AttemptOutcome, Ending, Fault};
use super::retry::{self, RetryDecision};
use super::steps::step;
use super::trail::Leg;
use super::upstream::Upstream;
use super::worker::WorkerDelivery;
use crate::endpoint::CallClass;
use crate::metrics::RetryOutcome;
use crate::route::Choice;
use crate::signalr::Operation;

/// Delivers a call to one of a route's endpoints. Returns the outcome of the attempt that decides, and its endpoint. Tries
/// the next endpoint at once while nothing was processed.
pub(super) async fn deliver<'a>(
    worker: &'a WorkerDelivery,
    choice: &'a Choice<'a>,
    call: &PlannedCall<'_>,
) -> Result<(&'a Upstream, AttemptOutcome), DeliveryError> {
    let mut candidates = Candidates::new(worker, choice, call.operation);
    let Some(mut candidate) = candidates.next() else {
        step!(call.state, "no candidate: every circuit is open, or the endpoints asked for a pause");
        return Err(circuits_open(worker, choice, call.operation));
    };
    loop {
        let (upstream, permit) = candidate;
        call.state.set_endpoint(upstream.name());
        let retries = {
            upstream.budget().deposit();
            call.state.begin_attempt(upstream);
            step!(call.state, "attempt", endpoint = &**upstream.name(), others = candidates.left());
            let outcome = attempt(worker, upstream, call, candidates.left()).await;
            call.state.end_attempt(upstream, &outcome);
            let ending = outcome.report(permit);
            log_end(call.state, upstream, &outcome);
            if ending.may_fail_over()
                && !call.state.remaining().is_zero()
                && let Some(next) = candidates.next()
            {
                if let Some(claim) = call.claim() {
                    claim.unsend(upstream.endpoint().name().as_str(), upstream.endpoint().origin());
                }
                call.state.add_failed_attempt(upstream.name(), &outcome);
                step!(call.state, "failing over", to = &**next.0.name());
                candidate = next;
                continue;
            }
            match decide(worker, call.operation, ending) {
                RetryDecision::Final => return Ok((upstream, outcome)),
                decision @ (RetryDecision::NotSafe | RetryDecision::Retry) => {
                    Box::pin(retry_at(worker, upstream, call, outcome, decision))
                }
            }
        };
        // Outside the block, so that its locals are not held across the await.
        return Ok((upstream, retries.await));
    }
}

/// Delivers a call to this endpoint only. `send_anyway` ignores an open circuit.
pub(super) async fn deliver_to(
    worker: &WorkerDelivery,
    upstream: &Upstream,
    send_anyway: bool,
    call: &PlannedCall<'_>,
) -> AttemptOutcome {
    let (health, class) = (upstream.endpoint().health(), CallClass::new(call.operation.class().index()));
    let permit = health.try_acquire(class).or_else(|| send_anyway.then(|| health.acquire_anyway(class)));
    let Some(permit) = permit else {
        let err = DeliveryError::CircuitsOpen { retry_after: health.time_until_trial(class) };
        return AttemptOutcome::unsent(Fault::Endpoint, err);
    };
    let retries = {
        upstream.budget().deposit();
        call.state.begin_attempt(upstream);
        step!(call.state, "attempt", endpoint = &**upstream.name());
        let outcome = attempt(worker, upstream, call, 0).await;
        call.state.end_attempt(upstream, &outcome);
        log_end(call.state, upstream, &outcome);
        match decide(worker, call.operation, outcome.report(permit)) {
            RetryDecision::Final => return outcome,
            decision @ (RetryDecision::NotSafe | RetryDecision::Retry) => {
                Box::pin(retry_at(worker, upstream, call, outcome, decision))
            }
        }
    };
    retries.await
}

/// Logs how an attempt ended, if the steps of the call are logged.
fn log_end(state: &CallState, upstream: &Upstream, outcome: &AttemptOutcome) {
    step!(state, "attempt ended", outcome = %Leg::of(upstream.name(), Some(outcome)), sent = ?outcome.ending.sent, fault = ?outcome.ending.fault);
}

fn decide(worker: &WorkerDelivery, operation: Operation, ending: Ending) -> RetryDecision {
    retry::decide(operation, ending, worker.settings.retry.messages)
}

/// Retries at one endpoint after a pause, within the number of attempts, the endpoint's budget and the request's
/// deadline. Callers box it: it is rare, and locals held across an await enlarge every request's future.
///
/// Returns the outcome of the last attempt, or of an earlier one of which the endpoint may have received more.
async fn retry_at(
    worker: &WorkerDelivery,
    upstream: &Upstream,
    call: &PlannedCall<'_>,
    first: AttemptOutcome,
    first_decision: RetryDecision,
) -> AttemptOutcome {
    let label = upstream.label();
    let class = CallClass::new(call.operation.class().index());
    let (mut latest, mut decision) = (first.ending, first_decision);
    let mut retry_after = first.retry_after();
    let mut outcome = first;
    let mut attempts = 0;
    loop {
        step!(call.state, "retry decision", endpoint = &**upstream.name(), ?decision);
        match decision {
            RetryDecision::Final => return outcome,
            RetryDecision::NotSafe => {
                worker.metrics.retry(label, RetryOutcome::NotSafe);
                return outcome;
            }
            RetryDecision::Retry => attempts += 1,
        }
        match pause(worker, upstream, attempts, latest, retry_after, call.state) {
            Ok(pause) => {
                tokio::time::sleep(pause).await;
                call.state.add_wait(pause);
            }
            Err(denied) => {
                step!(call.state, "no retry", reason = denied.map_or("attempts", RetryOutcome::label));
                if let Some(denied) = denied {
                    worker.metrics.retry(label, denied);
                }
                return outcome;
            }
        }
        let Some(permit) = upstream.endpoint().health().try_acquire(class) else { return outcome };
        worker.metrics.retry(label, RetryOutcome::Retried);
        call.state.begin_attempt(upstream);
        step!(call.state, "attempt", endpoint = &**upstream.name(), retry = attempts);
        let repeated = attempt(worker, upstream, call, 0).await;
        call.state.end_attempt(upstream, &repeated);
        log_end(call.state, upstream, &repeated);
        latest = repeated.report(permit);
        decision = decide(worker, call.operation, latest);
        retry_after = repeated.retry_after();
        let replaced =
            if repeated.replaces(outcome.ending) { std::mem::replace(&mut outcome, repeated) } else { repeated };
        call.state.add_failed_attempt(upstream.name(), &replaced);
        replaced.discard();
    }
}

/// Returns the pause before the next attempt, or why there is none: the metric label, or `None` if the attempts are
/// used up.
fn pause(
    worker: &WorkerDelivery,
    upstream: &Upstream,
    attempts: u32,
    latest: Ending,
    retry_after: Option<Duration>,
    state: &CallState,
) -> Result<Duration, Option<RetryOutcome>> {
    if attempts >= worker.settings.retry.attempts {
        return Err(None);
    }
    let pause = retry_after.unwrap_or_else(|| retry::backoff(attempts));
    if state.remaining() <= pause {
        return Err(Some(RetryOutcome::Deadline));
    }
    let is_within_budget = !latest.costs_budget() || upstream.budget().withdraw();
    if is_within_budget { Ok(pause) } else { Err(Some(RetryOutcome::Budget)) }
}

fn circuits_open(worker: &WorkerDelivery, choice: &Choice<'_>, operation: Operation) -> DeliveryError {
    let class = CallClass::new(operation.class().index());
    let endpoints = choice.endpoint_indexes().filter_map(|index| worker.endpoint(index));
    let soonest = endpoints.map(|endpoint| endpoint.health().time_until_trial(class)).min();
    DeliveryError::CircuitsOpen { retry_after: soonest.unwrap_or_default() }
}

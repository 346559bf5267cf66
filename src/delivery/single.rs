//! A call that one endpoint of its route answers: which endpoint is tried next, and what is retried.

use std::time::Duration;

use http::Response;

use super::attempt::try_endpoint;
use super::body::Answer;
use super::call::{CallState, PlannedCall};
use super::candidates::Candidates;
use super::error::DeliveryError;
use super::outcome::{AttemptOutcome, Ending, Fault, Sent};
use super::retry::{self, Verdict};
use super::upstream::Upstream;
use super::worker::WorkerDelivery;
use crate::endpoint::CallClass;
use crate::metrics::RetryOutcome;
use crate::route::Choice;
use crate::signalr::Operation;

/// Gets an answer from one of a route's endpoints. Returns that endpoint, too. While nothing was sent, the next
/// endpoint is tried at once.
pub(super) async fn deliver<'a>(
    worker: &'a WorkerDelivery,
    choice: &'a Choice<'a>,
    call: &PlannedCall<'_>,
) -> Result<(&'a Upstream, Response<Answer>), DeliveryError> {
    let mut candidates = Candidates::new(&worker.upstreams, choice, call.operation);
    let Some(mut candidate) = candidates.next() else { return Err(all_are_out(worker, choice, call.operation)) };
    loop {
        let (upstream, permit) = candidate;
        call.state.tries_endpoint(&upstream.name);
        let persistent = {
            upstream.budget.pay_in();
            let outcome = try_endpoint(worker, upstream, call, candidates.left()).await;
            let ending = outcome.report(permit);
            if ending.moves_on()
                && !call.state.remaining().is_zero()
                && let Some(elsewhere) = candidates.next()
            {
                candidate = elsewhere;
                continue;
            }
            match judge(worker, call.operation, ending) {
                Verdict::Final => return outcome.result.map(|response| (upstream, response)),
                Verdict::NotSafe | Verdict::Again => Box::pin(persist(worker, upstream, call, outcome)),
            }
        };
        // Outside of the block, where the first outcome is no longer kept.
        return persistent.await.result.map(|response| (upstream, response));
    }
}

/// Gets an answer from one endpoint and no other; `anyway` says whether it is tried though it is out.
pub(super) async fn deliver_to(
    worker: &WorkerDelivery,
    upstream: &Upstream,
    anyway: bool,
    call: &PlannedCall<'_>,
) -> AttemptOutcome {
    let (health, class) = (upstream.endpoint().health(), CallClass::new(call.operation.class().index()));
    let permit = health.enter(class).or_else(|| anyway.then(|| health.enter_anyway(class)));
    let Some(permit) = permit else {
        return AttemptOutcome::unsent(
            Fault::Endpoint,
            DeliveryError::CircuitsOpen { retry_after: health.out_for(class) },
        );
    };
    let persistent = {
        upstream.budget.pay_in();
        let outcome = try_endpoint(worker, upstream, call, 0).await;
        match judge(worker, call.operation, outcome.report(permit)) {
            Verdict::Final => return outcome,
            Verdict::NotSafe | Verdict::Again => Box::pin(persist(worker, upstream, call, outcome)),
        }
    };
    persistent.await
}

fn judge(worker: &WorkerDelivery, operation: Operation, ending: Ending) -> Verdict {
    retry::judge(operation, ending, worker.settings.retry.messages)
}

/// Repeats an attempt at one endpoint after a pause, where that is safe and worth it: within the number of attempts,
/// the endpoint's budget and the request's time. It is awaited in a box: it is rare, and every request's future would have
/// room for it.
///
/// The outcome is that of the latest attempt, unless the endpoint may have received more in an earlier one.
async fn persist(
    worker: &WorkerDelivery,
    upstream: &Upstream,
    call: &PlannedCall<'_>,
    first: AttemptOutcome,
) -> AttemptOutcome {
    let (index, state) = (upstream.index, call.state);
    let class = CallClass::new(call.operation.class().index());
    let mut latest = first.ending;
    let mut asked_for = first.retry_after();
    let mut outcome = first;
    let mut attempts = 0;
    loop {
        match judge(worker, call.operation, latest) {
            Verdict::Final => return outcome,
            Verdict::NotSafe => {
                worker.metrics.retry(index, RetryOutcome::NotSafe);
                return outcome;
            }
            Verdict::Again => attempts += 1,
        }
        match may_repeat(worker, upstream, attempts, latest, asked_for, state) {
            Ok(pause) => {
                tokio::time::sleep(pause).await;
                state.add_wait(pause);
            }
            Err(denied) => {
                if let Some(denied) = denied {
                    worker.metrics.retry(index, denied);
                }
                return outcome;
            }
        }
        let Some(permit) = upstream.endpoint().health().enter(class) else { return outcome };
        worker.metrics.retry(index, RetryOutcome::Retried);
        let repeat = try_endpoint(worker, upstream, call, 0).await;
        latest = repeat.report(permit);
        asked_for = repeat.retry_after();
        // A body that broke off was not whole in any attempt.
        let broke_off = matches!(repeat.result, Err(DeliveryError::BodyBroken | DeliveryError::BodyTooLarge { .. }));
        if repeat.ending.sent >= outcome.ending.sent || broke_off {
            std::mem::replace(&mut outcome, repeat).discard();
        } else {
            repeat.discard();
        }
    }
}

/// Returns the pause before the next attempt, or why there is none; `None` where nothing was decided, since the number
/// of attempts is at its end.
fn may_repeat(
    worker: &WorkerDelivery,
    upstream: &Upstream,
    attempts: u32,
    latest: Ending,
    asked_for: Option<Duration>,
    state: &CallState,
) -> Result<Duration, Option<RetryOutcome>> {
    if attempts >= worker.settings.retry.attempts {
        return Err(None);
    }
    let pause = asked_for.unwrap_or_else(|| retry::pause(attempts));
    if state.remaining() <= pause {
        return Err(Some(RetryOutcome::Deadline));
    }
    let is_paid = latest.sent == Sent::Nothing || upstream.budget.take();
    if is_paid { Ok(pause) } else { Err(Some(RetryOutcome::Budget)) }
}

fn all_are_out(worker: &WorkerDelivery, choice: &Choice<'_>, operation: Operation) -> DeliveryError {
    let class = CallClass::new(operation.class().index());
    let upstreams = choice.endpoint_indexes().filter_map(|index| worker.upstreams.get(index));
    let soonest = upstreams.map(|upstream| upstream.endpoint().health().out_for(class)).min();
    DeliveryError::CircuitsOpen { retry_after: soonest.unwrap_or_default() }
}

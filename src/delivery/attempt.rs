//! One attempt at one endpoint: its permit, its token, the request, and the request once more with another token if the first
//! was refused.

use std::time::{Duration, Instant};

use http::{Response, StatusCode};

use super::body::Answer;
use super::call::{CallState, PlannedCall};
use super::error::DeliveryError;
use super::forward::{self, AttemptTime, Failure};
use super::outcome::{AttemptOutcome, Fault, Sent};
use super::upstream::Upstream;
use super::worker::WorkerDelivery;
use crate::credential::{Bearer, RequestUrl, in_one_line};
use crate::endpoint::Endpoint;
use crate::limits::{ConcurrencyPermit, Queued};
use crate::metrics::{RetryOutcome, UnauthorizedAction, UpstreamRecord};

/// An attempt whose answer is there, with the bearer that it carried.
struct Answered {
    response: Response<Answer>,
    bearer: Bearer,
    ended: Instant,
}

impl Answered {
    fn outcome(self, call: &PlannedCall<'_>) -> AttemptOutcome {
        let mut outcome = AttemptOutcome::answered(call.operation, self.response, self.ended);
        // An endpoint that does not wait any longer for the rest of an upload does not wait for itself.
        if outcome.ending.status == Some(StatusCode::REQUEST_TIMEOUT) && call.body.is_waiting_for_caller() {
            outcome.ending.fault = Fault::Caller;
        }
        outcome
    }
}

/// Sends a request to one endpoint: once, and once more with another token if the first was refused (401). A
/// refused request was not processed, so sending it again cannot double it. `others` is how many endpoints may be tried
/// after this one.
pub(super) async fn try_endpoint(
    worker: &WorkerDelivery,
    upstream: &Upstream,
    call: &PlannedCall<'_>,
    others: usize,
) -> AttemptOutcome {
    // Kept until the head of the answer is there.
    let _permit = match endpoint_permit(worker, upstream, call.state).await {
        Ok(permit) => permit,
        Err(full) => return AttemptOutcome::unsent(Fault::Gateway, full),
    };
    let refused = {
        let answered = match try_once(worker, upstream, call, others).await {
            Ok(answered) => answered,
            Err(outcome) => return *outcome,
        };
        match answered.response.status() {
            StatusCode::UNAUTHORIZED => Box::pin(try_with_another(worker, upstream, call, answered)),
            status => {
                if status == StatusCode::FORBIDDEN {
                    worker.metrics.unauthorized(upstream.index, status.as_u16(), UnauthorizedAction::Kept);
                }
                return answered.outcome(call);
            }
        }
    };
    refused.await
}

/// Gets an attempt the permit of its endpoint, if the endpoint has a concurrency limit.
async fn endpoint_permit(
    worker: &WorkerDelivery,
    upstream: &Upstream,
    state: &CallState,
) -> Result<Option<ConcurrencyPermit>, DeliveryError> {
    let Some(limit) = &upstream.limit else { return Ok(None) };
    if let Some(permit) = limit.try_acquire() {
        return Ok(Some(permit));
    }
    // Boxed because it is rare: locals held across an await enlarge every request's future.
    let queued = Box::pin(limit.acquire(worker.settings.queue, state.deadline())).await;
    state.add_wait(queued.waited);
    worker.metrics.queued_at_endpoint(upstream.index, queued.outcome);
    queued.permit.map(Some).ok_or(DeliveryError::Overload { retry_after: Queued::RETRY_AFTER })
}

/// Gets another token in place of the one that was refused, and sends the request with it. Without one, the refusal is
/// the answer.
async fn try_with_another(
    worker: &WorkerDelivery,
    upstream: &Upstream,
    call: &PlannedCall<'_>,
    refusal: Answered,
) -> AttemptOutcome {
    let index = upstream.index;
    let count = |status: StatusCode, action| worker.metrics.unauthorized(index, status.as_u16(), action);
    let status = refusal.response.status();
    if !replace(upstream.endpoint(), &refusal.bearer, call.state).await {
        count(status, UnauthorizedAction::Kept);
        return refusal.outcome(call);
    }
    count(status, UnauthorizedAction::Replaced);
    worker.metrics.retry(index, RetryOutcome::Retried);
    refusal.response.into_body().discard();
    match try_once(worker, upstream, call, 0).await {
        Ok(answered) => {
            if matches!(answered.response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                count(answered.response.status(), UnauthorizedAction::Kept);
            }
            answered.outcome(call)
        }
        Err(outcome) => outcome.after(Sent::NotProcessed),
    }
}

/// Sends a request to one endpoint, with the token that is in service. What did not get an answer is in a box: it is rare.
async fn try_once(
    worker: &WorkerDelivery,
    upstream: &Upstream,
    call: &PlannedCall<'_>,
    others: usize,
) -> Result<Answered, Box<AttemptOutcome>> {
    let endpoint = upstream.endpoint();
    let url = RequestUrl { origin: endpoint.origin(), path: call.uri.path() };
    let bearer = match endpoint.bearer().ready(url) {
        Some(bearer) => bearer,
        None => Box::pin(wait_for_bearer(worker, endpoint, url, call.state, others))
            .await
            .map_err(|err| Box::new(AttemptOutcome::unsent(Fault::Token, err)))?,
    };
    let began = Instant::now();
    let request = call.state.deadline();
    may_send(worker, call, &bearer, request.remaining(began))?;
    let time = AttemptTime { began, limit: worker.settings.try_timeout, request };
    let result = forward::send(&upstream.pool, call, &bearer, &worker.timer, &time).await;
    let ended = Instant::now();
    let duration = ended.saturating_duration_since(began);
    call.state.add_wait(duration);
    let response = result.map_err(|failure| explain(worker, upstream.index, call, failure, &time))?;
    worker.metrics.upstream_answered(UpstreamRecord {
        endpoint: upstream.index,
        operation: call.operation.index(),
        code: response.status().as_u16(),
        duration,
    });
    Ok(Answered { response, bearer, ended })
}

/// Returns a bearer for an endpoint that has none ready. Where `others` may be tried after it, it is waited for a share of
/// the request's time alone, so that there is time for them.
async fn wait_for_bearer(
    worker: &WorkerDelivery,
    endpoint: &Endpoint,
    url: RequestUrl<'_>,
    state: &CallState,
    others: usize,
) -> Result<Bearer, DeliveryError> {
    let source = endpoint.bearer();
    let began = Instant::now();
    let remaining = state.deadline().remaining(began);
    let time = match u32::try_from(others) {
        Ok(0) => remaining,
        others => (remaining / others.unwrap_or(u32::MAX).saturating_add(1)).min(worker.settings.try_timeout),
    };
    let acquired = tokio::time::timeout(time, source.acquire()).await;
    state.add_wait(began.elapsed());
    worker.metrics.token_waited(began.elapsed());
    match acquired {
        Ok(Ok(())) => source.ready(url).ok_or_else(|| DeliveryError::TokenUnavailable(None)),
        Ok(Err(unavailable)) => Err(DeliveryError::TokenUnavailable(Some(unavailable))),
        Err(_late) => Err(DeliveryError::TokenUnavailable(None)),
    }
}

/// Checks that a request may be sent with the bearer that it would carry.
fn may_send(
    worker: &WorkerDelivery,
    call: &PlannedCall<'_>,
    bearer: &Bearer,
    left: Duration,
) -> Result<(), Box<AttemptOutcome>> {
    if let Err(err) = fits(worker, call, bearer).and_then(|()| call.body.can_be_sent()) {
        return Err(Box::new(AttemptOutcome::unsent(fault_of_body(&err), err)));
    }
    if left.is_zero() {
        let err = DeliveryError::EndpointUnavailable("the request's time was over before it could be sent".into());
        return Err(Box::new(AttemptOutcome::unsent(Fault::Nobody, err)));
    }
    Ok(())
}

/// Holds the head against the limit once more, now with the bearer: the endpoint would refuse it.
fn fits(worker: &WorkerDelivery, call: &PlannedCall<'_>, bearer: &Bearer) -> Result<(), DeliveryError> {
    let (size, limit) = (call.head().bytes() + bearer.header().len(), worker.settings.max_header_bytes);
    if size > limit { Err(DeliveryError::HeadersTooLarge { size, limit }) } else { Ok(()) }
}

/// Gets another token in place of one that was refused. Returns whether there is one.
async fn replace(endpoint: &Endpoint, refused: &Bearer, state: &CallState) -> bool {
    let began = Instant::now();
    let time = state.remaining();
    let replaced = tokio::time::timeout(time, endpoint.bearer().replace(refused.fingerprint())).await;
    state.add_wait(began.elapsed());
    match replaced {
        Ok(Ok(())) => true,
        Ok(Err(unavailable)) => {
            tracing::debug!(
                endpoint = %endpoint.name(),
                token = %refused.fingerprint(),
                cause = in_one_line(&unavailable),
                "an endpoint refused the token and there is no other"
            );
            false
        }
        Err(_late) => false,
    }
}

/// Turns a failed attempt into its outcome, and counts it.
#[cold]
fn explain(
    worker: &WorkerDelivery,
    index: usize,
    call: &PlannedCall<'_>,
    failure: Failure,
    time: &AttemptTime,
) -> Box<AttemptOutcome> {
    let is_late = matches!(failure, Failure::Deadline { sent: true, .. });
    let fault_of_request = match call.body.failure() {
        None if is_late && call.body.is_waiting_for_caller() => Some(DeliveryError::SlowRequest),
        failure => failure,
    };
    if let Some(err) = fault_of_request {
        // The endpoint may have received a part of it, and cannot take that for the whole.
        return Box::new(AttemptOutcome::failed(Sent::NotProcessed, fault_of_body(&err), err));
    }
    worker.metrics.upstream_failed(index, failure.reason(time));
    let (sent, mut fault, err) = failure.explained(call.operation, time);
    if sent == Sent::Perhaps && call.body.is_waiting_for_caller() {
        // It may have waited for the rest of the upload for too long.
        fault = Fault::Nobody;
    }
    Box::new(AttemptOutcome::failed(sent, fault, err))
}

/// Returns whose fault it is that a request cannot be sent whole: the caller's, unless there was no memory to keep it.
fn fault_of_body(err: &DeliveryError) -> Fault {
    if matches!(err, DeliveryError::Overload { .. }) { Fault::Gateway } else { Fault::Caller }
}

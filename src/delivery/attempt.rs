//! One attempt at one endpoint: its permit, its token, the request, and the request once more with another token if the
//! endpoint rejects the first (401).

use std::time::{Duration, Instant};

use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};

use super::body::{BodyFailure, UpstreamBody};
use super::call::{CallState, PlannedCall};
use super::error::DeliveryError;
use super::forward::{self, AttemptTime, Failure};
use super::outcome::{AttemptOutcome, ERROR_CODE, Fault, Sent, is_transient};
use super::steps::step;
use super::upstream::Upstream;
use super::worker::WorkerDelivery;
use crate::credential::{Bearer, RequestUrl};
use crate::endpoint::{Endpoint, ErrorResponse, FailureCause, FailureKind, transport_failure};
use crate::limits::{ConcurrencyPermit, Queued, RateExceeded};
use crate::metrics::{RetryOutcome, UnauthorizedAction, UpstreamErrorReason, UpstreamResponse};
use crate::redact::in_one_line;
use crate::signalr::Operation;

/// A response, and the bearer that its request carried.
struct AuthorizedResponse {
    response: Response<UpstreamBody>,
    bearer: Bearer,
    ended: Instant,
}

impl AuthorizedResponse {
    fn outcome(self, call: &PlannedCall<'_>) -> AttemptOutcome {
        let waits_for_caller = call.body.is_waiting_for_caller();
        AttemptOutcome::responded(call.operation, self.response, self.ended, waits_for_caller)
    }
}

/// Sends a request to one endpoint, and once more with another token if the endpoint responds 401. Such a request was
/// not processed, so it cannot take effect twice. `others` is the number of endpoints that may be tried afterwards.
pub(super) async fn attempt(
    worker: &WorkerDelivery,
    upstream: &Upstream,
    call: &PlannedCall<'_>,
    others: usize,
) -> AttemptOutcome {
    if let Some(rate) = &upstream.rate
        && let Err(exceeded) = rate.check()
    {
        return rate_limited(worker, upstream, exceeded);
    }
    // Held until the head of the response arrives.
    let _permit = match endpoint_permit(worker, upstream, call.state).await {
        Ok(permit) => permit,
        Err(full) => return AttemptOutcome::unsent(Fault::Gateway, full),
    };
    let resend = {
        let received = match send_once(worker, upstream, call, others).await {
            Ok(received) => received,
            Err(outcome) => return *outcome,
        };
        match received.response.status() {
            StatusCode::UNAUTHORIZED => Box::pin(send_with_another_token(worker, upstream, call, received)),
            status => {
                if status.is_client_error() || status.is_server_error() {
                    note_error(worker, upstream, call.operation, &received.response);
                }
                if call.operation == Operation::AccessKey {
                    record_access_key(upstream, &received.response);
                }
                return received.outcome(call);
            }
        }
    };
    resend.await
}

/// Returns whether a response concerns the token or its roles, and not the target of the call.
fn is_unauthorized(response: &Response<UpstreamBody>) -> bool {
    match response.status() {
        StatusCode::UNAUTHORIZED => true,
        StatusCode::FORBIDDEN => !response.headers().contains_key(ERROR_CODE),
        _ => false,
    }
}

/// Counts a response that refuses the token, and keeps why the endpoint refused it or failed.
#[cold]
fn note_error(worker: &WorkerDelivery, upstream: &Upstream, operation: Operation, response: &Response<UpstreamBody>) {
    let (status, history) = (response.status(), upstream.endpoint().health().history());
    let kind = FailureKind::Response(status);
    let cause = || FailureCause::Response(ErrorResponse::of(response, true));
    if is_unauthorized(response) {
        worker.metrics.unauthorized(upstream.label(), status.as_u16(), UnauthorizedAction::Kept);
        // A role may allow everything but `access_key`.
        if operation == Operation::AccessKey && status == StatusCode::FORBIDDEN {
            history.note_failure(kind, cause);
        } else {
            history.note_refused_token(kind, cause, || upstream.endpoint().bearer().claims());
        }
    } else if is_transient(status) {
        history.note_failure(kind, cause);
    }
}

/// Records whether the endpoint refused `access_key` for want of a role. Network rules deny with an HTML page, as in
/// [`crate::diagnosis`].
#[cold]
fn record_access_key(upstream: &Upstream, response: &Response<UpstreamBody>) {
    let is_page = || {
        let content_type = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes);
        content_type.is_some_and(|content_type| content_type.starts_with(b"text/html"))
    };
    let is_refused = response.status() == StatusCode::FORBIDDEN && !is_page();
    if is_refused || response.status().is_success() {
        upstream.endpoint().health().history().set_refuses_access_key(is_refused);
    }
}

/// Returns the outcome of an attempt beyond the rate of its endpoint. The next endpoint of the route may take the call.
#[cold]
fn rate_limited(worker: &WorkerDelivery, upstream: &Upstream, exceeded: RateExceeded) -> AttemptOutcome {
    worker.metrics.rate_limited_at_endpoint(upstream.label());
    let RateExceeded { retry_after } = exceeded;
    AttemptOutcome::unsent(Fault::Gateway, DeliveryError::RateLimited { retry_after })
}

/// Returns the permit of the endpoint's concurrency limit, if it has one.
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
    worker.metrics.queued_at_endpoint(upstream.label(), queued.outcome);
    queued.permit.map(Some).ok_or(DeliveryError::Overload { retry_after: Queued::RETRY_AFTER })
}

/// Replaces the rejected token and sends the request with the new one. The 401 is the response if there is no other
/// token.
async fn send_with_another_token(
    worker: &WorkerDelivery,
    upstream: &Upstream,
    call: &PlannedCall<'_>,
    unauthorized: AuthorizedResponse,
) -> AttemptOutcome {
    let label = upstream.label();
    if !replace_token(upstream.endpoint(), &unauthorized.bearer, call.state).await {
        note_error(worker, upstream, call.operation, &unauthorized.response);
        return unauthorized.outcome(call);
    }
    let status = unauthorized.response.status().as_u16();
    worker.metrics.unauthorized(label, status, UnauthorizedAction::Replaced);
    worker.metrics.retry(label, RetryOutcome::Retried);
    unauthorized.response.into_body().discard();
    match send_once(worker, upstream, call, 0).await {
        Ok(received) => {
            note_error(worker, upstream, call.operation, &received.response);
            received.outcome(call)
        }
        Err(outcome) => outcome.after(Sent::NotProcessed),
    }
}

/// Sends a request to one endpoint with the current token. An outcome without a response is boxed: it is rare, and
/// would enlarge every request's future.
async fn send_once(
    worker: &WorkerDelivery,
    upstream: &Upstream,
    call: &PlannedCall<'_>,
    others: usize,
) -> Result<AuthorizedResponse, Box<AttemptOutcome>> {
    let endpoint = upstream.endpoint();
    let url = RequestUrl { origin: endpoint.origin(), path: call.uri().path() };
    let bearer = match endpoint.bearer().current(url) {
        Some(bearer) => bearer,
        None => Box::pin(wait_for_bearer(worker, endpoint, url, call.state, others))
            .await
            .map_err(|err| Box::new(AttemptOutcome::unsent(Fault::Token, err)))?,
    };
    let began = Instant::now();
    let request = call.state.deadline();
    check_sendable(worker, call, &bearer, request.remaining(began))?;
    let time = AttemptTime { began, limit: worker.settings.try_timeout, request };
    let result = forward::send(upstream.pool(), call, &bearer, &worker.timer, &time).await;
    let ended = Instant::now();
    let duration = ended.saturating_duration_since(time.began);
    call.state.add_upstream(duration);
    let response = result.map_err(|failure| failed(worker, upstream, call, failure, &time))?;
    worker.metrics.upstream_responded(&UpstreamResponse {
        endpoint: upstream.label(),
        operation: call.operation.index(),
        code: response.status().as_u16(),
        duration,
        delivered: (call.operation.is_message() && response.status().is_success()).then(|| call.body.sent()),
        trace: call.state.recorded_trace(),
    });
    Ok(AuthorizedResponse { response, bearer, ended })
}

/// Waits until an endpoint has a bearer. With `others` to try afterwards, it waits for a share of the request's time
/// only.
async fn wait_for_bearer(
    worker: &WorkerDelivery,
    endpoint: &Endpoint,
    url: RequestUrl<'_>,
    state: &CallState,
    others: usize,
) -> Result<Bearer, DeliveryError> {
    let source = endpoint.bearer();
    let began = Instant::now();
    step!(state, "waiting for a token", endpoint = endpoint.name().as_str());
    let remaining = state.deadline().remaining(began);
    let time = match u32::try_from(others) {
        Ok(0) => remaining,
        others => (remaining / others.unwrap_or(u32::MAX).saturating_add(1)).min(worker.settings.try_timeout),
    };
    let acquired = tokio::time::timeout(time, source.acquire()).await;
    state.add_wait(began.elapsed());
    worker.metrics.token_waited(began.elapsed());
    step!(state, "token wait ended", endpoint = endpoint.name().as_str(), obtained = matches!(acquired, Ok(Ok(()))));
    match acquired {
        Ok(Ok(())) => source.current(url).ok_or_else(|| DeliveryError::TokenUnavailable(None)),
        Ok(Err(unavailable)) => Err(DeliveryError::TokenUnavailable(Some(unavailable))),
        Err(_late) => Err(DeliveryError::TokenUnavailable(None)),
    }
}

/// Checks that a request can be sent with this bearer: its head is small enough, its body complete and its deadline not
/// passed.
fn check_sendable(
    worker: &WorkerDelivery,
    call: &PlannedCall<'_>,
    bearer: &Bearer,
    left: Duration,
) -> Result<(), Box<AttemptOutcome>> {
    // The proxy checked the head without the bearer. The endpoint's own limit includes it.
    let (size, limit) = (call.head().bytes() + bearer.header().len(), worker.settings.max_header_bytes);
    if size > limit {
        return Err(unsent(Fault::Caller, DeliveryError::HeadersTooLarge { size, limit }));
    }
    call.body.check_sendable().map_err(|failure: BodyFailure| unsent(failure.into(), failure.into()))?;
    if left.is_zero() {
        let err = DeliveryError::EndpointUnavailable("the request's deadline passed before it could be sent".into());
        return Err(unsent(Fault::NoneKnown, err));
    }
    Ok(())
}

#[cold]
fn unsent(fault: Fault, err: DeliveryError) -> Box<AttemptOutcome> {
    Box::new(AttemptOutcome::unsent(fault, err))
}

/// Gets a new token in place of a rejected one. Returns whether there is one.
async fn replace_token(endpoint: &Endpoint, rejected: &Bearer, state: &CallState) -> bool {
    let began = Instant::now();
    let time = state.remaining();
    let replaced = tokio::time::timeout(time, endpoint.bearer().replace(rejected.fingerprint())).await;
    state.add_wait(began.elapsed());
    match replaced {
        Ok(Ok(())) => true,
        Ok(Err(unavailable)) => {
            tracing::debug!(
                endpoint = %endpoint.name(),
                token = %rejected.fingerprint(),
                cause = in_one_line(&unavailable),
                "an endpoint rejected the token and there is no other"
            );
            false
        }
        Err(_late) => false,
    }
}

/// Returns the outcome of an attempt without a response, and counts it.
#[cold]
fn failed(
    worker: &WorkerDelivery,
    upstream: &Upstream,
    call: &PlannedCall<'_>,
    failure: Failure,
    time: &AttemptTime,
) -> Box<AttemptOutcome> {
    let (outcome, reason) = failure.or_resolving(upstream.endpoint()).outcome(call.operation, call.body, time);
    if let Some(reason) = reason {
        worker.metrics.upstream_failed(upstream.label(), reason);
        if let Some(trace) = call.state.trace() {
            trace.set_reason(upstream.name(), reason.label());
        }
        note_failure(upstream, &outcome, reason);
    }
    Box::new(outcome)
}

/// Keeps why an attempt got no response, if the endpoint is at fault or its response cannot be read.
fn note_failure(upstream: &Upstream, outcome: &AttemptOutcome, reason: UpstreamErrorReason) {
    let is_endpoints = outcome.ending.fault == Fault::Endpoint || reason == UpstreamErrorReason::Protocol;
    let (true, Err(err)) = (is_endpoints, &outcome.result) else { return };
    let cause = || {
        // The error's own text is for callers, and its source has the cause.
        let err: &(dyn std::error::Error + 'static) = err;
        transport_failure(reason, err.source().unwrap_or(err))
    };
    upstream.endpoint().health().history().note_failure(FailureKind::Transport(reason), cause);
}

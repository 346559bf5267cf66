//! From a route to an answer: which endpoint is tried, with which token, and what follows when it fails.
//!
//! What became of an attempt is said by `outcome.rs`, what may be sent again by `retry.rs`, whether an endpoint is worth
//! trying by its health.

use std::time::{Duration, Instant};

use http::{Response, StatusCode};

use super::body::Answer;
use super::candidates::Candidates;
use super::exchange::Exchange;
use super::forward::{self, AttemptTime, Failure, Outgoing};
use super::outcome::{AttemptOutcome, Ending, Fault, Sent};
use super::retry::{self, Verdict};
use super::upstream::Upstream;
use super::{Proxy, ProxyError};
use crate::credential::{Bearer, RequestUrl, in_one_line};
use crate::endpoint::{CallClass, Endpoint};
use crate::limits::{ConcurrencyPermit, Queued};
use crate::metrics::{RetryOutcome, UnauthorizedAction, UpstreamRecord};
use crate::route::Choice;
use crate::signalr::Operation;

/// An attempt whose answer is there, with the bearer that it carried.
struct Answered {
    response: Response<Answer>,
    bearer: Bearer,
    ended: Instant,
}

impl Answered {
    fn outcome(self, outgoing: &Outgoing<'_>) -> AttemptOutcome {
        let mut outcome = AttemptOutcome::answered(outgoing.operation, self.response, self.ended);
        // An endpoint that does not wait any longer for the rest of an upload does not wait for itself.
        if outcome.ending.status == Some(StatusCode::REQUEST_TIMEOUT) && outgoing.body.is_waiting_for_caller() {
            outcome.ending.fault = Fault::Caller;
        }
        outcome
    }
}

impl Proxy {
    /// Gets an answer from one of a route's endpoints. Returns that endpoint, too. While nothing was sent, the next
    /// endpoint is tried at once.
    pub(super) async fn deliver<'a>(
        &'a self,
        choice: &'a Choice<'a>,
        outgoing: &Outgoing<'_>,
    ) -> Result<(&'a Upstream, Response<Answer>), ProxyError> {
        let mut candidates = Candidates::new(self, choice, outgoing.operation);
        let Some(mut candidate) = candidates.next() else { return Err(self.all_are_out(choice, outgoing.operation)) };
        loop {
            let (upstream, permit) = candidate;
            outgoing.exchange.tries_endpoint(&upstream.name);
            let persistent = {
                upstream.budget.pay_in();
                let outcome = self.try_endpoint(upstream, outgoing, candidates.left()).await;
                let ending = outcome.report(permit);
                if ending.moves_on()
                    && !outgoing.exchange.remaining().is_zero()
                    && let Some(elsewhere) = candidates.next()
                {
                    candidate = elsewhere;
                    continue;
                }
                match self.judge(outgoing.operation, ending) {
                    Verdict::Final => return outcome.result.map(|response| (upstream, response)),
                    Verdict::NotSafe | Verdict::Again => Box::pin(self.persist(upstream, outgoing, outcome)),
                }
            };
            // Outside of the block, where the first outcome is no longer kept.
            return persistent.await.result.map(|response| (upstream, response));
        }
    }

    /// Gets an answer from one endpoint and no other; `anyway` says whether it is tried though it is out.
    pub(super) async fn deliver_to(
        &self,
        upstream: &Upstream,
        anyway: bool,
        outgoing: &Outgoing<'_>,
    ) -> AttemptOutcome {
        let (health, class) = (upstream.endpoint().health(), CallClass::new(outgoing.operation.class().index()));
        let permit = health.enter(class).or_else(|| anyway.then(|| health.enter_anyway(class)));
        let Some(permit) = permit else {
            return AttemptOutcome::unsent(Fault::Endpoint, ProxyError::AllOut { retry_after: health.out_for(class) });
        };
        let persistent = {
            upstream.budget.pay_in();
            let outcome = self.try_endpoint(upstream, outgoing, 0).await;
            match self.judge(outgoing.operation, outcome.report(permit)) {
                Verdict::Final => return outcome,
                Verdict::NotSafe | Verdict::Again => Box::pin(self.persist(upstream, outgoing, outcome)),
            }
        };
        persistent.await
    }

    fn judge(&self, operation: Operation, ending: Ending) -> Verdict {
        retry::judge(operation, ending, self.snapshot.settings.retry.messages)
    }

    /// Repeats an attempt at one endpoint after a pause, where that is safe and worth it: within the number of attempts,
    /// the endpoint's budget and the request's time. It is awaited in a box: it is rare, and every request's future would have
    /// room for it.
    ///
    /// The outcome is that of the latest attempt, unless the endpoint may have received more in an earlier one.
    async fn persist(&self, upstream: &Upstream, outgoing: &Outgoing<'_>, first: AttemptOutcome) -> AttemptOutcome {
        let (place, exchange) = (upstream.place, outgoing.exchange);
        let class = CallClass::new(outgoing.operation.class().index());
        let mut latest = first.ending;
        let mut asked_for = first.retry_after();
        let mut outcome = first;
        let mut attempts = 0;
        loop {
            match self.judge(outgoing.operation, latest) {
                Verdict::Final => return outcome,
                Verdict::NotSafe => {
                    self.metrics.retry(place, RetryOutcome::NotSafe);
                    return outcome;
                }
                Verdict::Again => attempts += 1,
            }
            match self.may_repeat(upstream, attempts, latest, asked_for, exchange) {
                Ok(pause) => {
                    tokio::time::sleep(pause).await;
                    exchange.waited(pause);
                }
                Err(denied) => {
                    if let Some(denied) = denied {
                        self.metrics.retry(place, denied);
                    }
                    return outcome;
                }
            }
            let Some(permit) = upstream.endpoint().health().enter(class) else { return outcome };
            self.metrics.retry(place, RetryOutcome::Retried);
            let repeat = self.try_endpoint(upstream, outgoing, 0).await;
            latest = repeat.report(permit);
            asked_for = repeat.retry_after();
            // A body that broke off was not whole in any attempt.
            let broke_off = matches!(repeat.result, Err(ProxyError::BodyBroken | ProxyError::BodyTooLarge { .. }));
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
        &self,
        upstream: &Upstream,
        attempts: u32,
        latest: Ending,
        asked_for: Option<Duration>,
        exchange: &Exchange,
    ) -> Result<Duration, Option<RetryOutcome>> {
        if attempts >= self.snapshot.settings.retry.attempts {
            return Err(None);
        }
        let pause = asked_for.unwrap_or_else(|| retry::pause(attempts));
        if exchange.remaining() <= pause {
            return Err(Some(RetryOutcome::Deadline));
        }
        let is_paid = latest.sent == Sent::Nothing || upstream.budget.take();
        if is_paid { Ok(pause) } else { Err(Some(RetryOutcome::Budget)) }
    }

    fn all_are_out(&self, choice: &Choice<'_>, operation: Operation) -> ProxyError {
        let class = CallClass::new(operation.class().index());
        let upstreams = choice.endpoint_indexes().filter_map(|place| self.upstreams.get(place));
        let soonest = upstreams.map(|upstream| upstream.endpoint().health().out_for(class)).min();
        ProxyError::AllOut { retry_after: soonest.unwrap_or_default() }
    }

    /// Sends a request to one endpoint: once, and once more with another token if the first was refused (401). A
    /// refused request was not processed, so sending it again cannot double it. `others` is how many endpoints may be tried
    /// after this one.
    async fn try_endpoint(&self, upstream: &Upstream, outgoing: &Outgoing<'_>, others: usize) -> AttemptOutcome {
        // Kept until the head of the answer is there.
        let _permit = match self.endpoint_permit(upstream.place, outgoing.exchange).await {
            Ok(permit) => permit,
            Err(full) => return AttemptOutcome::unsent(Fault::Gateway, full),
        };
        let refused = {
            let answered = match self.try_once(upstream, outgoing, others).await {
                Ok(answered) => answered,
                Err(outcome) => return *outcome,
            };
            match answered.response.status() {
                StatusCode::UNAUTHORIZED => Box::pin(self.try_with_another(upstream, outgoing, answered)),
                status => {
                    if status == StatusCode::FORBIDDEN {
                        self.metrics.unauthorized(upstream.place, status.as_u16(), UnauthorizedAction::Kept);
                    }
                    return answered.outcome(outgoing);
                }
            }
        };
        refused.await
    }

    /// Gets an attempt the permit of its endpoint, if the endpoint has a concurrency limit.
    async fn endpoint_permit(
        &self,
        place: usize,
        exchange: &Exchange,
    ) -> Result<Option<ConcurrencyPermit>, ProxyError> {
        let Some(limit) = self.snapshot.limits.of_endpoint(place) else { return Ok(None) };
        if let Some(permit) = limit.try_acquire() {
            return Ok(Some(permit));
        }
        // Boxed because it is rare: locals held across an await enlarge every request's future.
        let queued = Box::pin(limit.acquire(self.snapshot.settings.queue, exchange.deadline())).await;
        exchange.waited(queued.waited);
        self.metrics.queued_at_endpoint(place, queued.outcome);
        queued.permit.map(Some).ok_or(ProxyError::Overload { retry_after: Queued::RETRY_AFTER })
    }

    /// Gets another token in place of the one that was refused, and sends the request with it. Without one, the refusal is
    /// the answer.
    async fn try_with_another(
        &self,
        upstream: &Upstream,
        outgoing: &Outgoing<'_>,
        refusal: Answered,
    ) -> AttemptOutcome {
        let place = upstream.place;
        let count = |status: StatusCode, action| self.metrics.unauthorized(place, status.as_u16(), action);
        let status = refusal.response.status();
        if !self.replace(upstream.endpoint(), &refusal.bearer, outgoing.exchange).await {
            count(status, UnauthorizedAction::Kept);
            return refusal.outcome(outgoing);
        }
        count(status, UnauthorizedAction::Replaced);
        self.metrics.retry(place, RetryOutcome::Retried);
        refusal.response.into_body().discard();
        match self.try_once(upstream, outgoing, 0).await {
            Ok(answered) => {
                if matches!(answered.response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
                    count(answered.response.status(), UnauthorizedAction::Kept);
                }
                answered.outcome(outgoing)
            }
            Err(outcome) => outcome.after(Sent::NotProcessed),
        }
    }

    /// Sends a request to one endpoint, with the token that is in service. What did not get an answer is in a box: it is rare.
    async fn try_once(
        &self,
        upstream: &Upstream,
        outgoing: &Outgoing<'_>,
        others: usize,
    ) -> Result<Answered, Box<AttemptOutcome>> {
        let endpoint = upstream.endpoint();
        let url = RequestUrl { origin: endpoint.origin(), path: outgoing.uri.path() };
        let bearer = match endpoint.bearer().ready(url) {
            Some(bearer) => bearer,
            None => Box::pin(self.wait_for_bearer(endpoint, url, outgoing.exchange, others))
                .await
                .map_err(|err| Box::new(AttemptOutcome::unsent(Fault::Token, err)))?,
        };
        let began = Instant::now();
        let request = outgoing.exchange.deadline();
        self.may_send(outgoing, &bearer, request.remaining(began))?;
        let time = AttemptTime { began, limit: self.snapshot.settings.try_timeout, request };
        let result = forward::send(&upstream.pool, outgoing, &bearer, &self.timer, &time).await;
        let ended = Instant::now();
        let duration = ended.saturating_duration_since(began);
        outgoing.exchange.waited(duration);
        let response = result.map_err(|failure| self.explain(upstream.place, outgoing, failure, &time))?;
        self.metrics.upstream_answered(UpstreamRecord {
            endpoint: upstream.place,
            operation: outgoing.operation.index(),
            code: response.status().as_u16(),
            duration,
        });
        Ok(Answered { response, bearer, ended })
    }

    /// Returns a bearer for an endpoint that has none ready. Where `others` may be tried after it, it is waited for a share of
    /// the request's time alone, so that there is time for them.
    async fn wait_for_bearer(
        &self,
        endpoint: &Endpoint,
        url: RequestUrl<'_>,
        exchange: &Exchange,
        others: usize,
    ) -> Result<Bearer, ProxyError> {
        let source = endpoint.bearer();
        let began = Instant::now();
        let remaining = exchange.deadline().remaining(began);
        let time = match u32::try_from(others) {
            Ok(0) => remaining,
            others => {
                (remaining / others.unwrap_or(u32::MAX).saturating_add(1)).min(self.snapshot.settings.try_timeout)
            }
        };
        let acquired = tokio::time::timeout(time, source.acquire()).await;
        exchange.waited(began.elapsed());
        self.metrics.token_waited(began.elapsed());
        match acquired {
            Ok(Ok(())) => source.ready(url).ok_or_else(|| ProxyError::TokenUnavailable(None)),
            Ok(Err(unavailable)) => Err(ProxyError::TokenUnavailable(Some(unavailable))),
            Err(_late) => Err(ProxyError::TokenUnavailable(None)),
        }
    }

    /// Checks that a request may be sent with the bearer that it would carry.
    fn may_send(&self, outgoing: &Outgoing<'_>, bearer: &Bearer, left: Duration) -> Result<(), Box<AttemptOutcome>> {
        if let Err(err) = self.fits(outgoing, bearer).and_then(|()| outgoing.body.can_be_sent()) {
            return Err(Box::new(AttemptOutcome::unsent(fault_of_body(&err), err)));
        }
        if left.is_zero() {
            let err = ProxyError::EndpointUnavailable("the request's time was over before it could be sent".into());
            return Err(Box::new(AttemptOutcome::unsent(Fault::Nobody, err)));
        }
        Ok(())
    }

    /// Holds the head against the limit once more, now with the bearer: the endpoint would refuse it.
    fn fits(&self, outgoing: &Outgoing<'_>, bearer: &Bearer) -> Result<(), ProxyError> {
        let (size, limit) = (outgoing.head().bytes() + bearer.header().len(), self.snapshot.settings.max_header_bytes);
        if size > limit { Err(ProxyError::HeadersTooLarge { size, limit }) } else { Ok(()) }
    }

    /// Gets another token in place of one that was refused. Returns whether there is one.
    async fn replace(&self, endpoint: &Endpoint, refused: &Bearer, exchange: &Exchange) -> bool {
        let began = Instant::now();
        let time = exchange.remaining();
        let replaced = tokio::time::timeout(time, endpoint.bearer().replace(refused.fingerprint())).await;
        exchange.waited(began.elapsed());
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
        &self,
        place: usize,
        outgoing: &Outgoing<'_>,
        failure: Failure,
        time: &AttemptTime,
    ) -> Box<AttemptOutcome> {
        let is_late = matches!(failure, Failure::Deadline { sent: true, .. });
        let fault_of_request = match outgoing.body.failure() {
            None if is_late && outgoing.body.is_waiting_for_caller() => Some(ProxyError::SlowRequest),
            failure => failure,
        };
        if let Some(err) = fault_of_request {
            // The endpoint may have received a part of it, and cannot take that for the whole.
            return Box::new(AttemptOutcome::failed(Sent::NotProcessed, fault_of_body(&err), err));
        }
        self.metrics.upstream_failed(place, failure.reason(time));
        let (sent, mut fault, err) = failure.explained(outgoing.operation, time);
        if sent == Sent::Perhaps && outgoing.body.is_waiting_for_caller() {
            // It may have waited for the rest of the upload for too long.
            fault = Fault::Nobody;
        }
        Box::new(AttemptOutcome::failed(sent, fault, err))
    }
}

/// Returns whose fault it is that a request cannot be sent whole: the caller's, unless there was no memory to keep it.
fn fault_of_body(err: &ProxyError) -> Fault {
    if matches!(err, ProxyError::Overload { .. }) { Fault::Gateway } else { Fault::Caller }
}

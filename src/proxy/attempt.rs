//! From a route to an answer: which endpoint is tried, with which token, and what follows when it fails.
//!
//! What may be sent again is said by `retry.rs`, whether an endpoint is worth trying by its health.

use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Response, StatusCode};

use super::body::Answer;
use super::candidates::Candidates;
use super::exchange::Exchange;
use super::forward::{self, Failure, Outgoing};
use super::retry::{self, Ending, Verdict};
use super::upstream::Upstream;
use super::{Proxy, ProxyError};
use crate::credential::{Bearer, RequestUrl, in_one_line};
use crate::endpoint::{Endpoint, Permit};
use crate::metrics::{RetryOutcome, UnauthorizedAction, UpstreamRecord};
use crate::route::Choice;
use crate::signalr::Operation;

/// The pause an endpoint gets that answers 429 without saying how long.
const COOL_DOWN: Duration = Duration::from_secs(1);

impl Proxy {
    /// Gets an answer from one of a route's endpoints. Returns that endpoint, too. While nothing was sent, the next
    /// endpoint is tried at once.
    pub(super) async fn deliver<'a>(
        &'a self,
        choice: &'a Choice<'a>,
        outgoing: &Outgoing<'_>,
    ) -> Result<(&'a Upstream, Response<Answer>), ProxyError> {
        let mut candidates = Candidates::new(self, choice, outgoing.operation);
        let Some(mut candidate) = candidates.next() else { return Err(self.all_are_out(choice)) };
        loop {
            let (upstream, permit) = candidate;
            outgoing.exchange.tries_endpoint(&upstream.name);
            let persistent = {
                let result = self.try_endpoint(upstream, outgoing).await;
                let ending = note(permit, &result);
                if matches!(ending, Ending::Unsent | Ending::Full)
                    && let Some(elsewhere) = candidates.next()
                {
                    candidate = elsewhere;
                    continue;
                }
                match self.judge(outgoing.operation, ending) {
                    Verdict::Final => return result.map(|response| (upstream, response)),
                    Verdict::NotSafe | Verdict::Again => Box::pin(self.persist(upstream, outgoing, result)),
                }
            };
            // Outside of the block, where the first result is no longer kept.
            return persistent.await.map(|response| (upstream, response));
        }
    }

    /// Gets an answer from one endpoint and no other; `anyway` says whether it is tried though it is out.
    pub(super) async fn deliver_to(
        &self,
        upstream: &Upstream,
        anyway: bool,
        outgoing: &Outgoing<'_>,
    ) -> Result<Response<Answer>, ProxyError> {
        let health = upstream.endpoint().health();
        let permit = health.enter().or_else(|| anyway.then(|| health.enter_anyway()));
        let Some(permit) = permit else { return Err(ProxyError::AllOut { retry_after: health.out_for() }) };
        let persistent = {
            let result = self.try_endpoint(upstream, outgoing).await;
            match self.judge(outgoing.operation, note(permit, &result)) {
                Verdict::Final => return result,
                Verdict::NotSafe | Verdict::Again => Box::pin(self.persist(upstream, outgoing, result)),
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
    async fn persist(
        &self,
        upstream: &Upstream,
        outgoing: &Outgoing<'_>,
        mut result: Result<Response<Answer>, ProxyError>,
    ) -> Result<Response<Answer>, ProxyError> {
        let (place, exchange) = (upstream.place, outgoing.exchange);
        let mut attempts = 0;
        loop {
            let ending = ending(&result);
            match self.judge(outgoing.operation, ending) {
                Verdict::Final => return result,
                Verdict::NotSafe => {
                    self.metrics.retry(place, RetryOutcome::NotSafe);
                    return result;
                }
                Verdict::Again => attempts += 1,
            }
            match self.may_repeat(upstream, attempts, ending, &result, exchange) {
                Ok(pause) => {
                    tokio::time::sleep(pause).await;
                    exchange.waited(pause);
                }
                Err(denied) => {
                    if let Some(outcome) = denied {
                        self.metrics.retry(place, outcome);
                    }
                    return result;
                }
            }
            let Some(permit) = upstream.endpoint().health().enter() else { return result };
            self.metrics.retry(place, RetryOutcome::Retried);
            if let Ok(response) = result {
                response.into_body().discard();
            }
            result = self.try_endpoint(upstream, outgoing).await;
            note(permit, &result);
        }
    }

    /// Returns the pause before the next attempt, or why there is none; `None` where nothing was decided, since the number
    /// of attempts is at its end.
    fn may_repeat(
        &self,
        upstream: &Upstream,
        attempts: u32,
        ending: Ending,
        result: &Result<Response<Answer>, ProxyError>,
        exchange: &Exchange,
    ) -> Result<Duration, Option<RetryOutcome>> {
        if attempts >= self.snapshot.settings.retry.attempts {
            return Err(None);
        }
        let asked_for = result.as_ref().ok().and_then(|response| retry_after(response.headers()));
        let pause = asked_for.unwrap_or_else(|| retry::pause(attempts));
        if self.time_left(exchange).map_or(true, |left| left <= pause) {
            return Err(Some(RetryOutcome::Deadline));
        }
        let is_paid = ending == Ending::Unsent || upstream.budget.take();
        if is_paid { Ok(pause) } else { Err(Some(RetryOutcome::Budget)) }
    }

    fn all_are_out(&self, choice: &Choice<'_>) -> ProxyError {
        let upstreams = choice.places().filter_map(|place| self.upstreams.get(place));
        let soonest = upstreams.map(|upstream| upstream.endpoint().health().out_for()).min();
        ProxyError::AllOut { retry_after: soonest.unwrap_or_default() }
    }

    /// Sends a request to one endpoint: once, and once more with another token if the first was refused (401). A
    /// refused request was not processed, so sending it again cannot double it.
    async fn try_endpoint(&self, upstream: &Upstream, outgoing: &Outgoing<'_>) -> Result<Response<Answer>, ProxyError> {
        upstream.budget.pay_in();
        // Kept until the head of the answer is there.
        let _place = self.enter_endpoint(upstream.place, outgoing.exchange).await?;
        let refused = {
            let (response, bearer) = self.try_once(upstream, outgoing).await?;
            match response.status() {
                StatusCode::UNAUTHORIZED => Box::pin(self.try_with_another(upstream, outgoing, response, bearer)),
                StatusCode::FORBIDDEN => {
                    self.metrics.unauthorized(upstream.place, StatusCode::FORBIDDEN.as_u16(), UnauthorizedAction::Kept);
                    return Ok(response);
                }
                _ => return Ok(response),
            }
        };
        refused.await
    }

    /// Gets another token in place of the one that was refused, and sends the request with it. Without one, the refusal is
    /// the answer.
    async fn try_with_another(
        &self,
        upstream: &Upstream,
        outgoing: &Outgoing<'_>,
        refusal: Response<Answer>,
        refused: Bearer,
    ) -> Result<Response<Answer>, ProxyError> {
        let place = upstream.place;
        let count = |status: StatusCode, action| self.metrics.unauthorized(place, status.as_u16(), action);
        if !self.replace(upstream.endpoint(), &refused, outgoing.exchange).await {
            count(refusal.status(), UnauthorizedAction::Kept);
            return Ok(refusal);
        }
        count(refusal.status(), UnauthorizedAction::Replaced);
        self.metrics.retry(place, RetryOutcome::Retried);
        refusal.into_body().discard();
        let (response, _bearer) = self.try_once(upstream, outgoing).await?;
        if matches!(response.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            count(response.status(), UnauthorizedAction::Kept);
        }
        Ok(response)
    }

    /// Sends a request to one endpoint, with the token that is in service. Returns that, too.
    async fn try_once(
        &self,
        upstream: &Upstream,
        outgoing: &Outgoing<'_>,
    ) -> Result<(Response<Answer>, Bearer), ProxyError> {
        let endpoint = upstream.endpoint();
        let url = RequestUrl { origin: endpoint.origin(), path: outgoing.uri.path() };
        let bearer = match endpoint.bearer().ready(url) {
            Some(bearer) => bearer,
            None => Box::pin(self.wait_for_bearer(endpoint, url, outgoing.exchange)).await?,
        };
        self.fits(outgoing, &bearer)?;
        outgoing.body.can_be_sent()?;
        let began = Instant::now();
        let time = self.time_left_at(began, outgoing.exchange)?.min(self.snapshot.settings.try_timeout);
        let result = forward::send(&upstream.pool, outgoing, &bearer, &self.deadlines, began, time).await;
        let duration = began.elapsed();
        outgoing.exchange.waited(duration);
        let response = result.map_err(|failure| self.explain(upstream.place, outgoing, failure, time))?;
        self.metrics.upstream_answered(UpstreamRecord {
            endpoint: upstream.place,
            operation: outgoing.operation.index(),
            code: response.status().as_u16(),
            duration,
        });
        Ok((response, bearer))
    }

    /// Returns a bearer for an endpoint that has none ready.
    async fn wait_for_bearer(
        &self,
        endpoint: &Endpoint,
        url: RequestUrl<'_>,
        exchange: &Exchange,
    ) -> Result<Bearer, ProxyError> {
        let source = endpoint.bearer();
        let began = Instant::now();
        let time = self.time_left(exchange)?;
        let acquired = tokio::time::timeout(time, source.acquire()).await;
        exchange.waited(began.elapsed());
        self.metrics.token_waited(began.elapsed());
        match acquired {
            Ok(Ok(())) => source.ready(url).ok_or_else(|| ProxyError::TokenUnavailable(None)),
            Ok(Err(unavailable)) => Err(ProxyError::TokenUnavailable(Some(unavailable))),
            Err(_late) => Err(ProxyError::TokenUnavailable(None)),
        }
    }

    /// Holds the head against the limit once more, now with the bearer: the endpoint would refuse it.
    fn fits(&self, outgoing: &Outgoing<'_>, bearer: &Bearer) -> Result<(), ProxyError> {
        let (size, limit) = (outgoing.head().bytes() + bearer.header().len(), self.snapshot.settings.max_header_bytes);
        if size > limit { Err(ProxyError::HeadersTooLarge { size, limit }) } else { Ok(()) }
    }

    /// Gets another token in place of one that was refused. Returns whether there is one.
    async fn replace(&self, endpoint: &Endpoint, refused: &Bearer, exchange: &Exchange) -> bool {
        let began = Instant::now();
        let Ok(time) = self.time_left(exchange) else { return false };
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

    /// Turns a failed attempt into an error, and counts it.
    fn explain(&self, place: usize, outgoing: &Outgoing<'_>, failure: Failure, time: Duration) -> ProxyError {
        if let Some(callers_fault) = outgoing.body.failure() {
            return callers_fault;
        }
        if matches!(failure, Failure::Deadline { .. }) && outgoing.body.is_waiting_for_caller() {
            return ProxyError::SlowRequest;
        }
        self.metrics.upstream_failed(place, failure.reason());
        match failure {
            Failure::Connect(err) => ProxyError::EndpointUnavailable(err.into()),
            Failure::Unsent(err) => ProxyError::EndpointUnavailable(err.into()),
            Failure::Deadline { sent: false } => ProxyError::EndpointUnavailable("no connection in time".into()),
            Failure::Deadline { sent: true } => ProxyError::Deadline { limit: time },
            Failure::Broken(err) if err.is_unreadable() => ProxyError::AnswerUnreadable(err.into()),
            Failure::Broken(err) => ProxyError::UpstreamBroken(err),
        }
    }

    /// Returns what is left of the request's time.
    pub(super) fn time_left(&self, exchange: &Exchange) -> Result<Duration, ProxyError> {
        self.time_left_at(Instant::now(), exchange)
    }

    fn time_left_at(&self, now: Instant, exchange: &Exchange) -> Result<Duration, ProxyError> {
        let limit = self.snapshot.settings.request_timeout;
        let left = limit.saturating_sub(now.saturating_duration_since(exchange.started()));
        if left.is_zero() { Err(ProxyError::Deadline { limit }) } else { Ok(left) }
    }
}

/// Says how an attempt ended.
fn ending(result: &Result<Response<Answer>, ProxyError>) -> Ending {
    match result {
        Ok(response) => Ending::Answered(response.status()),
        Err(err) => err.ending(),
    }
}

/// Tells the endpoint's health what became of an attempt, and says how it ended.
fn note(permit: Permit<'_>, result: &Result<Response<Answer>, ProxyError>) -> Ending {
    match result {
        Ok(response) => {
            let status = response.status();
            let pause = match status {
                StatusCode::TOO_MANY_REQUESTS => Some(retry_after(response.headers()).unwrap_or(COOL_DOWN)),
                StatusCode::SERVICE_UNAVAILABLE => retry_after(response.headers()),
                _ => None,
            };
            match pause {
                Some(pause) => permit.asked_for(pause),
                None if retry::is_transient(status) => permit.failed(),
                None => permit.succeeded(),
            }
        }
        Err(ProxyError::EndpointUnavailable(_)) => permit.unreachable(),
        Err(err) if err.blames_endpoint() => permit.failed(),
        // A missing token is no fault of the endpoint, nor is what a caller did wrong.
        Err(_) => {}
    }
    ending(result)
}

/// Reads `Retry-After`: seconds, or a date.
///
/// Source: RFC 9110 section 10.2.3.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?;
    match value.parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_a_date) => {
            let at = httpdate::parse_http_date(value).ok()?;
            Some(at.duration_since(std::time::SystemTime::now()).unwrap_or_default())
        }
    }
}

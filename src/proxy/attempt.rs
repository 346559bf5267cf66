//! From a route to an answer: which endpoint is tried, with which token, and what follows when it fails.
//!
//! What may be sent again is said by `retry.rs`, whether an endpoint is worth trying by its health.

use std::time::{Duration, Instant};

use http::header::RETRY_AFTER;
use http::{HeaderMap, Response, StatusCode};

use super::body::{Answer, RequestBody};
use super::exchange::Exchange;
use super::forward::{self, Failure, Outgoing};
use super::retry::{self, Ending, Verdict};
use super::{Proxy, ProxyError, error_chain};
use crate::credential::{Bearer, RequestUrl};
use crate::endpoint::{Endpoint, Permit, Pool};
use crate::metrics::{RetryOutcome, UnauthorizedAction, UpstreamRecord};
use crate::route::{Order, Route, WhenUnavailable};
use crate::signalr::Operation;

/// The pause an endpoint gets that answers 429 without saying how long.
const COOL_DOWN: Duration = Duration::from_secs(1);

impl Proxy {
    /// Gets an answer from one of a route's endpoints. Returns the endpoint's place, too.
    ///
    /// While nothing was sent, the next endpoint is tried at once. Otherwise the attempt is repeated after a pause, where
    /// that is safe, within the endpoint's budget and the request's time.
    pub(super) async fn deliver(
        &self,
        route: &Route,
        operation: Operation,
        outgoing: &Outgoing,
        exchange: &mut Exchange,
    ) -> Result<(usize, Response<Answer>), ProxyError> {
        let settings = self.snapshot.settings.retry;
        let mut candidates = Candidates { proxy: self, route, order: route.order(), has_tried: false };
        let mut attempts = 0;
        let Some(mut next) = candidates.next() else { return Err(self.all_are_out(route)) };
        loop {
            let (place, pool, permit) = next;
            if let Some(name) = self.endpoint_names.get(place) {
                exchange.tries_endpoint(name);
            }
            let result = self.try_endpoint(place, pool, operation, outgoing, exchange).await;
            let ending = note(permit, &result);
            match retry::judge(operation, ending, settings.messages) {
                Verdict::Final => return result.map(|response| (place, response)),
                Verdict::NotSafe => {
                    self.metrics.retry(place, RetryOutcome::NotSafe);
                    return result.map(|response| (place, response));
                }
                Verdict::Again => {}
            }
            // Elsewhere at once, if nothing was sent and there is an elsewhere.
            if ending == Ending::Unsent
                && let Some(elsewhere) = candidates.next()
            {
                next = elsewhere;
                continue;
            }
            // Else here once more, after a pause.
            attempts += 1;
            match self.may_repeat(place, attempts, ending, &result, exchange) {
                Ok(pause) => {
                    tokio::time::sleep(pause).await;
                    exchange.waited(pause);
                }
                Err(denied) => {
                    if let Some(outcome) = denied {
                        self.metrics.retry(place, outcome);
                    }
                    return result.map(|response| (place, response));
                }
            }
            let Some(permit) = pool.endpoint().health().enter() else {
                return result.map(|response| (place, response));
            };
            self.metrics.retry(place, RetryOutcome::Retried);
            next = (place, pool, permit);
        }
    }

    /// Returns the pause before the next attempt, or why there is none; `None` where nothing was decided, since the number
    /// of attempts is at its end.
    fn may_repeat(
        &self,
        place: usize,
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
        let is_paid = ending == Ending::Unsent || self.budgets.get(place).is_some_and(retry::Budget::take);
        if is_paid { Ok(pause) } else { Err(Some(RetryOutcome::Budget)) }
    }

    fn all_are_out(&self, route: &Route) -> ProxyError {
        let pools = route.endpoints().iter().filter_map(|(place, _)| self.pools.get(*place));
        let soonest = pools.map(|pool| pool.endpoint().health().out_for()).min();
        ProxyError::AllOut { retry_after: soonest.unwrap_or_default() }
    }

    /// Sends a request to one endpoint: once, and once more with another token if the first was refused (401). A
    /// refused request was not processed, so sending it again cannot double it.
    async fn try_endpoint(
        &self,
        place: usize,
        pool: &Pool<RequestBody>,
        operation: Operation,
        outgoing: &Outgoing,
        exchange: &mut Exchange,
    ) -> Result<Response<Answer>, ProxyError> {
        if let Some(budget) = self.budgets.get(place) {
            budget.pay_in();
        }
        let mut may_replay = true;
        loop {
            let bearer = self.bearer(pool.endpoint(), outgoing.uri.path(), exchange).await?;
            let began = Instant::now();
            let time = self.time_left(exchange)?.min(self.snapshot.settings.try_timeout);
            let result = forward::send(pool, outgoing, &bearer, time).await;
            let duration = began.elapsed();
            exchange.waited(duration);
            let response = match result {
                Ok(response) => response,
                Err(failure) => return Err(self.explain(place, outgoing, failure, time)),
            };
            let status = response.status();
            self.metrics.upstream_answered(UpstreamRecord {
                endpoint: place,
                operation: operation.index(),
                code: status.as_u16(),
                duration,
            });
            if status != StatusCode::UNAUTHORIZED && status != StatusCode::FORBIDDEN {
                return Ok(response);
            }
            let replaced = status == StatusCode::UNAUTHORIZED
                && may_replay
                && self.replace(pool.endpoint(), &bearer, exchange).await;
            let action = if replaced { UnauthorizedAction::Replaced } else { UnauthorizedAction::Kept };
            self.metrics.unauthorized(place, status.as_u16(), action);
            if !replaced {
                return Ok(response);
            }
            self.metrics.retry(place, RetryOutcome::Retried);
            may_replay = false;
        }
    }

    /// Returns a bearer for the endpoint. Waits only when there is none.
    async fn bearer(&self, endpoint: &Endpoint, path: &str, exchange: &mut Exchange) -> Result<Bearer, ProxyError> {
        let url = RequestUrl { origin: endpoint.origin(), path };
        let source = endpoint.bearer();
        if let Some(bearer) = source.ready(url) {
            return Ok(bearer);
        }
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

    /// Gets another token in place of one that was refused. Returns whether there is one.
    async fn replace(&self, endpoint: &Endpoint, refused: &Bearer, exchange: &mut Exchange) -> bool {
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
                    cause = error_chain(&unavailable),
                    "an endpoint refused the token and there is no other"
                );
                false
            }
            Err(_late) => false,
        }
    }

    /// Turns a failed attempt into an error, and counts it.
    fn explain(&self, place: usize, outgoing: &Outgoing, failure: Failure, time: Duration) -> ProxyError {
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
            Failure::Broken(err) => ProxyError::UpstreamBroken(err),
        }
    }

    /// Returns what is left of the request's time.
    pub(super) fn time_left(&self, exchange: &Exchange) -> Result<Duration, ProxyError> {
        let limit = self.snapshot.settings.request_timeout;
        let left = limit.saturating_sub(exchange.started().elapsed());
        if left.is_zero() { Err(ProxyError::Deadline { limit }) } else { Ok(left) }
    }
}

/// The endpoints of a route that are worth trying, one after the other.
struct Candidates<'a> {
    proxy: &'a Proxy,
    route: &'a Route,
    order: Order<'a>,
    has_tried: bool,
}

impl<'a> Iterator for Candidates<'a> {
    type Item = (usize, &'a Pool<RequestBody>, Permit);

    fn next(&mut self) -> Option<Self::Item> {
        let proxy = self.proxy;
        let healthy = self.order.by_ref().find_map(|place| {
            let pool = proxy.pools.get(place)?;
            Some((place, pool, pool.endpoint().health().enter()?))
        });
        let sends_anyway = !self.has_tried && self.route.when_unavailable() == WhenUnavailable::Send;
        self.has_tried = true;
        if healthy.is_some() || !sends_anyway {
            return healthy;
        }
        // All are out, and the route would rather try than fail.
        self.order = self.route.order();
        let place = self.order.next()?;
        let pool = proxy.pools.get(place)?;
        Some((place, pool, pool.endpoint().health().enter_anyway()))
    }
}

/// Tells the endpoint's health what became of an attempt, and how it ended.
fn note(permit: Permit, result: &Result<Response<Answer>, ProxyError>) -> Ending {
    match result {
        Ok(response) => {
            let status = response.status();
            let pause = retry_after(response.headers());
            match (status, pause) {
                (StatusCode::TOO_MANY_REQUESTS, pause) => permit.asked_for(pause.unwrap_or(COOL_DOWN)),
                (StatusCode::SERVICE_UNAVAILABLE, Some(pause)) => permit.asked_for(pause),
                _ if retry::is_transient(status) => permit.failed(),
                _ => permit.succeeded(),
            }
            Ending::Answered(status)
        }
        Err(err) => {
            let ending = err.ending();
            // A missing token is no fault of the endpoint, nor is what a caller did wrong.
            if err.blames_endpoint() {
                permit.failed();
            }
            ending
        }
    }
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
